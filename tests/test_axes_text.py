"""M-RoPE in the orders of axes that systems use, against transformers' own modules, timm's and ggml's rules."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import posenc
from axes_peers import IN_CI, assert_rotated, assert_tables, halved, lost, needs, timm_embeddings
from conftest import assert_refused, assert_same_bits
from posenc import axes

if not IN_CI:
    needs("torch", "transformers")

import torch


@dataclass(frozen=True)
class Model:
    """A decoder of transformers, and how posenc says the same."""

    name: str  # its folder, and the module's
    classes: tuple[str, str]  # config, rotary module
    sections: tuple[int, ...]
    order: str
    layout: str
    parameters: tuple[tuple[str, Any], ...] = ()  # of rope_parameters, beside the defaults
    axes: int = 3


QWEN2_VL = ("Qwen2VLTextConfig", "Qwen2VLRotaryEmbedding")
MODELS = [
    Model("qwen2_vl", QWEN2_VL, (16, 24, 24), "chunked", "half", (("rope_theta", 1e6),)),
    Model("qwen2_5_vl", ("Qwen2_5_VLTextConfig", "Qwen2_5_VLRotaryEmbedding"), (16, 24, 24), "chunked", "half"),
    Model("qwen3_vl", ("Qwen3VLTextConfig", "Qwen3VLTextRotaryEmbedding"), (24, 20, 20), "interleaved", "half"),
    Model("qwen3_5", ("Qwen3_5TextConfig", "Qwen3_5TextRotaryEmbedding"), (11, 11, 10), "interleaved", "half"),
    Model("glm4v", ("Glm4vTextConfig", "Glm4vTextRotaryEmbedding"), (8, 12, 12), "chunked", "interleaved",
          (("partial_rotary_factor", 0.5),)),
    Model("ernie4_5_vl_moe", ("Ernie4_5_VLMoeTextConfig", "Ernie4_5_VLMoeTextRotaryEmbedding"), (22, 22, 20),
          "hw_then_t", "interleaved", (("rope_theta", 5e5),)),
]  # fmt: skip


def built(model: Model) -> tuple[Any, Any, Any]:
    """Return a model's modeling file, its rotary module and the Rope of the same config."""
    folder = f"transformers.models.{model.name}"
    modeling = importlib.import_module(f"{folder}.modeling_{model.name}")
    config = getattr(importlib.import_module(f"{folder}.configuration_{model.name}"), model.classes[0])()
    config.rope_parameters.update(model.parameters)
    config.rope_parameters["mrope_section"] = list(model.sections)
    module = getattr(modeling, model.classes[1])(config)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = axes.mrope(
        head_dim,
        model.sections,
        layout=model.layout,
        order=model.order,
        base=config.rope_parameters["rope_theta"],
        rotary_dim=2 * len(module.inv_freq),
        precision="float32",
    )
    return modeling, module, rope


def some_positions(rng: np.random.Generator, count: int = 3) -> np.ndarray:
    """Return (axes, batch, seq): text, then an image's places after it."""
    text = np.broadcast_to(np.arange(9), (count, 2, 9))
    return np.concatenate([text, rng.integers(9, 4096, (count, 2, 23))], axis=-1)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_models_of_transformers(model: Model, rng: np.random.Generator) -> None:
    """Tables of the model's own module, and q and k rotated by its own function."""
    modeling, module, rope = built(model)
    positions = some_positions(rng)
    cos, sin = module(torch.zeros(1), torch.from_numpy(positions))
    own = module.inv_freq.numpy()
    if model.name == "ernie4_5_vl_moe":  # stored as h's frequencies, w's, t's: back to the order of the pairs
        own = np.concatenate([own[:44].reshape(2, 22).T.ravel(), own[44:]])
    slack = lost(rope, positions, own)
    assert_tables(rope, positions, halved(cos, model.layout), halved(sin, model.layout), reach=slack)
    q, k = (torch.from_numpy(rng.standard_normal((2, n, 32, rope.head_dim)).astype(np.float32)) for n in (4, 2))
    apply = getattr(modeling, "apply_rotary_pos_emb", None)
    wanted = apply(q, k, cos, sin)
    assert_rotated(rope(q, k, positions=positions), wanted, tolerance=2e-5 + 6 * slack.max())


