"""Scales of queries by position: transformers' own attention modules, Qwen's table, mpmath."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from conftest import assert_refused, assert_same_bits
from posenc.query_scale import Llama4Scale, MistralScale, QwenLogN, query_scale, scale_queries

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers", "ml_dtypes"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import ml_dtypes
import torch
from transformers import Llama4TextConfig
from transformers.models.llama4 import modeling_llama4
from transformers.models.ministral3 import modeling_ministral3
from transformers.models.mistral4 import modeling_mistral4

WALK = [0, 1, 4095, 4096, 8190, 8191, 8192, 8193, 16383, 16384, 65_535, 131_071, 1_000_000, 10_485_759]


def assert_within_an_ulp(found: Any, wanted: Any) -> None:
    """float32 arrays or tensors that differ by at most one unit in the last place."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.dtype == wanted.dtype == np.float32
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted))).all()


# ---- literals ----


def test_llama4_by_hand() -> None:
    """1 + 0.1 * ln(1 + n) where n = floor((p + 1) / 8192): ln 2 and ln 3 to 16 digits."""
    found = query_scale([0, 8190, 8191, 16_382, 16_383], Llama4Scale(), dtype=np.float64)
    ln2, ln3 = 0.6931471805599453, 1.0986122886681098
    assert np.allclose(found, [1, 1, 1 + 0.1 * ln2, 1 + 0.1 * ln2, 1 + 0.1 * ln3], rtol=1e-15, atol=0)


def test_mistral_steps_one_token_later() -> None:
    """No + 1 beside the position."""
    assert query_scale([8190, 8191], MistralScale(8192)).tolist() == [1.0, 1.0]
    assert_same_bits(query_scale([8192, 16_384], MistralScale(8192)), query_scale([8191, 16_383], Llama4Scale()))


def test_qwen_counts_from_one() -> None:
    """Entry p of Qwen-7B's logn_tensor, `[math.log(i, L) if i > L else 1 for i in range(1, 32768)]`."""
    for length in (2048, 8192):
        theirs = torch.tensor([math.log(i, length) if i > length else 1 for i in range(1, 32768)])
        assert_within_an_ulp(query_scale(32767, QwenLogN(length)), theirs)
    assert query_scale([2047, 2048], QwenLogN(2048), dtype=np.float64).tolist()[0] == 1.0
    assert query_scale([2048], QwenLogN(2048))[0] > 1
    assert query_scale([2048], QwenLogN(2048, count_from=0))[0] == 1  # fastllm: log(i) at position i
    assert query_scale([2049], QwenLogN(2048, count_from=0)) == query_scale([2048], QwenLogN(2048))


@pytest.mark.parametrize(
    ("scheme", "formula"),
    [
        (Llama4Scale(0.1, 8192), lambda p: 1 + mpmath.mpf(0.1) * mpmath.log1p(mpmath.floor((p + 1) / 8192))),
        (Llama4Scale(0.25, 1000), lambda p: 1 + mpmath.mpf(0.25) * mpmath.log1p(mpmath.floor((p + 1) / 1000))),
        (MistralScale(16384), lambda p: 1 + mpmath.mpf(0.1) * mpmath.log(1 + mpmath.floor(p / 16384))),
        (QwenLogN(2048), lambda p: max(mpmath.mpf(1), mpmath.log(p + 1) / mpmath.log(2048))),
    ],
    ids=str,
)
def test_against_mpmath(scheme: Any, formula: Callable[[Any], Any]) -> None:
    """float64 within 4 units in the last place, float32 nearest but for ties."""
    wide, narrow = (query_scale(WALK, scheme, dtype=dtype).tolist() for dtype in (np.float64, np.float32))
    with mpmath.workdps(40):
        for p, found, found32 in zip(WALK, wide, narrow, strict=True):
            exact = formula(mpmath.mpf(p))
            assert abs(found - exact) <= 4 * np.spacing(found)
            assert abs(found32 - exact) <= 0.5001 * np.spacing(np.float32(found32))


