"""Cached keys turned on: to other positions and other frequencies, and what repeating it costs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import assert_refused, assert_same_bits
from posenc import _reference
from posenc.rerotate import rerotate, shift
from posenc.scaling import DynamicNTK, InverseFrequencies, LongRope

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama

reproducible = settings(derandomize=True, deadline=None, max_examples=50)

SHIFTED = InverseFrequencies((1.0, 0.3, 0.05, 0.0, -0.2), attention_factor=1.5)  # still, and one clockwise
ROPES = {
    "half": posenc.Rope(16, layout="half"),
    "interleaved, partial": posenc.Rope(24, layout="interleaved", rotary_dim=10, rotary_offset=8),
    "interleaved_to_half": posenc.Rope(12, layout="interleaved_to_half"),
    "attention factor": posenc.Rope(10, layout="half", scaling=SHIFTED),
    "float32": posenc.Rope(16, layout="half", precision="float32"),
}


def normal(seed: int, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_near(found: Any, wanted: Any, tolerance: float) -> None:
    """Off by at most a tolerance of the norm of each key."""
    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    assert found.shape == wanted.shape
    assert furthest(found, wanted) <= tolerance


def furthest(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest distance of a key, in norms of it."""
    return float(np.max(np.linalg.norm(found - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)))


# ---- shift ----


@pytest.mark.parametrize("name", ROPES)
@given(position=st.integers(-5000, 5000), delta=st.integers(-5000, 5000), seed=st.integers(0, 2**32 - 1))
@reproducible
def test_shifted_keys_are_keys_of_the_new_positions(name: str, position: int, delta: int, seed: int) -> None:
    """By the oracle at position + delta: the layout it was written in, the attention factor once."""
    rope, raw = ROPES[name], normal(seed, 2, 3, ROPES[name].head_dim)
    cached = rope(raw, offset=position)
    places = position + delta + np.arange(3.0)
    how = {"rotary_offset": rope.rotary_offset, "scale": rope.attention_factor}
    wanted = _reference.rotate(raw, places, rope.inv_freq, rope.layout, **how)
    tolerance = 2e-3 if rope.precision == "float32" else 2e-12  # 10,000 * 2**-24 and more; the oracle's own angles
    assert_near(shift(rope, cached, delta), wanted, tolerance)


@given(delta=st.floats(-1e4, 1e4), batch=st.integers(1, 3), seq=st.integers(1, 4))
@reproducible
def test_forms_of_delta(delta: float, batch: int, seq: int) -> None:
    """A number, one for each row, one for each token, one for each of both: the same shift four times."""
    rope, k = ROPES["half"], normal(1, batch, 2, seq, 16, dtype=np.float32)
    wanted = rope(k, positions=np.full(seq, delta))
    for form in ((), (1,), (seq,), (batch, 1), (batch, seq), (1, seq)):
        assert_same_bits(shift(rope, k, np.full(form, delta)), wanted)
    assert_same_bits(shift(rope, k, torch.full((batch, 1), delta, dtype=torch.float64)), wanted)
    by_token = rope.shift(k.transpose(0, 2, 1, 3), np.full(seq, delta), seq_axis=1)
    assert_same_bits(by_token.transpose(0, 2, 1, 3), wanted)


def test_every_token_by_its_own_delta() -> None:
    """Tokens evicted from a cache: those kept close up (kvpress, key_rerotation_press.py; StreamingLLM)."""
    rope, raw = ROPES["half"], normal(2, 2, 12, 16)
    kept = np.array([0, 1, 2, 7, 8, 11])
    cached = rope(raw)[:, kept]
    assert_near(shift(rope, cached, np.arange(6) - kept), rope(raw[:, kept]), 1e-14)


def test_several_axes() -> None:
    rope = posenc.Rope(8, layout="half", axis_of_freq=[0, 1, 1, 2])
    raw = normal(3, 2, 4, 5, 8)
    positions = np.random.default_rng(4).integers(0, 50, (3, 2, 5))
    cached = rope(raw, positions=positions)
    moves = np.array([10, -3, 7])
    wanted = rope(raw, positions=positions + moves[:, None, None])
    for delta in (np.broadcast_to(moves[:, None], (3, 5)), moves[:, None], moves[:, None, None]):
        assert_near(shift(rope, cached, delta), wanted, 1e-14)
    assert_near(shift(rope, cached, 6), rope(raw, positions=positions + 6), 1e-14)
    assert_refused(ValueError, "delta must be a number or have shape (3, 5)", lambda: shift(rope, cached, [1, 2, 3]))


