"""Every rotary module of the installed transformers as a black box: its own tables, its own file's rotation.

What is identified is compared with what posenc.config reads from the config that the module is built of.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch

import posenc
import transformers_zoo as zoo
from posenc import config
from posenc.axes import BlockRope, UnequalRope
from posenc.checks import check_rope, identify, wrap_hf
from transformers_zoo import Case

LIMIT = 2.0  # seconds of work for one; the machine may be busy
Fn = Callable[[Any, Any], Any]

#: files with two functions that rotate and no word in the config -> the one that attention calls with these tables
APPLIES = {
    "AXK2RotaryEmbedding": "apply_rotary_pos_emb_interleave",
    "DeepseekV32RotaryEmbedding": "apply_rotary_pos_emb_interleave",
    "Dots3NoteTextRotaryEmbedding": "apply_rotary_pos_emb_interleave",
    "Dots3NoteAudioRotaryEmbedding": "apply_rotary_pos_emb",
}


@functools.cache
def read(case: Case) -> config.ModelPositions:
    own, _ = zoo.built(case)
    return config.read(own, family=zoo.UNNAMED.get(case.config, own.model_type), precision="float32")


# ---- modules whose forward takes no position ids: rows of their table are picked by position


def conformer(case: Case, own: Any, module: Any) -> Fn:
    """Rotated in a method of the attention, over (batch, seq, heads * head_dim)."""
    attention = next(v for v in vars(case.module).values() if hasattr(v, "_apply_rotary_embedding"))
    table = module(torch.zeros(1, 4096, 8))

    def fn(x: Any, positions: Any) -> Any:
        heads, size = x.shape[1], x.shape[3]
        flat = x.transpose(1, 2).reshape(1, -1, heads * size)
        like = SimpleNamespace(num_heads=heads, head_size=size)
        turned = attention._apply_rotary_embedding(like, flat, table[:, positions])
        return turned.view(1, -1, heads, size).transpose(1, 2)

    return fn


def clvp(case: Case, own: Any, module: Any) -> Fn:
    angles, width = module(torch.zeros(1, 4096, 8))[0], 32

    def fn(x: Any, positions: Any) -> Any:
        part = x[..., :width]
        turned = case.module.apply_rotary_pos_emb(part, part, part, angles.cos(), angles.sin(), positions[None])[0]
        return torch.cat([turned, x[..., width:]], -1)

    return fn


SIDE = 32


def patches(case: Case, own: Any, module: Any) -> Fn:
    """Positions are patches of a square, whose centres lie in [-1, 1]."""
    size = own.patch_size if isinstance(own.patch_size, int) else own.patch_size[0]
    cos, sin = module(torch.zeros(1, 3, SIDE * size, SIDE * size))

    def fn(x: Any, positions: Any) -> Any:
        row = rows_of(positions, SIDE)
        return case.module.apply_rotary_pos_emb(x, x, cos[row], sin[row])[0]

    return fn


def rows_of(positions: Any, side: int) -> Any:
    if int(positions.max()) >= side:
        raise IndexError(f"the grid ends at {side}")
    return positions[0] * side + positions[1]


def loftr(case: Case, own: Any, module: Any) -> Fn:
    step, size = own.q_aggregation_stride, own.q_aggregation_kernel_size
    edge = (SIDE - 1) * step + size
    cos, sin = (table[0].flatten(0, 1) for table in module(torch.zeros(1, 8, edge, edge)))

    def fn(x: Any, positions: Any) -> Any:
        row = rows_of(positions, SIDE)
        return case.module.apply_rotary_pos_emb(x, x, cos[row][None], sin[row][None])[0]

    return fn


def llama4_vision(case: Case, own: Any, module: Any) -> Fn:
    side, table = own.image_size // own.patch_size, module(torch.zeros(1))[:, 0]

    def fn(x: Any, positions: Any) -> Any:
        by_token = x.transpose(1, 2)
        turns = table[rows_of(positions, side)][:, None]
        return case.module.vision_apply_rotary_emb(by_token, by_token, turns)[0].transpose(1, 2)

    return fn


def atoms(case: Case, own: Any, module: Any) -> Fn:
    def fn(x: Any, positions: Any) -> Any:
        cos, sin = module(positions[:3].T[None].float(), positions[3][None], torch.float32)
        return case.module.apply_rotary_pos_emb(x, x, cos, sin)[0]

    return fn


def audio_time(case: Case, own: Any, module: Any) -> Fn:
    """Positions are frames of the first window, all heard at one time, of a thousandth of a radian a frame."""
    frames = int(module.max_seq_len_cached)
    stamp = torch.full((1, frames), frames / (2 * np.pi) ** 2 / 1000)
    cos, sin = (table[0] for table in module(stamp, frames))

    def fn(x: Any, positions: Any) -> Any:
        return case.module.apply_rotary_time_emb(x, cos[positions], sin[positions])

    return fn


#: rotary module -> how it is called, its axes, what its positions are: posenc's times scale, plus offset
SPECIAL: dict[str, tuple[Callable[[Case, Any, Any], Fn], int, float, float]] = {
    "ClvpRotaryPositionalEmbedding": (clvp, 1, 1, 0),
    "SeamlessM4TConformerRotaryPositionalEmbedding": (conformer, 1, 1, 0),
    "Wav2Vec2BertRotaryPositionalEmbedding": (conformer, 1, 1, 0),
    "Wav2Vec2ConformerRotaryPositionalEmbedding": (conformer, 1, 1, 0),
    "DINOv3ViTRopePositionEmbedding": (patches, 2, 2 / SIDE, 0.5 - SIDE / 2),
    "EomtDinov3RotaryEmbedding": (patches, 2, 2 / SIDE, 0.5 - SIDE / 2),
    "Sapiens2RopePositionEmbedding": (patches, 2, 2 / SIDE, 0.5 - SIDE / 2),
    "EfficientLoFTRRotaryEmbedding": (loftr, 2, 1, 1),
    "Llama4VisionRotaryEmbedding": (llama4_vision, 2, 1, 1),
    "EsmFold2RotaryEmbedding": (atoms, 4, 1, 0),
    "MusicFlamingoRotaryEmbedding": (audio_time, 1, -1e-3, 0),
}


def black_box(case: Case, name: str, axes: int) -> tuple[Fn, int, float, float]:
    own, module = zoo.built(case)
    if case.rotary in SPECIAL:
        make, axes, scale, offset = SPECIAL[case.rotary]
        return make(case, own, module), axes, scale, offset
    takes = inspect.signature(type(module).forward).parameters
    layer_type = name if "layer_type" in takes and name != "all" else None
    apply = getattr(case.module, APPLIES[case.rotary]) if case.rotary in APPLIES else None
    return wrap_hf(module, layer_type=layer_type, axes=axes, apply=apply), axes, 1.0, 0.0


# ---- what is tested by default: one of each kind; the others with -m slow

#: folders of models that rotate in different ways: layouts, parts of heads, scalings, axes, no position ids
SAMPLE = {
    *("llama", "gpt_oss", "mistral4", "deepseek_v3", "deepseek_v4", "glm", "glm4v", "gemma4", "nanochat"),
    *(
        "qwen2_vl",
        "qwen3_vl",
        "ernie4_5_vl_moe",
        "hunyuan_vl",
        "dinov3_vit",
        "llama4",
        "musicflamingo",
        "wav2vec2_bert",
    ),
}


def cases() -> list[Any]:
    return [
        pytest.param(case, id=str(case), marks=[] if case.folder in SAMPLE else [pytest.mark.slow])
        for case in zoo.cases()
    ]


@pytest.mark.parametrize("case", cases())
def test_identified(case: Case) -> None:
    for name, rope in read(case).ropes.items():
        assert_identified(case, name, rope)


def assert_identified(case: Case, name: str, rope: Any) -> None:
    fn, axes, scale, offset = black_box(case, name, len(rope.ropes) if isinstance(rope, BlockRope) else rope.axes)
    head_dim = rope.head_dim if rope.head_dim <= 512 else rope.rotary_dim + 8  # MusicFlamingo turns hidden states
    start = time.process_time()
    found = identify(fn, head_dim, axes=axes, like="torch")
    assert time.process_time() - start < LIMIT
    if isinstance(rope, UnequalRope):
        assert_unequal(found, rope)
        return
    assert found.ok, str(found)
    assert found.faults == ()
    assert type(found.rope) is type(rope)
    assert found.facts["position_offset"] == offset
    assert found.facts["attention_factor"] == pytest.approx(getattr(rope, "attention_factor", 1.0), rel=1e-5)
    wanted, theirs = rope.inv_freq * scale, found.rope.inv_freq
    if case.rotary == "MusicFlamingoRotaryEmbedding":  # in the first window its half of the pairs does not turn
        assert found.facts["layout"] == rope.layout
        assert np.allclose(theirs, wanted[rope.axis_of_freq == 1], rtol=1e-5)
        return
    assert np.allclose(theirs, wanted, rtol=1e-5, atol=1e-9)
    if not isinstance(rope, BlockRope):
        assert_convention(found, rope)


def assert_convention(found: Any, rope: Any) -> None:
    assert found.facts["layout"] == rope.layout
    assert (found.rope.rotary_dim, found.rope.rotary_offset) == (rope.rotary_dim, rope.rotary_offset)
    if rope.axes > 1 and found.rope.axes == rope.axes:
        turning = rope.inv_freq != 0
        assert np.array_equal(found.rope.axis_of_freq[turning], rope.axis_of_freq[turning])
    if rope.base is not None:
        assert found.facts["base"] == pytest.approx(rope.base, rel=1e-4) or "the same as" in " ".join(found.notes)
        assert (found.rope.scaling is None) == (rope.scaling is None) or "the same as" in " ".join(found.notes)


def assert_unequal(found: Any, rope: UnequalRope) -> None:
    assert isinstance(found.rope, UnequalRope)
    assert [fault.fault for fault in found.faults] == ["axes_within_pairs"]
    for part in ("first", "second"):
        theirs, ours = getattr(found.rope, part), getattr(rope, part)
        assert np.array_equal(theirs.axis_of_freq, ours.axis_of_freq)
        assert np.allclose(theirs.inv_freq, ours.inv_freq, rtol=1e-4)


def test_the_sample_covers_much() -> None:
    assert {case.folder for case in zoo.cases()} >= SAMPLE
    assert len(zoo.cases()) > 200


def test_two_functions_that_rotate_are_not_guessed_between() -> None:
    case = next(case for case in zoo.cases() if case.rotary == "DeepseekV32RotaryEmbedding")
    with pytest.raises(TypeError, match=r"several functions that rotate \(apply_rotary_pos_emb, .*interleave\): give"):
        wrap_hf(zoo.built(case)[1])


def test_a_module_is_a_right_rope() -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    own = LlamaConfig(hidden_size=128, num_attention_heads=4)
    rope = posenc.Rope.from_config(own, precision="float32")
    assert check_rope(wrap_hf(LlamaRotaryEmbedding(own)), rope)
    exact = check_rope(wrap_hf(LlamaRotaryEmbedding(own)), posenc.Rope.from_config(own))
    assert [p.name for p in exact.properties if not p.ok] == ["rope_matches", "relative", "inverse"]
    assert exact.diagnosis is not None
    assert [fault.fault for fault in exact.diagnosis.faults] == ["float32_angles"]


def test_dynamic_ntk_remembers_the_longest_call() -> None:
    """transformers resets below the length of training only: between it and the peak the stale base stays (#25306)."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaled = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    own = LlamaConfig(hidden_size=128, num_attention_heads=4, max_position_embeddings=2048, rope_parameters=scaled)
    rope = posenc.Rope.from_config(own, precision="float32")
    report = check_rope(wrap_hf(LlamaRotaryEmbedding(own)), rope)
    assert not report["stateless"].ok
    assert "of a call up to 2056" in report["stateless"].where
    found = identify(wrap_hf(LlamaRotaryEmbedding(own)), 32)
    assert (found.rope.scaling, found.rope.base) == (rope.scaling, 10000)
