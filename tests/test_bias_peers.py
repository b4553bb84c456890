"""ALiBi of BLOOM, MPT and Falcon as transformers builds it, and attention as it is meant, with biases and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import posenc
from conftest import assert_same_bits
from posenc import bias

MASKS = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize("heads", [1, 4, 16, 32, 12, 112, 71])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bloom(heads: int, dtype: torch.dtype) -> None:
    """Equal within transformers' own rounding: its float32 powers are up to 7 ulp off."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(MASKS, heads, dtype)
    found = bias.bloom_alibi(MASKS, heads, dtype=dtype)
    assert found.shape == tuple(theirs.shape)
    ulps = 8 * 2.0**-23 if dtype == torch.float32 else 2.0**-7
    np.testing.assert_allclose(found.astype(np.float32), theirs.float().numpy(), rtol=ulps, atol=0)


def test_bloom_in_one_pass(rng: np.random.Generator) -> None:
    """Padded rows: the tensor's rows, broadcast over queries and added, and `add_alibi` with its positions."""
    x = rng.standard_normal((3, 4, 6, 6)).astype(np.float32)
    rows = bias.bloom_alibi(MASKS, 4).reshape(3, 4, 1, 6)
    slopes, positions = bias.alibi_slopes(4), bias.bloom_positions(MASKS)
    queries = np.arange(6)
    found = bias.add_alibi(x, slopes, form="key", query_positions=queries, key_positions=positions)
    assert_same_bits(found, x + rows)


@pytest.mark.parametrize("heads", [1, 8, 71, 12])
def test_falcon(heads: int) -> None:
    """bfloat16 slopes, positions and products, bit for bit."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    long = torch.ones(2, 2048, dtype=torch.int64)
    long[1, :300] = 0
    for dtype in (torch.float32, torch.bfloat16):
        theirs = build_alibi_tensor(long, heads, dtype)
        np.testing.assert_array_equal(
            bias.falcon_alibi(long, heads, dtype=dtype).astype(np.float32), theirs.float().numpy()
        )
    scaled = bias.falcon_alibi(long, heads, head_dim=64)
    np.testing.assert_array_equal(scaled, bias.falcon_alibi(long, heads) / 8)


def test_falcon_neighbours_tie() -> None:
    """At 2048 keys and 71 heads, most neighbours of the steepest head have the same bias."""
    row = bias.falcon_alibi(np.ones((1, 2048), int), 71)[0, 0]
    assert (np.diff(row) == 0).sum() > 1400


@pytest.mark.parametrize("heads", [1, 8, 12, 112, 71])
@pytest.mark.parametrize("max_bias", [8, 16, 1])
def test_mpt(heads: int, max_bias: int) -> None:
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    theirs = build_mpt_alibi_tensor(heads, 50, max_bias).numpy()
    found = bias.mpt_alibi(heads, 50, max_bias=max_bias)
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found, theirs, rtol=2 * 2.0**-23, atol=0)
    added = bias.add_alibi(
        np.zeros((heads, 50, 50), np.float32),
        bias.alibi_slopes(heads, max_bias),
        form="key",
        key_positions=np.arange(-49, 1),
    )
    np.testing.assert_array_equal(added, np.broadcast_to(found, added.shape))


# ---- whole attention ----


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, how: Any) -> np.ndarray:
    """softmax(how(q k^T / sqrt(d))) v, in float64."""
    scores = how(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def plain_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, rotate: bool, line: Any, seen: Any) -> np.ndarray:
    """The same token by token and head by head, with a complex rotation and Python's numbers."""
    heads, n, d = q.shape
    angles = np.exp(1j * np.arange(n)[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d))
    if rotate:
        q, k = ((x[..., 0::2] + 1j * x[..., 1::2]) * angles for x in (q, k))
    y = np.zeros(v.shape)
    for h in range(heads):
        for i in range(n):
            keys = [j for j in range(n) if seen(i, j)]
            scores = [float((q[h, i].conj() * k[h, j]).sum().real) / d**0.5 + line(h, i, j) for j in keys]
            weights = np.exp(np.array(scores) - max(scores))
            y[h, i] = weights @ v[h, keys] / weights.sum()
    return y


@pytest.fixture
def qkv(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal((4, 24, 8)) for _ in "qkv"]


def test_rope_and_alibi(qkv: list[np.ndarray]) -> None:
    """The rotation, the scores, one call."""
    q, k, v = qkv
    rope, slopes = posenc.Rope(8, layout="interleaved"), posenc.alibi_slopes(4)
    turned = rope(q, k)
    found = attention(*turned, v, lambda s: posenc.add_alibi(s, slopes, causal=True, out=s))
    wanted = plain_attention(q, k, v, True, lambda h, i, j: -slopes[h] * (i - j), lambda i, j: j <= i)
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


def test_rope_and_a_sliding_window(qkv: list[np.ndarray]) -> None:
    """The rotation, the scores, one call: the last five keys, and the first two as sinks."""
    q, k, v = qkv
    turned = posenc.Rope(8, layout="interleaved")(q, k)
    found = attention(*turned, v, lambda s: posenc.mask_scores(s, causal=True, window=5, sinks=2, out=s))
    wanted = plain_attention(q, k, v, True, lambda h, i, j: 0.0, lambda i, j: j <= i and (i - j < 5 or j < 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


def test_both_forms_have_one_softmax(qkv: list[np.ndarray]) -> None:
    q, k, v = qkv
    slopes = posenc.alibi_slopes(4)
    by_distance = attention(q, k, v, lambda s: posenc.add_alibi(s, slopes, causal=True))
    by_key = attention(q, k, v, lambda s: posenc.add_alibi(s, slopes, form="key", causal=True))
    np.testing.assert_allclose(by_key, by_distance, rtol=1e-11, atol=1e-12)


def test_windows_of_transformers() -> None:
    """`sliding_window` of transformers' masks is `window`."""
    from transformers.masking_utils import sliding_window_causal_mask_function

    sees = sliding_window_causal_mask_function(3)
    found = posenc.mask_scores(np.zeros((8, 8), np.float32), causal=True, window=3) == 0
    wanted = [[bool(sees(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(8)] for i in range(8)]
    np.testing.assert_array_equal(found, wanted)