def test_callers_memory() -> None:
    rope = ROPES["half"]
    k = normal(5, 2, 3, 16, dtype=np.float32)
    wanted = shift(rope, k, 5)
    assert rope.shift(k, 5, out=k) is k
    assert_same_bits(k, wanted)
    t = torch.from_numpy(normal(6, 2, 3, 16)).to(torch.bfloat16)
    wanted = shift(rope, t.float(), -7).to(torch.bfloat16)
    assert shift(rope, t, -7, out=t) is t
    assert_same_bits(t, wanted)


def test_keys_of_transformers() -> None:
    """Keys that LlamaRotaryEmbedding turned at 900 .. 907, moved to 0 .. 7 as if it had."""
    config = LlamaConfig(hidden_size=128, num_attention_heads=2)
    module = modeling_llama.LlamaRotaryEmbedding(config)
    raw = torch.from_numpy(normal(7, 1, 2, 8, 64, dtype=np.float32))

    def theirs(first: int) -> torch.Tensor:
        cos, sin = module(raw, torch.arange(first, first + 8)[None])
        return modeling_llama.apply_rotary_pos_emb(raw, raw, cos, sin)[1]

    rope = posenc.Rope(64, layout="half", inv_freq=module.inv_freq)
    assert_near(shift(rope, theirs(900), -900), theirs(0), 900 * 2.0**-24)


# ---- other frequencies ----


@pytest.mark.parametrize("layout", ["half", "interleaved", "interleaved_to_half"])
def test_dynamic_ntk(layout: str) -> None:
    """Keys cached while 300 tokens were there, brought to the base of 1000 tokens."""
    rope = posenc.Rope(64, layout=layout, scaling=DynamicNTK(2.0, 256))
    raw = normal(8, 2, 300, 64)
    cached = rope.at(300)(raw)
    wanted = rope.at(1000)(raw)
    assert furthest(cached, wanted) > 0.5
    assert_near(rerotate(cached, rope.at(300), rope.at(1000)), wanted, 1e-12)
    assert_near(rerotate(wanted, rope.at(1000), rope.at(300)), cached, 1e-12)
    piece = rerotate(cached[:, 100:], rope.at(300), rope.at(1000), offset=100)
    assert_same_bits(piece, rerotate(cached, rope.at(300), rope.at(1000))[:, 100:])


def test_longrope() -> None:
    """Across the length of training: other factors, and here another attention factor too."""
    short, long = tuple(np.linspace(1, 2, 16).tolist()), tuple(np.linspace(1, 30, 16).tolist())
    scaling = LongRope(short, long, 128, factor=8.0, short_mscale=1.1, long_mscale=1.3)
    rope = posenc.Rope(32, layout="half", scaling=scaling)
    raw = normal(9, 2, 2, 128, 32)
    before, after = rope.at(128), rope.at(129)
    assert (before.attention_factor, after.attention_factor) == (1.1, 1.3)
    cached = before(raw)
    assert rerotate(cached, before, after, out=cached) is cached
    assert_near(cached, after(raw), 1e-13)
    by_row = rerotate(before(raw), before, after, positions=np.broadcast_to(np.arange(128), (2, 128)))
    assert_same_bits(by_row, cached)


def test_raw_keys_come_back() -> None:
    """To frequencies of zero: un-rotated."""
    rope = ROPES["half"]
    still = posenc.Rope(16, layout="half", inv_freq=np.zeros(8))
    raw = normal(10, 3, 9, 16)
    assert_near(rerotate(rope(raw, offset=77), rope, still, offset=77), raw, 1e-14)


# ---- repeated corrections ----


@pytest.mark.parametrize(
    ("dtype", "at_once", "one_by_one"),
    [(torch.float32, 7e-8, 4e-6), (torch.float16, 4e-4, 2e-2), (torch.bfloat16, 3e-3, 1e-1)],
)
def test_repeated_corrections_drift(dtype: torch.dtype, at_once: float, one_by_one: float) -> None:
    """The figures of rerotate's docstring, within a factor of 2, and that the many steps are 20 times the one."""
    rope = posenc.Rope(128, layout="half", base=5e5)
    raw = torch.from_numpy(normal(11, 2, 64, 128)).to(dtype)
    wanted = rope(raw.double(), offset=872).numpy()
    k = rope(raw, offset=1000)
    once = furthest(shift(rope, k, -128).double().numpy(), wanted)
    for _ in range(128):
        shift(rope, k, -1, out=k)
    many = furthest(k.double().numpy(), wanted)
    assert at_once / 2 < once < at_once * 2
    assert one_by_one / 2 < many < one_by_one * 2
    assert many > 20 * once