def test_most_frequencies_are_transformers_own_bits() -> None:
    """So that the slack above is an exception."""
    same = [
        built(model)[1].inv_freq.numpy() == built(model)[2].inv_freq for model in MODELS if "ernie" not in model.name
    ]
    assert np.concatenate(same).mean() > 0.9


@pytest.mark.parametrize("order", ["chunked", "interleaved", "hw_then_t"])
def test_text_is_rotated_as_by_an_ordinary_rope(order: str, rng: np.random.Generator) -> None:
    sections = {"chunked": (16, 24, 24), "interleaved": (24, 20, 20), "hw_then_t": (22, 22, 20)}[order]
    q = rng.standard_normal((2, 3, 17, 128)).astype(np.float32)
    rope, plain = axes.mrope(128, sections, layout="half", order=order), posenc.Rope(128, layout="half")
    positions = np.arange(100, 117)
    assert_same_bits(rope(q, positions=np.stack([positions] * 3)), plain(q, positions=positions))


def test_neomme_rows_and_columns(rng: np.random.Generator) -> None:
    """Two axes that take turns (modeling_neomme.py, recomposition_frequencies): row0 col0 row1 col1."""
    modeling = importlib.import_module("transformers.models.neomme.modeling_neomme")
    rope = axes.mrope(64, [16, 16], layout="half", order="interleaved", precision="float32")
    positions = rng.integers(0, 500, (2, 2, 11))
    angles = torch.from_numpy(positions)[..., None].float() * torch.tensor(rope.inv_freq).float()
    module = modeling.NeoMMERotaryEmbedding.recomposition_frequencies
    cos, sin = (module(None, t) for t in (angles.cos(), angles.sin()))
    assert_tables(rope, positions, halved(cos, "half"), halved(sin, "half"))


def test_ggml_gives_leftover_pairs_to_the_fourth_axis() -> None:
    """ggml, src/ggml-cpu/ops.cpp, ggml_mrope_cache_init for is_imrope: by sector % 3, within 3 * sections, else e.

    With the sections (24, 20, 20, 0) of Qwen3-VL, pairs 61 and 62 go to e; in transformers they are t's.
    """
    ggml = axes.mrope(128, [24, 20, 20, 0], layout="half", order="interleaved_ggml").axis_of_freq
    ours = axes.mrope(128, [24, 20, 20], layout="half", order="interleaved").axis_of_freq
    assert ggml is not None
    assert ours is not None
    assert np.flatnonzero(ggml != ours).tolist() == [61, 62]
    assert ggml[[61, 62]].tolist() == [3, 3]
    assert ours[[61, 62]].tolist() == [0, 0]
    assert ours[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]
    short = axes.mrope(20, [2, 1, 2, 5], layout="half", order="interleaved_ggml").axis_of_freq
    assert short is not None
    assert short.tolist() == [0, 1, 2, 0, 3, 2, 3, 3, 3, 3]


def test_timm_clamps_sections_that_do_not_tile() -> None:
    """timm, RotaryEmbeddingMRope: GenLIP's (8, 12, 12) over 36 pairs; and its docstring's 11/11/10 at head_dim 64."""
    needs("torch")
    for head_dim, counts in ((72, [12, 12, 12]), (64, [11, 11, 10])):
        module = timm_embeddings().RotaryEmbeddingMRope(head_dim, mrope_section=(8, 12, 12))
        rope = axes.mrope(head_dim, [8, 12, 12], layout="half", order="interleaved_clamped", precision="float32")
        assert np.array_equal(rope.axis_of_freq, module.axis.numpy())
        assert np.bincount(rope.axis_of_freq).tolist() == counts
        sin, cos = (halved(t, "half") for t in module.get_embed([5, 7]).chunk(2, -1))
        positions = np.concatenate([np.zeros((1, 35), int), np.indices((5, 7)).reshape(2, -1)])
        assert_tables(rope, positions, cos, sin, reach=lost(rope, positions, module.inv_freq.numpy()))


