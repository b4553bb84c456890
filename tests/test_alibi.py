"""ALiBi: the authors' slopes, the formula, and what is added is what is built."""

from __future__ import annotations

import itertools
import math
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

import posenc
from conftest import assert_same_bits
from posenc import _reference, bias

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


# ---- slopes ----


def authors_slopes(n: int) -> list[float]:
    """`get_slopes` of https://github.com/ofirpress/attention_with_linear_biases, fairseq/models/transformer.py."""

    def get_slopes_power_of_2(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        ratio = start
        return [start * ratio**i for i in range(n)]

    if math.log2(n).is_integer():
        return get_slopes_power_of_2(n)
    closest_power_of_2 = 2 ** math.floor(math.log2(n))
    return (
        get_slopes_power_of_2(closest_power_of_2)
        + authors_slopes(2 * closest_power_of_2)[0::2][: n - closest_power_of_2]
    )


@pytest.mark.parametrize("n", range(1, 41))
def test_slopes_of_the_authors(n: int) -> None:
    np.testing.assert_allclose(bias.alibi_slopes(n), authors_slopes(n), rtol=1e-13)


def test_slopes_of_the_paper() -> None:
    """Section 3: eight heads, 1/2, 1/2^2, .., 1/2^8; sixteen heads begin with 1/2^0.5."""
    assert bias.alibi_slopes(8).tolist() == [2.0**-h for h in range(1, 9)]
    assert bias.alibi_slopes(16)[:2].tolist() == [math.sqrt(0.5), 0.5]
    assert bias.alibi_slopes(12)[8:].tolist() == bias.alibi_slopes(16)[:8:2].tolist()


@pytest.mark.parametrize("max_bias", [8.0, 1.0, 16.0, 7.3, 0.1])
def test_slopes_are_the_nearest_floats(max_bias: float) -> None:
    """Every head of every number of heads up to 1024: the distinct exponents among them, against mpmath."""
    found: dict[tuple[int, int], float] = {}
    for n in {*range(1, 65), *(2**k for k in range(11)), *(3 * 2**k for k in range(9)), 1000, 1023}:
        whole = 1 << (n.bit_length() - 1)
        keys = [(h, whole) for h in range(1, whole + 1)] + [(2 * k - 1, 2 * whole) for k in range(1, n - whole + 1)]
        found |= dict(zip(keys, bias.alibi_slopes(n, max_bias).tolist(), strict=True))
    assert len(found) == 2047  # 1 + 2 + 4 + .. + 1024: all there are
    with mpmath.workprec(200):
        for (numerator, denominator), slope in found.items():
            assert slope == float(mpmath.mpf(2) ** (-mpmath.mpf(max_bias) * numerator / denominator))


# ---- the formula ----

CASES = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window": 3},
    "causal window with sinks": {"causal": True, "window": 2, "sinks": 2},
    "bounds": {"window": (4, 1)},
    "one bound": {"window": (None, 0), "sinks": 3},
    "right slopes": {"right_slopes": [3.0, 0.5, 7.25]},
    "keys": {"form": "key"},
    "keys, causal": {"form": "key", "causal": True, "sinks": 1, "window": 4},
}
POSITIONS: dict[str, Any] = {
    "default": {},
    "listed": {"query_positions": [7, 2, 2, 0, 9], "key_positions": [5, 0, 7, 8, 2, 1, 9]},
    "per batch": {"query_positions": np.arange(10).reshape(2, 5), "key_positions": np.arange(14)[::-1].reshape(2, 7)},
    "fractions": {"query_positions": np.arange(5) / 3, "key_positions": np.arange(7) / 2 - 1},
}


def seen_by(where: dict[str, Any], options: dict[str, Any], queries: int, keys: int) -> tuple[Any, Any, np.ndarray]:
    """Return query positions, key positions and which keys are seen, as the documentation says."""
    query = np.asarray(where.get("query_positions", np.arange(keys - queries, keys)))
    key = np.asarray(where.get("key_positions", np.arange(keys)))
    window = options.get("window")
    bounds = (window - 1, window - 1) if isinstance(window, int) else window or (None, None)
    left, right = (math.inf if bound is None else bound for bound in bounds)
    return (
        query,
        key,
        _reference.keys_seen(query, key, options.get("causal", False), left, right, options.get("sinks", 0)),
    )