def test_a_small_turn_moves_nothing_in_bfloat16() -> None:
    """Why: the slowest pair turns by 2.5e-6 a token, and 1.0 has no neighbour within 2**-9."""
    rope = posenc.Rope(128, layout="half", base=5e5)
    k = torch.zeros(1, 128, dtype=torch.bfloat16)
    k[0, 63] = k[0, 127] = 1.0
    before = k.clone()
    for _ in range(100):
        shift(rope, k, 1, out=k)
    assert torch.equal(k, before)
    assert not torch.equal(shift(rope, k, 10_000), before)


@pytest.mark.parametrize(
    ("dtype", "at_once", "step_by_step"), [(torch.float32, 1e-7, 2e-6), (torch.bfloat16, 3e-3, 0.15)]
)
def test_repeated_changes_of_frequency_drift(dtype: torch.dtype, at_once: float, step_by_step: float) -> None:
    rope = posenc.Rope(128, layout="half", scaling=DynamicNTK(2.0, 256))
    raw = torch.from_numpy(normal(12, 1, 256, 128)).to(dtype)
    wanted = rope.at(384)(raw.double()).numpy()
    cached = rope.at(256)(raw)
    once = furthest(rerotate(cached, rope.at(256), rope.at(384)).double().numpy(), wanted)
    for n in range(256, 384):
        rerotate(cached, rope.at(n), rope.at(n + 1), out=cached)
    many = furthest(cached.double().numpy(), wanted)
    assert at_once / 2 < once < at_once * 2
    assert step_by_step / 2 < many < step_by_step * 2


# ---- refusals ----


def test_wrong_deltas() -> None:
    rope, k = ROPES["half"], normal(13, 2, 3, 16, dtype=np.float32)
    for error, message, delta in (
        (TypeError, "delta must be integers or floats, got bool", True),
        (TypeError, "delta must be integers or floats", "5"),
        (ValueError, "delta must be finite, with |delta| below 2**31", np.nan),
        (ValueError, "delta must be finite, with |delta| below 2**31", 2**31),
        (ValueError, "delta must be a number or have shape (3,) or (batch, 3)", [1, 2]),
        (ValueError, "delta must be a number or have shape (3,) or (batch, 3)", np.zeros((1, 1, 3))),
        (ValueError, "positions must have batch 1 or 2", np.zeros((3, 3))),
    ):
        assert_refused(error, message, lambda delta=delta: shift(rope, k, delta, out=k), k)


def test_ropes_that_do_not_go_together() -> None:
    k, rope = normal(14, 2, 3, 16, dtype=np.float32), ROPES["half"]
    length = posenc.Rope(16, layout="half", scaling=DynamicNTK(2.0, 8))
    for error, message, call in (
        (TypeError, "source must be a posenc.Rope, got None", lambda: rerotate(k, None, rope, out=k)),
        (TypeError, "target must be a posenc.Rope, got 5", lambda: rerotate(k, rope, 5, out=k)),
        (ValueError, "target has frequencies that depend on the", lambda: rerotate(k, rope, length, out=k)),
        (ValueError, "take rope.at(n)", lambda: shift(length, k, 1, out=k)),
        (
            ValueError,
            "source and target must agree in head_dim, got 16 and 32",
            lambda: rerotate(k, rope, posenc.Rope(32, layout="half"), out=k),
        ),
        (
            ValueError,
            "must agree in rotary_dim, got 16 and 8",
            lambda: rerotate(k, rope, posenc.Rope(16, layout="half", rotary_dim=8), out=k),
        ),
        (
            ValueError,
            "must agree in the layout they write, got 'half' and 'interleaved'",
            lambda: rerotate(k, rope, posenc.Rope(16, layout="interleaved"), out=k),
        ),
        (
            ValueError,
            "must agree in axis_of_freq",
            lambda: rerotate(k, rope, posenc.Rope(16, layout="half", axis_of_freq=[0, 1] * 4), out=k),
        ),
        (ValueError, "rope rotates all of an odd head_dim (5)", lambda: shift(posenc.Rope(5, layout="half"), k, 1)),
        (TypeError, "must be a NumPy array or a torch CPU tensor", lambda: shift(rope, [[1.0]], 1)),
        (ValueError, "seq_axis", lambda: shift(rope, k, 1, seq_axis=7, out=k)),
    ):
        assert_refused(error, message, call, k)


def test_helpers_say_no() -> None:
    with pytest.raises(AssertionError):
        assert_near(np.array([[1.0, 1e-3]]), np.array([[1.0, 0.0]]), 5e-4)
