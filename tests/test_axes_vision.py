"""The vision towers of transformers: tables of their own modules, q and k rotated by their own functions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from axes_peers import IN_CI, assert_rotated, assert_tables, grid, halved, lost, needs
from posenc import axes

if not IN_CI:
    needs("torch", "transformers")

import torch

Tensor = torch.Tensor


def of_file(function: str, **more: Any) -> Callable[..., Any]:
    """Return a call of a modeling file's function on (batch, heads, seq, head_dim) and doubled tables."""
    return lambda modeling, q, k, cos, sin: getattr(modeling, function)(q, k, cos, sin, **more)


def of_towers(modeling: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
    """Call apply_rotary_pos_emb_vision, which takes (seq, heads, head_dim)."""
    turned = [
        modeling.apply_rotary_pos_emb_vision(q[i].transpose(0, 1), k[i].transpose(0, 1), cos, sin)
        for i in range(len(q))
    ]
    return tuple(torch.stack([pair[j].transpose(0, 1) for pair in turned]) for j in (0, 1))


@dataclass(frozen=True)
class Tower:
    """A vision tower, and the name under which posenc has it."""

    system: str
    name: str  # its folder in transformers
    classes: tuple[str, str]  # config, rotary module
    layout: str
    apply: Callable[..., Any]
    rows: tuple[int, ...] = (0, 1)  # which of our rows the module is given, in its order
    axes: int = 2


PIXTRAL = of_file("apply_rotary_pos_emb", unsqueeze_dim=0)
SAM = of_file("apply_rotary_pos_emb_2d")
TOWERS = [
    Tower("qwen2_vl_vision", "qwen2_vl", ("Qwen2VLVisionConfig", "Qwen2VLVisionRotaryEmbedding"), "half", of_towers),
    Tower("qwen2_vl_vision", "qwen3_vl", ("Qwen3VLVisionConfig", "Qwen3VLVisionRotaryEmbedding"), "half", of_towers),
    Tower("pixtral", "pixtral", ("PixtralVisionConfig", "PixtralVisionRotaryEmbedding"), "half", PIXTRAL),
    Tower("kimi_k25_vision", "kimi_k25", ("Kimi_K25VisionConfig", "Kimi_K25VisionRotaryEmbedding"), "half", of_towers),
    Tower("step3p7_vision", "step3p7", ("Step3p7VisionConfig", "Step3p7VisionRotaryEmbedding"), "half", of_towers),
    Tower("inkling2_vision", "inkling2", ("Inkling2VisionConfig", "Inkling2VisionRotaryEmbedding"), "interleaved",
          of_towers),
    Tower("sam2", "sam2_video", ("Sam2VideoConfig", "Sam2VideoVisionRotaryEmbedding"), "interleaved", SAM, (1, 0)),
    Tower("sam3", "sam3", ("Sam3ViTConfig", "Sam3ViTRotaryEmbedding"), "interleaved", SAM, (1, 0)),
    Tower("minimax_m3_vision", "minimax_m3_vl", ("MiniMaxM3VLVisionConfig", "MiniMaxM3VLVisionRotaryEmbedding"), "half",
          of_towers, (0, 1, 2), 3),
]  # fmt: skip


def of(name: str, *classes: str) -> tuple[Any, ...]:
    """Return a model's modeling file, and classes of it or of its configuration."""
    modeling, configuration = (
        importlib.import_module(f"transformers.models.{name}.{kind}_{name}") for kind in ("modeling", "configuration")
    )
    return modeling, *(getattr(modeling, c, None) or getattr(configuration, c) for c in classes)


def head_dim_of(config: Any) -> int:
    """Return the head size as the modules find it."""
    if hasattr(config, "memory_attention_hidden_size"):
        return config.memory_attention_hidden_size // config.memory_attention_num_attention_heads
    width = getattr(config, "embed_dim", None) or config.hidden_size
    heads = getattr(config, "num_heads", None) or config.num_attention_heads
    return getattr(config, "head_dim", None) or width // heads


def pair_of(rng: np.random.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    q, k = rng.standard_normal((2, *shape)).astype(np.float32)
    return torch.from_numpy(q), torch.from_numpy(k)


def spread(frequencies: Any, rope: Any) -> np.ndarray:
    """Return a module's frequencies, those of one axis, as our pairs have them."""
    theirs, ours = frequencies.numpy(), rope.inv_freq
    if len(theirs) == len(ours):  # of all axes already
        return theirs
    order = np.argsort(rope.axis_of_freq, kind="stable")
    result = np.empty_like(ours)
    result[order] = np.tile(theirs, len(ours) // len(theirs))
    return result


@pytest.mark.parametrize("tower", TOWERS, ids=lambda tower: f"{tower.system}-{tower.name}")
def test_towers(tower: Tower, rng: np.random.Generator) -> None:
    modeling, config_class, module_class = of(tower.name, *tower.classes)
    config = config_class()
    module = module_class(config)
    base = config.rope_parameters["rope_theta"]
    rope = axes.named(tower.system, head_dim_of(config), base=base, precision="float32")
    positions = grid(5, 7) + 30 if tower.axes == 2 else grid(3, 4, 5)
    cos, sin = module(torch.zeros(1), torch.from_numpy(positions[list(tower.rows)].T.copy()))
    slack = lost(rope, positions, spread(module.inv_freq, rope))
    width = positions.shape[1], -1
    assert_tables(
        rope, positions, halved(cos, tower.layout).reshape(width), halved(sin, tower.layout).reshape(width), reach=slack
    )
    q, k = pair_of(rng, 2, 3, positions.shape[1], rope.head_dim)
    assert_rotated(rope(q, k, positions=positions), tower.apply(modeling, q, k, cos, sin), 2e-5 + 6 * slack.max())


def test_gemma4(rng: np.random.Generator) -> None:
    """Blocks of halves, [h h | w w], which one Rope cannot pair."""
    modeling, config_class, module_class = of("gemma4", "Gemma4VisionConfig", "Gemma4VisionRotaryEmbedding")
    config = config_class()
    module, rope = module_class(config), axes.named("gemma4_vision", config.head_dim, precision="float32")
    assert config.rope_parameters["rope_theta"] == 100.0
    positions = np.stack([grid(4, 6), grid(4, 6)[::-1]], axis=1)  # (axes, batch, seq)
    there = torch.from_numpy(positions.transpose(1, 2, 0).copy())
    cos, sin = module(torch.zeros(1), there)
    slack = lost(rope, positions, np.tile(module.inv_freq.numpy(), 2))
    parts = [np.concatenate([halved(part, "half") for part in table.chunk(2, -1)], -1) for table in (cos, sin)]
    assert_tables(rope, positions, *parts, reach=slack)
    q, k = pair_of(rng, 2, 24, 5, config.head_dim)  # (batch, seq, heads, head_dim)
    wanted = tuple(modeling.apply_multidimensional_rope(x, cos, sin, there) for x in (q, k))
    assert_rotated(rope(q, k, positions=positions, seq_axis=-3), wanted, 2e-5 + 6 * slack.max())


def test_llama4(rng: np.random.Generator) -> None:
    """Places from 1, x before y, and the class token, last, not rotated."""
    modeling, config_class, module_class = of("llama4", "Llama4VisionConfig", "Llama4VisionRotaryEmbedding")
    config = config_class(image_size=70, patch_size=14)
    module = module_class(config)
    base = config.rope_parameters["rope_theta"]
    rope = axes.named("llama4_vision", head_dim_of(config), base=base, precision="float32")
    positions = np.pad(grid(5, 5) + 1, ((0, 0), (0, 1)))
    turns = module(torch.zeros(1))
    theirs = turns.numpy().reshape(26, -1)
    assert_tables(rope, positions, theirs.real, theirs.imag)
    q, k = pair_of(rng, 2, 26, 3, rope.head_dim)
    assert_rotated(rope(q, k, positions=positions, seq_axis=-3), modeling.vision_apply_rotary_emb(q, k, turns))


@pytest.mark.parametrize("name", ["dinov3_vit", "sapiens2"])
def test_dinov3(name: str, rng: np.random.Generator) -> None:
    """Patch centres in [-1, 1]; class and register tokens in front, at 0."""
    prefix = {"dinov3_vit": "DINOv3ViT", "sapiens2": "Sapiens2"}[name]
    modeling, config_class, module_class = of(name, f"{prefix}Config", f"{prefix}RopePositionEmbedding")
    config = config_class()
    rope = axes.dinov3(head_dim_of(config), base=config.rope_theta, precision="float32")
    shape = (5, 8)
    cos, sin = module_class(config).eval()(torch.zeros(1, 3, *(n * config.patch_size for n in shape)))
    centres = 2 * (grid(*shape) + 0.5) / np.array(shape)[:, None] - 1
    assert_tables(rope, centres, halved(cos, "half"), halved(sin, "half"))
    q, k = pair_of(rng, 2, 3, 5 + 40, rope.head_dim)
    wanted = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    assert_rotated(rope(q, k, positions=np.pad(centres, ((0, 0), (5, 0)))), wanted)


def test_efficientloftr() -> None:
    """Places from 1, h and w in turns, over the hidden vector."""
    modeling = importlib.import_module("transformers.models.efficientloftr.modeling_efficientloftr")
    rope = axes.named("efficientloftr", 256, precision="float32")
    own = torch.tensor(rope.inv_freq[0::2]).float()
    angles = modeling.compute_embeddings(own, 4, 6, 256).reshape(24, -1)
    assert_tables(rope, grid(4, 6) + 1, angles.cos(), angles.sin())


def test_lightglue(rng: np.random.Generator) -> None:
    """A learned projection of key points, the same for all heads."""
    modeling, config_class = of("lightglue", "LightGlueConfig")
    config = config_class()
    encoder = modeling.LightGluePositionalEncoder(config)
    weight = encoder.projector.weight.detach().numpy().T  # (axes, pairs)
    head_dim = config.descriptor_dim // config.num_attention_heads
    rope = axes.MixedRope(head_dim, weight, layout="interleaved", precision="float32")
    points = rng.uniform(-1, 1, (3, 17, 2)).astype(np.float32)
    with torch.no_grad():
        cos, sin = encoder(torch.from_numpy(points))[0]
    assert_tables(rope, points.transpose(2, 0, 1), halved(cos, "interleaved"), halved(sin, "interleaved"))
    q, k = pair_of(rng, 3, 4, 17, head_dim)
    wanted = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    assert_rotated(rope(q, k, positions=points.transpose(2, 0, 1)), wanted)


def test_musicflamingo(rng: np.random.Generator) -> None:
    """Times in seconds: angles of some hundred radians, of which float32 knows about an eight-thousandth part of one.

    The peer multiplies in another order, so each of its three products may be half an ulp of the angle away.
    """
    modeling, config_class, module_class = of("musicflamingo", "MusicFlamingoConfig", "MusicFlamingoRotaryEmbedding")
    config = config_class()
    module = module_class(config)
    base, most = config.rope_parameters["rope_theta"], int(config.max_position_embeddings)
    rope = axes.musicflamingo(config.head_dim, rotary_dim=2 * len(module.inv_freq), base=base)
    times = 0.04 * np.arange(3 * 50, dtype=np.float32).reshape(3, 50)
    cos, sin = module(torch.from_numpy(times), 50)
    positions = axes.musicflamingo_positions(times, most, frame_step=config.audio_frame_step)
    angles = np.abs(positions[rope.axis_of_freq] * rope.inv_freq[:, None, None]).transpose(1, 2, 0)
    slack = 4 * 2.0**-23 * angles
    assert_tables(rope, positions, halved(cos, "interleaved"), halved(sin, "interleaved"), reach=slack)
    x = torch.from_numpy(rng.standard_normal((3, 50, rope.head_dim)).astype(np.float32))
    wanted = modeling.apply_rotary_time_emb(x, cos, sin)
    assert_rotated(rope(x, positions=positions), wanted, 2e-5 + 6 * slack.max())


def test_vjepa2(rng: np.random.Generator) -> None:
    """No rotation: reproduced, and its norm ratio pinned as what it is."""
    modeling = importlib.import_module("transformers.models.vjepa2.modeling_vjepa2")
    head_dim, positions = 64, grid(2, 3, 4)
    rope, block = axes.vjepa2(head_dim, precision="float32"), 2 * (64 // 3 // 2)
    q, k = pair_of(rng, 2, 3, 24, head_dim)

    def theirs(x: Tensor) -> Tensor:
        parts = [
            modeling.rotate_queries_or_keys(x[..., i * block : (i + 1) * block], torch.from_numpy(positions[i]))
            for i in range(3)
        ]
        return torch.cat([*parts, x[..., 3 * block :]], dim=-1)

    found = rope(q, k, positions=positions)
    assert_rotated(found, (theirs(q), theirs(k)))
    ratio = (found[0].norm(dim=-1) / q.norm(dim=-1)).numpy()
    assert ratio.min() < 0.97
    assert ratio.max() > 1.03
    assert "V-JEPA 2" in axes.NOT_ROTATIONS["vjepa2"]


@pytest.mark.parametrize("sections", [(16, 16, 16, 16), (16, 24, 24), (8, 24, 32)])
def test_hunyuan_vl(sections: tuple[int, ...], rng: np.random.Generator) -> None:
    """No rotation either, where the axes differ; an ordinary one where they agree."""
    modeling, config_class, module_class = of("hunyuan_vl", "HunYuanVLTextConfig", "HunYuanVLRotaryEmbedding")
    config = config_class(head_dim=128)
    config.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}
    module, rope = module_class(config), axes.hunyuan_vl(128, sections, base=1e4, precision="float32")
    positions = rng.integers(0, 60, (len(sections), 2, 13))
    cos, sin = module(torch.zeros(1), torch.from_numpy(positions))
    q, k = pair_of(rng, 2, 3, 13, 128)
    wanted = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    slack = lost(rope.first, positions, module.inv_freq.numpy()).max()
    found = rope(q, k, positions=positions)
    assert_rotated(found, wanted, 2e-5 + 6 * slack)
    assert abs(found[0].norm(dim=-1) / q.norm(dim=-1) - 1).max() > 0.01
    plain = axes.mrope(128, [64 - len(sections) + 1, *[1] * (len(sections) - 1)], layout="half", precision="float32")
    text = np.broadcast_to(positions[:1], positions.shape)
    assert_rotated(rope(q, k, positions=text), plain(q, k, positions=text))


def test_a_difference_is_seen(rng: np.random.Generator) -> None:
    """The towers' comparisons say no to the neighbour's scheme, and to h and w exchanged."""
    q, _ = pair_of(rng, 1, 2, 35, 80)
    positions = grid(5, 7) + 30
    right = axes.named("qwen2_vl_vision", 80)
    for wrong in ("pixtral", "kimi_k25_vision", "step3p7_vision", "sam2"):
        with pytest.raises(AssertionError):
            assert_rotated(axes.named(wrong, 80)(q, positions=positions), right(q, positions=positions))
    with pytest.raises(AssertionError):
        assert_rotated(right(q, positions=positions[::-1]), right(q, positions=positions))
