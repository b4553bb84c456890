"""T5's buckets and biases: transformers' numbers, exact boundaries, and what is looked up is what is built."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import posenc
from conftest import assert_same_bits
from posenc import _reference, bias
from test_alibi import DTYPES, POSITIONS, seen_by

SETTINGS = [(32, 128), (32, 20), (64, 256), (16, 64), (8, 1000), (6, 5), (320, 800), (12, 4096)]
INTEGERS = {name: where for name, where in POSITIONS.items() if name != "fractions"}


# ---- buckets ----


@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_of_transformers(bidirectional: bool) -> None:
    """Every distance near and far, for the published settings and others."""
    from transformers.models.mt5.modeling_mt5 import MT5Attention
    from transformers.models.t5.modeling_t5 import T5Attention

    u = np.arange(-3000, 3001)
    for buckets, most in SETTINGS:
        found = bias.t5_bucket(u, bidirectional, buckets, most)
        for attention in (T5Attention, MT5Attention):
            theirs = attention._relative_position_bucket(torch.from_numpy(u), bidirectional, buckets, most)
            np.testing.assert_array_equal(found, theirs.numpy(), err_msg=f"{buckets} buckets, {most}")


def test_literal_buckets() -> None:
    """As mesh_tensorflow's `_relative_position_bucket` says: half exact, the others up to 128 in logarithmic bins."""
    decoder = bias.t5_bucket(-np.arange(130), False)
    assert decoder[:16].tolist() == list(range(16))
    assert [int(np.flatnonzero(decoder == b)[0]) for b in range(16, 32)] == [
        *(16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113),
    ]
    encoder = bias.t5_bucket(np.arange(130), True)
    assert encoder[:9].tolist() == [0, 17, 18, 19, 20, 21, 22, 23, 24]
    assert [int(np.flatnonzero(encoder == b)[0]) for b in range(24, 32)] == [8, 12, 16, 23, 32, 46, 64, 91]


