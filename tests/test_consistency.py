"""Prefill, chunks and steps: fixed rotations agree, length-dependent ones do not, and the advice helps."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import posenc
from conftest import assert_refused
from posenc.consistency import DecodeConsistency, decode_consistency
from posenc.rerotate import rerotate
from posenc.scaling import DynamicLinear, DynamicNTK, Linear, LongRope, Yarn
from posenc.stateful import TransformersDynamicNTK
from posenc.xpos import XPos

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama

PROMPT, STEPS, TRAINED = 40, 24, 48
TOTAL = PROMPT + STEPS
LONG = LongRope((1.0,) * 16, (4.0,) * 16, TRAINED, factor=4.0)
FIXED = {
    "plain": posenc.Rope(32, layout="half"),
    "linear": posenc.Rope(32, layout="interleaved", scaling=Linear(4.0)),
    "yarn": posenc.Rope(32, layout="half", scaling=Yarn(4.0, TRAINED)),
    "xpos": XPos(posenc.Rope(32, layout="interleaved"), centre=20),
    "dynamic, fixed": posenc.Rope(32, layout="half", scaling=DynamicNTK(4.0, TRAINED)).at(TOTAL),
}
VARYING = {
    "dynamic": posenc.Rope(32, layout="half", scaling=DynamicNTK(4.0, TRAINED)),
    "dynamic linear": posenc.Rope(32, layout="half", scaling=DynamicLinear(TRAINED)),
    "longrope": posenc.Rope(32, layout="half", scaling=LONG),
}


def report(scheme: Any, **changes: Any) -> DecodeConsistency:
    return decode_consistency(scheme, **{"prompt": PROMPT, "steps": STEPS, "chunk": 16, **changes})


def qk(heads: int = 4, kv_heads: int = 2, head_dim: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((heads, TOTAL, head_dim)), rng.standard_normal((kv_heads, TOTAL, head_dim))


# ---- rotations of fixed frequencies ----


@pytest.mark.parametrize("cached", ["rotated", "raw"])
@pytest.mark.parametrize("name", FIXED)
def test_fixed_rotations_agree(name: str, cached: str) -> None:
    """Up to the order in which float64 products are summed: the rotated numbers have the same bits."""
    found = report(FIXED[name], cached=cached)
    assert found.consistent
    assert found.advice == ()
    assert max(drift.relative for drift in found.drifts) < 1e-15 * (10 if name == "xpos" else 1)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, torch.bfloat16])
def test_every_dtype(dtype: Any) -> None:
    q, k = qk()
    q, k = (torch.from_numpy(x).to(dtype) if isinstance(dtype, torch.dtype) else x.astype(dtype) for x in (q, k))
    found = report(FIXED["plain"], q=q, k=k)
    assert found.consistent
    spacing = {np.float64: 2.0**-44, np.float32: 2.0**-23, np.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
    assert found.tolerance == spacing[dtype]
    assert not report(VARYING["dynamic"], q=q, k=k).consistent


# ---- rotations of the length ----


@pytest.mark.parametrize("name", VARYING)
def test_length_dependent_rotations_drift(name: str) -> None:
    found = report(VARYING[name])
    assert not found.consistent
    assert min(drift.relative for drift in found.drifts) > 0.03
    assert 0 <= found["cache"].key <= found["cache"].query < TOTAL
    assert f"fix the length for all calls: rope.at({TOTAL})" in found.advice
    assert found.advice[0].startswith("the frequencies of 49 tokens differ from those of 48")


def test_nothing_drifts_below_the_length_of_training() -> None:
    assert report(VARYING["dynamic"], prompt=20, steps=TRAINED - 20).consistent
    assert not report(VARYING["dynamic"], prompt=20, steps=TRAINED - 19).consistent


def test_raw_keys_leave_what_the_length_does() -> None:
    """Cached raw, every step is what recomputing gives: no drift of the cache; that of the length stays."""
    found = report(VARYING["dynamic"], cached="raw")
    assert found["cache"].relative == 0
    assert found["stepwise"] == type(found["stepwise"])("stepwise", *list(vars(found["recomputed"]).values())[1:])
    assert found["recomputed"] == report(VARYING["dynamic"])["recomputed"]
    assert not found.consistent


def test_where_it_is_and_how_large() -> None:
    """The largest drift of a cache across LongRoPE's switch, found here from the rotations themselves."""
    q, k = qk(4, 2)
    rope = VARYING["longrope"]
    before, after = rope.at(TRAINED), rope.at(TOTAL)
    cached = before(k)
    cached[:, TRAINED:] = after(k)[:, TRAINED:]  # the tokens behind the switch came one by one
    differences = []
    for head in range(4):  # two queries share a key head
        right = after(q[head]) @ after(k[head // 2]).T
        left = after(q[head]) @ cached[head // 2].T
        left[:TRAINED] = before(q[head])[:TRAINED] @ before(k[head // 2]).T
        norms = np.linalg.norm(q[head], axis=-1)[:, None] * np.linalg.norm(k[head // 2], axis=-1)
        differences.append(np.stack([np.abs(np.tril(left - right)) / norms, np.abs(left - right)]))
    relative, absolute = np.stack(differences, axis=1)
    where = np.unravel_index(int(relative.argmax()), relative.shape)
    found = report(rope, q=q, k=k)["stepwise"]
    assert (found.query, found.key) == where[1:]
    assert np.isclose(found.relative, relative[where], rtol=1e-12)
    assert np.isclose(found.absolute, absolute[where], rtol=1e-12)


@pytest.mark.parametrize("name", VARYING)
def test_the_advice_to_re_rotate_helps(name: str) -> None:
    """A cache that is re-rotated wherever the frequencies change holds what recomputing gives."""
    rope, k = VARYING[name], qk()[1]
    cached = rope.at(PROMPT)(k[:, :PROMPT])
    for n in range(PROMPT, TOTAL):
        if rope.at(n) != rope.at(n + 1):
            cached = rerotate(cached, rope.at(n), rope.at(n + 1), out=cached)
        cached = np.concatenate([cached, rope.at(n + 1)(k[:, n : n + 1], offset=n)], axis=1)
    assert np.allclose(cached, rope.at(TOTAL)(k), rtol=0, atol=1e-13)


# ---- schemes of one's own ----


def centred_on_the_length(q: Any, k: Any, *, positions: Any) -> Any:
    """Turn as xPos does in flash-attention and rotary-embedding-torch: about half the length so far."""
    centre = (int(positions[-1]) + 1) // 2
    return XPos(posenc.Rope(32, layout="interleaved"), centre=centre)(q, k, positions=positions)


def test_a_moving_centre_drifts() -> None:
    """With cached keys; with raw ones the centre cancels again."""
    found = report(centred_on_the_length, head_dim=32)
    assert not found.consistent
    assert found["recomputed"].relative < 2.0**-20
    assert found["cache"].relative > 1e-3
    assert found.advice == (
        "the same position is turned differently by calls of different lengths, or after different calls",
        "cache raw keys, and rotate all of them in every call",
    )
    assert report(centred_on_the_length, head_dim=32, cached="raw", tolerance=1e-6).consistent
    assert "centred_on_the_length" in str(found)


def transformers_module(rope_type: str, **more: Any) -> Any:
    parameters = {"rope_type": rope_type, "rope_theta": 1e4, **more}
    config = LlamaConfig(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=TRAINED, rope_parameters=parameters
    )
    return modeling_llama.LlamaRotaryEmbedding(config)


class OfTransformers:
    """A rotary module of transformers as a scheme."""

    head_dim = 32

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, q: Any, k: Any, *, positions: Any) -> Any:
        q, k = (torch.as_tensor(np.ascontiguousarray(x))[None] for x in (q, k))
        cos, sin = self.module(q, torch.from_numpy(positions)[None])
        return tuple(x[0] for x in modeling_llama.apply_rotary_pos_emb(q, k, cos, sin))


def test_modules_of_transformers() -> None:
    """A fixed one agrees; dynamic NTK drifts by what this package's does."""
    assert report(OfTransformers(transformers_module("default"))).consistent
    theirs = report(OfTransformers(transformers_module("dynamic", factor=4.0)))
    ours = report(VARYING["dynamic"])
    assert not theirs.consistent
    for path in ("chunked", "stepwise"):
        assert np.isclose(theirs[path].relative, ours[path].relative, rtol=1e-3)
        assert (theirs[path].query, theirs[path].key) == (ours[path].query, ours[path].key)


# ---- the memory of transformers ----


def test_dynamic_ntk_with_memory() -> None:
    """The frequencies and the length kept after each of a walk of calls, and what they turn.

    Short, long, shorter than before, the length of training, shorter, long again.
    """
    module = transformers_module("dynamic", factor=4.0)
    ours = TransformersDynamicNTK(32, layout="half", factor=4.0, original_max_position_embeddings=TRAINED)
    rng = np.random.default_rng(2)
    lengths, stale = [], 0
    for n in (10, 48, 49, 200, 100, 48, 47, 10, 60, 48, 61, 300, 299, 48, 20, 48):
        x = torch.from_numpy(rng.standard_normal((1, 2, n, 32)).astype(np.float32))
        positions = np.arange(n)
        cos, sin = module(x, torch.from_numpy(positions)[None])
        wanted = modeling_llama.apply_rotary_pos_emb(x, x, cos, sin)[1]
        found = ours(x, x, positions=positions)[1]
        assert np.allclose(ours.rope.inv_freq, module.inv_freq.numpy(), rtol=2.0**-22, atol=0)  # torch's pow
        assert int(module.max_seq_len_cached) == ours.cached_length
        assert (found - wanted).abs().max() < 2e-5  # 300 times the last bit of a frequency
        lengths.append(ours.cached_length)
        stale += ours.rope != ours._by_length.at(n)
    assert lengths == [48, 48, 49, 200, 200, 200, 48, 48, 60, 60, 61, 300, 300, 300, 48, 48]
    assert stale == 5  # 100, 48, 48, 299 and 48 after longer ones


def test_memory_shows_in_the_report() -> None:
    """And a path starts without the memory of the others."""
    stateful = TransformersDynamicNTK(32, layout="half", factor=4.0, original_max_position_embeddings=TRAINED)
    first, second = report(stateful), report(stateful)
    assert first == second
    assert not first.consistent
    assert stateful.cached_length == TRAINED
    assert first["stepwise"].relative == pytest.approx(report(VARYING["dynamic"])["stepwise"].relative, rel=1e-3)


def test_a_refused_call_leaves_no_memory() -> None:
    stateful = TransformersDynamicNTK(8, layout="half", factor=2.0, original_max_position_embeddings=4)
    x = np.ones((1, 3, 8), np.float32)
    for wrong in (np.arange(9), [7, 8, np.nan], "abc", [[1, 2], [3]]):
        with pytest.raises((TypeError, ValueError), match=r"^positions must"):
            stateful(x, x, positions=wrong)
        assert stateful.cached_length == 4


# ---- the report ----


def test_report() -> None:
    text = str(report(VARYING["longrope"]))
    lines = text.splitlines()
    assert lines[0].startswith("decode consistency of Rope(32, layout='half', base=10000.0, scaling=LongRope(")
    assert len(lines[0]) < 150
    assert lines[1] == "  40 tokens of prompt, 24 steps, chunks of 16, cached rotated keys"
    assert [line.split()[0] for line in lines[2:6]] == ["chunked", "stepwise", "recomputed", "cache"]
    assert lines[6] == "  NOT CONSISTENT (more than 1.2e-07 of |q||k| is not rounding)"
    assert lines[7] == "  - the frequencies of 49 tokens differ from those of 48"
    assert lines[-1].endswith("key 47 by up to 35 radians: rerotate(k, rope.at(48), rope.at(49), out=k)")
    assert "  consistent (more than" in str(report(FIXED["plain"]))


def test_wrong_arguments() -> None:
    rope, (q, k) = FIXED["plain"], qk()
    for error, message, call in (
        (TypeError, "scheme must be a Rope, an XPos or a callable", lambda: report("rope")),
        (ValueError, "prompt must be at least 1, got 0", lambda: report(rope, prompt=0)),
        (TypeError, "steps must be an integer, got 2.0", lambda: report(rope, steps=2.0)),
        (ValueError, "chunk must be at least 1, got 0", lambda: report(rope, chunk=0)),
        (ValueError, "cached must be one of 'rotated', 'raw', got 'none'", lambda: report(rope, cached="none")),
        (ValueError, "tolerance must be at least 0, got -1", lambda: report(rope, tolerance=-1)),
        (ValueError, "q and k must be given together", lambda: report(rope, q=q)),
        (ValueError, "k must have shape (heads, prompt + steps = 64, head_dim)", lambda: report(rope, q=q, k=k[:, 1:])),
        (ValueError, "q must have a multiple of k's heads", lambda: report(rope, q=q[:3], k=k)),
        (
            TypeError,
            "q must be float64, float32, float16 or bfloat16, got int64",
            lambda: report(rope, q=q.astype(int), k=k),
        ),
        (ValueError, "head_dim must be given for random q and k", lambda: report(centred_on_the_length)),
        (ValueError, "path must be one of 'chunked'", lambda: report(rope)["prefill"]),
    ):
        assert_refused(error, message, call)