def expected(x: np.ndarray, slopes: Any, where: dict[str, Any], options: dict[str, Any]) -> np.ndarray:
    query, key, seen = seen_by(where, options, *x.shape[-2:])
    line = _reference.alibi(slopes, query, key, options.get("form", "distance"), options.get("right_slopes"))
    return _reference.masked(x, line, seen)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_formula(case: str, where: str, dtype: Any, rng: np.random.Generator) -> None:
    """Slopes and distances here are exact in float32, so only the last rounding is left."""
    x = rng.standard_normal((2, 3, 5, 7)).astype(dtype)
    slopes = [0.5, 0.25, 2.0]
    found = bias.add_alibi(x, slopes, **CASES[case], **POSITIONS[where])
    wanted = expected(x, slopes, POSITIONS[where], CASES[case])
    if where == "fractions":
        eps = float(ml_dtypes.finfo(dtype).eps)
        np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=3 * eps, atol=20 * eps)
    else:
        assert_same_bits(found, wanted.astype(np.float32 if dtype is not np.float64 else dtype).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("where", POSITIONS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_built_is_what_is_added(case: str, where: str, dtype: Any) -> None:
    options = {**CASES[case], **POSITIONS[where]}
    built = bias.alibi_bias([0.5, 0.25, 2.0], 5, 7, dtype=dtype, **options)
    zeros = np.zeros((2, 3, 5, 7), dtype)
    added = bias.add_alibi(zeros, [0.5, 0.25, 2.0], **options)
    assert built.dtype == dtype
    assert built.shape == ((2, 3, 5, 7) if where == "per batch" else (3, 5, 7))
    np.testing.assert_array_equal(np.broadcast_to(built, added.shape), added)


def test_slopes_of_batch_rows(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    slopes = rng.random((2, 3)).astype(np.float32)
    found = bias.add_alibi(x, slopes, causal=True)
    for row in range(2):
        assert_same_bits(found[row], bias.add_alibi(x[row], slopes[row], causal=True))
    assert bias.alibi_bias(slopes, 5, 7).shape == (2, 3, 5, 7)


def test_causal_skip_leaves_what_is_there(rng: np.random.Generator) -> None:
    """In place, into another array, and as a bias without scores."""
    x = rng.standard_normal((3, 6, 6)).astype(np.float32)
    slopes = [0.5, 0.25, 2.0]
    wanted = np.where(np.triu(np.ones((6, 6), bool), 1), x, bias.add_alibi(x, slopes))
    assert_same_bits(bias.add_alibi(x, slopes, causal="skip"), wanted)
    assert_same_bits(bias.add_alibi(x, slopes, causal="skip", out=np.full_like(x, 7)), wanted)
    assert_same_bits(bias.add_alibi(x, slopes, causal="skip", out=x), wanted)
    built = bias.alibi_bias(slopes, 6, 6, causal="skip")
    assert_same_bits(np.triu(built, 1), np.zeros_like(built))
    assert_same_bits(np.tril(built), np.tril(bias.alibi_bias(slopes, 6, 6)))


@pytest.mark.parametrize(("queries", "keys"), [(1, 300), (300, 1), (40, 5000), (3000, 3), (0, 4), (4, 0), (130, 2100)])
@pytest.mark.parametrize("listed", [False, True])
def test_sizes(queries: int, keys: int, listed: bool, rng: np.random.Generator) -> None:
    """Rows longer than a tile, fewer keys than queries, and nothing at all."""
    x = rng.integers(-50, 50, (2, queries, keys)).astype(np.float32)
    where = {"query_positions": np.arange(queries), "key_positions": np.arange(keys)} if listed else {}
    options = {"causal": True, "window": 700, "sinks": 3}
    found = bias.add_alibi(x, [0.5, 2.0], **options, **where)
    np.testing.assert_array_equal(found, expected(x, [0.5, 2.0], where, options))


def test_strides(rng: np.random.Generator) -> None:
    """Any order of axes, any steps, in place and into arrays laid out otherwise."""
    base = rng.standard_normal((2, 4, 6, 10)).astype(np.float32)
    slopes = [0.5, 0.25, 2.0, 1.0]
    wanted = bias.add_alibi(base, slopes, causal=True)
    for order in itertools.permutations(range(4)):
        back = np.argsort(order)
        x = base.transpose(order).copy().transpose(back)
        wide = np.zeros([2 * n for n in x.shape], np.float32)[::-2, ::2, ::2, ::-2]
        assert_same_bits(np.ascontiguousarray(bias.add_alibi(x, slopes, causal=True)), wanted)
        assert_same_bits(np.ascontiguousarray(bias.add_alibi(x, slopes, causal=True, out=wide)), wanted)
        bias.add_alibi(x, slopes, causal=True, out=x)
        assert_same_bits(np.ascontiguousarray(x), wanted)


def test_queries_are_the_last_keys() -> None:
    """A decode step is the last row of the whole, bit for bit, also where keys have positions of their own."""
    x = np.ones((4, 9, 9), np.float32)
    slopes = bias.alibi_slopes(4)
    assert_same_bits(bias.add_alibi(x[:, -2:], slopes), bias.add_alibi(x, slopes)[:, -2:])
    key = np.arange(9) ** 2
    whole = bias.add_alibi(x, slopes, query_positions=key, key_positions=key, causal=True)
    assert_same_bits(bias.add_alibi(x[:, -2:], slopes, key_positions=key, causal=True), whole[:, -2:])


def test_top_level_names() -> None:
    assert posenc.add_alibi is bias.add_alibi
    assert posenc.mask_scores is bias.mask_scores