@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (17, 9), (64, 100_000), (1000, 1 << 24), (2, 2), (3, 7)])
def test_boundaries_are_exact(buckets: int, most: int) -> None:
    """The first distance of a bucket has (d/e)**m >= (D/e)**t in rational numbers, and the one before has not."""
    exact = buckets // 2
    width = buckets - exact
    firsts = bias.t5._bounds(False, buckets, most)
    assert len(firsts) == buckets - 1
    assert list(firsts[:exact]) == list(range(1, exact + 1))
    for t in range(1, width, max(1, width // 40)):
        d = firsts[exact + t - 1]
        assert Fraction(d, exact) ** width >= Fraction(most, exact) ** t
        assert d == firsts[exact + t - 2] or Fraction(d - 1, exact) ** width < Fraction(most, exact) ** t
    u = np.unique([0, *firsts, *(d - 1 for d in firsts), most, 2 * most])
    np.testing.assert_array_equal(
        bias.t5_bucket(-u, False, buckets, most), np.searchsorted(np.array(firsts), u, side="right")
    )


def test_shapes_of_buckets() -> None:
    assert bias.t5_bucket(5).shape == ()
    assert bias.t5_bucket([]).shape == (0,)
    assert bias.t5_bucket(np.zeros((2, 0, 3), np.int8)).shape == (2, 0, 3)
    assert bias.t5_bucket(torch.tensor([[-1, 1]])).tolist() == [[1, 17]]


def test_what_is_kept_changes_no_check() -> None:
    """1 equals True, and 32.0 equals 32: found among what earlier calls left, they are refused all the same."""
    scores, table = np.zeros((2, 4, 4), np.float32), np.zeros((32, 2), np.float32)
    posenc.add_t5_bias(scores, table, bidirectional=True)
    with pytest.raises(TypeError, match="bidirectional must be True or False, got 1"):
        posenc.add_t5_bias(scores, table, bidirectional=1)
    with pytest.raises(TypeError, match="bidirectional must be True or False, got ndarray of shape"):
        posenc.add_t5_bias(scores, table, bidirectional=np.ones(2, bool))
    with pytest.raises(TypeError, match=r"num_buckets must be an integer, got 32\.0"):
        posenc.add_t5_bias(scores, table, bidirectional=True, num_buckets=32.0)
    with pytest.raises(TypeError, match=r"max_distance with 8 exact distances must be an integer, got 128\.0"):
        posenc.add_t5_bias(scores, table, bidirectional=True, max_distance=128.0)


# ---- biases ----


def looked_up(table: np.ndarray, query: np.ndarray, key: np.ndarray, bidirectional: bool, most: int) -> np.ndarray:
    """Return the bias by the reference's buckets; the table is (buckets, heads)."""
    u = _reference.distances(query, key)
    values = table.astype(np.float64)[_reference.t5_bucket(u, bidirectional, len(table), most)]
    return np.moveaxis(values[:, 0] if u.ndim == 4 else values, -1, 1 if u.ndim == 4 else 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("table_dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("where", INTEGERS)
@pytest.mark.parametrize("options", [{}, {"causal": True, "window": 4, "sinks": 1}], ids=["plain", "masked"])
def test_the_lookup(
    options: dict[str, Any], where: str, table_dtype: Any, dtype: Any, rng: np.random.Generator
) -> None:
    """One sum, rounded once: for all dtypes of scores and tables, both directions, both orders."""
    x = rng.standard_normal((2, 3, 5, 7)).astype(dtype)
    table = rng.standard_normal((8, 3)).astype(table_dtype)
    for bidirectional in (True, False):
        how = {"bidirectional": bidirectional, "max_distance": 9, **options, **INTEGERS[where]}
        query, key, seen = seen_by(INTEGERS[where], options, 5, 7)
        values = looked_up(
            table.astype(np.float32 if dtype is not np.float64 else np.float64), query, key, bidirectional, 9
        )
        wide = np.float64 if dtype is np.float64 else np.float32
        wanted = np.where(seen, x.astype(wide) + values.astype(wide), -np.inf).astype(dtype)
        assert_same_bits(bias.add_t5_bias(x, table, **how), wanted)
        assert_same_bits(bias.add_t5_bias(x, table.T, order="heads_buckets", **how), wanted)
        built = bias.t5_bias(table, 5, 7, dtype=dtype, **how)
        zeros = bias.add_t5_bias(np.zeros_like(x), table, **how)
        np.testing.assert_array_equal(np.broadcast_to(built, x.shape), zeros)


@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 300), (7, 40), (8, 40), (40, 5000), (5000, 3), (0, 4), (4, 0), (260, 2100)]
)
def test_sizes(queries: int, keys: int, rng: np.random.Generator) -> None:
    """Few queries and many, rows longer than a tile: the same as by listed positions, and as the table says."""
    x = rng.standard_normal((2, queries, keys)).astype(np.float32)
    table = rng.standard_normal((32, 2)).astype(np.float32)
    found = bias.add_t5_bias(x, table, bidirectional=True, causal=True, window=1000)
    listed = {"query_positions": np.arange(keys - queries, keys), "key_positions": np.arange(keys)}
    assert_same_bits(found, bias.add_t5_bias(x, table, bidirectional=True, causal=True, window=1000, **listed))
    values = looked_up(table, listed["query_positions"], listed["key_positions"], True, 128).astype(np.float32)
    seen = seen_by(listed, {"causal": True, "window": 1000}, queries, keys)[2]
    assert_same_bits(found, np.where(seen, x + values, np.float32(-np.inf)))


def test_a_strided_and_a_torch_table(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 9, 9)).astype(np.float32)
    wide = rng.standard_normal((64, 9)).astype(np.float32)
    table = wide[::-2, ::3]
    wanted = bias.add_t5_bias(x, table.copy(), bidirectional=False)
    assert_same_bits(bias.add_t5_bias(x, table, bidirectional=False), wanted)
    assert_same_bits(
        bias.add_t5_bias(x[..., :2, :], table, bidirectional=False),
        bias.add_t5_bias(x[..., :2, :], table.copy(), bidirectional=False),
    )
    scores = torch.from_numpy(x.copy())
    result = bias.add_t5_bias(scores, torch.from_numpy(table.copy()), bidirectional=False, out=scores)
    assert result is scores
    assert_same_bits(scores.numpy(), wanted)
    halves = bias.add_t5_bias(scores.bfloat16(), torch.from_numpy(table.copy()).bfloat16(), bidirectional=True)
    assert halves.dtype == torch.bfloat16


# ---- transformers ----


@pytest.mark.parametrize("is_decoder", [False, True])
@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5"])
def test_bias_of_transformers(kind: str, is_decoder: bool) -> None:
    """`compute_bias` of a fresh layer: whole, and a step of decoding with a cache."""
    import transformers

    config = {"t5": transformers.T5Config, "mt5": transformers.MT5Config, "umt5": transformers.UMT5Config}[kind](
        num_heads=6, d_model=24, d_kv=4, d_ff=8, is_decoder=is_decoder, relative_attention_num_buckets=16
    )
    module = getattr(transformers.models, kind)
    name = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}[kind]
    attention = getattr(getattr(module, f"modeling_{kind}"), f"{name}Attention")
    layer = attention(config, has_relative_attention_bias=True)
    table = layer.relative_attention_bias.weight.detach()
    torch.nn.init.normal_(table)
    with torch.no_grad():
        whole = layer.compute_bias(300, 300)[0].numpy()
    how = {"bidirectional": not is_decoder}
    assert_same_bits(bias.t5_bias(table, 300, 300, **how), whole)
    assert_same_bits(bias.t5_bias(table, 3, 300, **how), np.ascontiguousarray(whole[:, -3:]))
    with torch.no_grad():
        step = layer.compute_bias(3, 300, past_seen_tokens=100)[0].numpy()
    assert_same_bits(bias.t5_bias(table, 3, 300, query_positions=[100, 101, 102], **how), step)