# ---- transformers ----


@pytest.mark.parametrize("module", [modeling_ministral3, modeling_mistral4])
@pytest.mark.parametrize("length", [8192, 16384, 10_000])
def test_mistral_of_transformers(module: Any, length: int) -> None:
    positions = torch.tensor([WALK, WALK[::-1]])
    theirs = module.get_llama_4_attn_scale(positions, 0.1, length)[:, 0, :, 0]
    assert_within_an_ulp(query_scale(positions, MistralScale(length)), theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_queries_of_mistral(dtype: torch.dtype) -> None:
    """The product of Ministral3Attention.forward; float32 may differ by the last bit of the logarithm."""
    q = torch.randn(2, 3, len(WALK), 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    positions = torch.tensor([WALK, WALK[::-1]])
    theirs = q * modeling_ministral3.get_llama_4_attn_scale(positions, 0.1, 8192).to(q.dtype)
    found = scale_queries(q, positions, MistralScale(8192))
    if dtype is torch.float32:
        assert np.allclose(found, theirs, rtol=2.0**-22, atol=0)
    else:
        assert_same_bits(found, theirs)


def queries_of_llama4(x: torch.Tensor, floor_scale: int, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Return what Llama4TextAttention of a layer without RoPE gives to attention, and its plain projection."""
    config = Llama4TextConfig(
        hidden_size=x.shape[-1],
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_hidden_layers=1,
        no_rope_layers=[0],
        floor_scale=floor_scale,
        attn_scale=0.3,
    )
    torch.manual_seed(2)
    layer = modeling_llama4.Llama4TextAttention(config, 0).to(x.dtype)
    seen = []

    def attention(module: Any, q: torch.Tensor, *rest: Any, **named: Any) -> Any:
        seen.append(q)
        return q.transpose(1, 2), None

    monkeypatch.setattr(
        modeling_llama4.ALL_ATTENTION_FUNCTIONS, "get_interface", lambda *names: attention, raising=False
    )
    with torch.no_grad():
        layer(x, position_embeddings=None, attention_mask=None)
        seen.append(layer.q_proj(x).view(*x.shape[:-1], 2, 16).transpose(1, 2))
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_of_llama4(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its forward pass: the scale stays float32, whatever the queries are."""
    x = torch.randn(2, 100, 32, generator=torch.Generator().manual_seed(3)).to(dtype)
    theirs, q = queries_of_llama4(x, 7, monkeypatch)
    scheme = Llama4Scale(attn_scale=0.3, floor_scale=7)
    found = scale_queries(q, range(100), scheme)
    assert not torch.equal(found, q)
    if dtype is torch.float32:
        assert np.allclose(found, theirs, rtol=2.0**-22, atol=0)
    else:
        assert_same_bits(found, theirs)


# ---- the caller's memory ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("scheme", [Llama4Scale(floor_scale=2), QwenLogN(3)], ids=str)
def test_in_place(dtype: Any, scheme: Any) -> None:
    """x * scale in float32 (float64), rounded once, for every dtype, head_dim and stride; the caller's own array."""
    q = np.random.default_rng(4).standard_normal((3, 7, 2, 5)).astype(dtype).transpose(0, 2, 1, 3)[:, :, ::-1]
    wide = np.float64 if dtype is np.float64 else np.float32
    scale = query_scale(np.arange(7), scheme, dtype=wide)
    if scheme.in_query_dtype:
        scale = scale.astype(dtype).astype(wide)
    wanted = (q.astype(wide) * scale[:, None]).astype(dtype)
    assert_same_bits(np.ascontiguousarray(scale_queries(q, np.arange(7), scheme)), wanted)
    assert scale_queries(q, np.arange(7), scheme, out=q) is q
    assert_same_bits(np.ascontiguousarray(q), wanted)


def test_positions_by_row_and_axis() -> None:
    q = np.random.default_rng(5).standard_normal((2, 4, 3, 6)).astype(np.float32)
    scheme = Llama4Scale(floor_scale=2)
    positions = np.array([[0, 1, 2, 3], [10, 20, 30, 40]])
    found = scale_queries(q, positions, scheme, seq_axis=1)
    assert_same_bits(found, q * query_scale(positions, scheme)[:, :, None, None])
    one_row = scale_queries(q, positions[:1], scheme, seq_axis=-3)
    assert_same_bits(one_row, scale_queries(q, [0, 1, 2, 3], scheme, seq_axis=1))


def test_kinds() -> None:
    found = query_scale(torch.tensor([[1, 2], [3, 4]]), QwenLogN(2))
    assert isinstance(found, torch.Tensor)
    assert (found.shape, found.dtype) == ((2, 2), torch.float32)
    assert query_scale(3, QwenLogN(2)).shape == (3,)
    assert query_scale(np.int64(3), QwenLogN(2), dtype="float64").dtype == np.float64


# ---- refusals ----


def test_wrong_schemes() -> None:
    for error, message, call in (
        (ValueError, "attn_scale must be at least 0, got -1", lambda: Llama4Scale(-1)),
        (ValueError, "floor_scale must be positive and finite, got 0", lambda: Llama4Scale(floor_scale=0)),
        (ValueError, "original_max_position_embeddings must be positive", lambda: MistralScale(-5)),
        (TypeError, "beta must be a number, got '0.1'", lambda: MistralScale(8192, beta="0.1")),
        (ValueError, "seq_length must be above 1, got 1", lambda: QwenLogN(1)),
        (ValueError, "count_from must be at least 0, got -1", lambda: QwenLogN(8, count_from=-1)),
        (TypeError, "scheme must be one of posenc.query_scale", lambda: query_scale(3, "llama4")),
        (ValueError, "positions must be finite and at least 0", lambda: query_scale([-1], QwenLogN(8))),
        (ValueError, "positions must be finite and at least 0", lambda: query_scale([np.nan], QwenLogN(8))),
        (TypeError, "positions must be integers or floats, got bool", lambda: query_scale([True], QwenLogN(8))),
        (ValueError, "positions must be at least 0, got -1", lambda: query_scale(-1, QwenLogN(8))),
        (TypeError, "dtype must be float32 or float64", lambda: query_scale(3, QwenLogN(8), dtype=np.float16)),
    ):
        assert_refused(error, message, call)


def test_wrong_queries() -> None:
    q, scheme = np.ones((2, 3, 4), np.float32), Llama4Scale()
    for error, message, call in (
        (TypeError, "q must be a NumPy array or a torch CPU tensor", lambda: scale_queries([[1.0]], [0], scheme)),
        (ValueError, "positions must have shape (3,) or (batch, 3)", lambda: scale_queries(q, [0, 1], scheme, out=q)),
        (ValueError, "positions must have shape", lambda: scale_queries(q, 3, scheme, out=q)),
        (ValueError, "positions must have shape", lambda: scale_queries(q, np.zeros((3, 3)), scheme, out=q)),
        (ValueError, "on seq_axis -1", lambda: scale_queries(q, [0, 1, 2], scheme, seq_axis=-1, out=q)),
        (ValueError, "on seq_axis 2", lambda: scale_queries(q, [0, 1, 2], scheme, seq_axis=2, out=q)),
        (ValueError, "q must have shape (..., seq, head_dim)", lambda: scale_queries(q[0, 0], [0], scheme, out=q)),
        (TypeError, "scheme must be one of", lambda: scale_queries(q, [0, 1, 2], None, out=q)),
        (TypeError, "int64", lambda: scale_queries(np.ones((2, 3, 4), int), [0, 1, 2], scheme)),
        (ValueError, "out must", lambda: scale_queries(q, [0, 1, 2], scheme, out=q[:1])),
    ):
        assert_refused(error, message, call, q)


def test_helpers_say_no() -> None:
    one = np.ones(3, np.float32)
    with pytest.raises(AssertionError):
        assert_within_an_ulp(one + 3 * np.spacing(one), one)