def test_scalings_apply_as_in_an_ordinary_rope() -> None:
    scaling = posenc.scaling.Yarn(factor=4.0, original_max_position_embeddings=32768)
    rope = axes.mrope(128, [16, 24, 24], layout="half", base=1e6, scaling=scaling)
    plain = posenc.Rope(128, layout="half", base=1e6, scaling=scaling)
    assert np.array_equal(rope.inv_freq, plain.inv_freq)
    assert rope.attention_factor == plain.attention_factor > 1


WRONG: list[tuple[type[Exception], str, list[Any], dict[str, Any]]] = [
    (ValueError, "sections must have the sum rotary_dim/2 = 64, got [16, 24, 25] (sum 65)", [16, 24, 25], {}),
    (ValueError, "sections must have the sum rotary_dim/2 = 32", [16, 24, 24], {"rotary_dim": 64}),
    (ValueError, "order must be one of", [16, 24, 24], {"order": "spiral"}),
    (ValueError, "layout must be one of", [16, 24, 24], {"layout": "neox"}),
    (TypeError, "sections[1] must be an integer, got 24.0", [16, 24.0, 24], {}),
    (ValueError, "sections[0] must be at least 0, got -16", [-16, 40, 40], {}),
    (ValueError, "sections must have 2 to 8 entries", [64], {}),
    (
        ValueError,
        "sections must have 4 entries in this order",
        [24, 20, 20],
        {"order": "interleaved_ggml"},
    ),
    (ValueError, "sections must have 3 entries in this order", [32, 32], {"order": "hw_then_t"}),
    (ValueError, "(h, w, t) must have h equal to w", [20, 24, 20], {"order": "hw_then_t"}),
    (
        ValueError,
        "cannot be interleaved: the axes would turn [22, 21, 21] pairs",
        [4, 30, 30],
        {"order": "interleaved"},
    ),
]


@pytest.mark.parametrize(("error", "message", "sections", "more"), WRONG)
def test_wrong_parameters(error: type[Exception], message: str, sections: list[Any], more: dict[str, Any]) -> None:
    assert_refused(error, message, lambda: axes.mrope(128, sections, **{"layout": "half", **more}))


def test_sections_must_be_a_sequence() -> None:
    assert_refused(
        TypeError, "sections must be a sequence of integers, got 64", lambda: axes.mrope(128, 64, layout="half")
    )  # type: ignore[arg-type]


def test_a_difference_is_seen(rng: np.random.Generator) -> None:
    """The comparisons say no: to another order, to rows exchanged, to a table's half that differs."""
    _, module, rope = built(MODELS[0])
    positions = some_positions(rng)
    cos, sin = (halved(t, "half") for t in module(torch.zeros(1), torch.from_numpy(positions)))
    other = axes.mrope(128, [24, 20, 20], layout="half", order="interleaved", base=1e6, precision="float32")
    for wrong, where in ((other, positions), (rope, positions[::-1])):
        with pytest.raises(AssertionError):
            assert_tables(wrong, where, cos, sin)
    q = rng.standard_normal((1, 1, 4, 128)).astype(np.float32)
    with pytest.raises(AssertionError):
        assert_rotated(rope(q), rope(q) + np.float32(1e-4))
    with pytest.raises(AssertionError):
        halved(np.arange(8.0), "half")
    with pytest.raises(AssertionError):
        lost(rope, positions, rope.inv_freq * 1.001)
