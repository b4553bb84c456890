"""What a rotary encoding is, as properties that hypothesis tries to break.

Norms are kept; R_i R_j^T = R_(i-j); the inverse restores; layouts agree after permutation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import posenc
from posenc import _reference
from strategies import (
    ROUNDING,
    SMALLEST,
    Array,
    assert_close,
    assert_same,
    bases,
    kinds,
    layouts,
    normal,
    offsets,
    reproducible,
    ropes,
    seeds,
    wide,
)


@given(layout=layouts, kind=kinds, pairs=st.integers(1, 40), base=bases, offset=offsets, seed=seeds)
@reproducible
def test_norm_is_kept(layout: str, kind: Any, pairs: int, base: float, offset: int, seed: int) -> None:
    """Of every pair: table and arithmetic of float32 (or float64) and one rounding to the type."""
    x = normal(seed, (3, 5, 2 * pairs), kind)
    y = posenc.Rope(2 * pairs, layout=layout, base=base)(x, offset=offset)
    before = np.hypot(*_reference.split_pairs(wide(x), layout))
    after = np.hypot(*_reference.split_pairs(wide(y), "interleaved" if layout == "interleaved" else "half"))
    wider = ROUNDING[np.float64 if kind is np.float64 else np.float32]
    assert_close(after, before, before * (4 * wider + ROUNDING[kind]) + SMALLEST[kind])


def matrix(rope: posenc.Rope, position: float) -> Array:
    """R_p as a matrix: R_p x is what the Rope makes of x at position p."""
    identity = np.eye(rope.head_dim)[:, None, :]
    return rope(identity, positions=[position])[:, 0, :].T


# multiples of 1/64 below 2^24: their differences are exact
positions_64 = st.integers(-(2**30) + 1, 2**30 - 1).map(lambda n: n / 64)


@given(
    layout=st.sampled_from(["half", "interleaved"]),
    pairs=st.integers(1, 12),
    base=bases,
    i=positions_64,
    j=positions_64,
)
@reproducible
def test_products_depend_on_the_distance(layout: str, pairs: int, base: float, i: float, j: float) -> None:
    """R_i R_j^T = R_(i-j) (RoFormer, equation 16), in float64 to its rounding, for far and fractional positions."""
    rope = posenc.Rope(2 * pairs, layout=layout, base=base)
    assert_close(matrix(rope, i) @ matrix(rope, j).T, matrix(rope, i - j), 2.0**-50)


@given(pairs=st.integers(1, 40), base=bases, i=positions_64, j=positions_64, seed=seeds, layout=layouts)
@reproducible
def test_scores_depend_on_the_distance(pairs: int, base: float, i: float, j: float, seed: int, layout: str) -> None:
    """The same for the score of a query and a key in float32, also where both are written as halves."""
    rope = posenc.Rope(2 * pairs, layout=layout, base=base)
    q, k = normal(seed, (1, 2 * pairs)), normal(seed + 1, (1, 2 * pairs))

    def score(m: float, n: float) -> Array:
        return (wide(rope(q, positions=[m])) * wide(rope(k, positions=[n]))).sum()

    size = np.linalg.norm(wide(q)) * np.linalg.norm(wide(k))
    assert_close(score(i, j), score(i - j, 0.0), 2.0**-20 * size)


@given(rope=ropes(), kind=kinds, offset=offsets, seed=seeds, factor=st.sampled_from([1.0, 1.3465735902799727, 0.25]))
@reproducible
def test_inverse_restores(rope: posenc.Rope, kind: Any, offset: int, seed: int, factor: float) -> None:
    """Within the roundings of two rotations; an odd head has lost what its appended element held."""
    fixed = posenc.scaling.InverseFrequencies(tuple(rope.inv_freq.tolist()), factor)
    rope = posenc.Rope(
        rope.head_dim + rope.head_dim % 2,
        layout=rope.layout,
        rotary_dim=2 * len(rope.inv_freq),
        rotary_offset=rope.rotary_offset,
        scaling=fixed,
        precision=rope.precision,
    )
    x = normal(seed, (2, 7, rope.head_dim), kind)
    back = rope(rope(x, offset=offset), offset=offset, inverse=True)
    wider = ROUNDING[np.float64 if kind is np.float64 and rope.precision == "exact" else np.float32]
    assert_close(back, x, np.abs(wide(x)).max() * (16 * wider + 4 * ROUNDING[kind]) + 4 * SMALLEST[kind] / factor)


@given(
    pairs=st.integers(1, 40), behind=st.integers(0, 9), kind=kinds, offset=offsets, seed=seeds, heads=st.integers(1, 4)
)
@reproducible
def test_layouts_agree_after_permutation(
    pairs: int, behind: int, kind: Any, offset: int, seed: int, heads: int
) -> None:
    """A projection permuted by `permute_rotary_weights` and turned as halves is the interleaved result, permuted."""
    width, head_dim = 2 * pairs, 2 * pairs + behind
    rows = normal(seed, (heads * head_dim, 5), kind)  # one column for each token: q transposed
    permuted = posenc.permute_rotary_weights(rows, heads, rotary_dim=width)

    def turned(q: Array, layout: str) -> Array:
        by_head = q.reshape(heads, head_dim, 5).transpose(0, 2, 1)
        y = posenc.Rope(head_dim, layout=layout, rotary_dim=width)(by_head, offset=offset)
        return y.transpose(0, 2, 1).reshape(heads * head_dim, 5)

    interleaved = turned(rows, "interleaved")
    assert_same(turned(permuted, "half"), posenc.permute_rotary_weights(interleaved, heads, rotary_dim=width))
    back = posenc.permute_rotary_weights(permuted, heads, source="half", target="interleaved", rotary_dim=width)
    assert_same(back, rows)


@given(rope=ropes("interleaved_to_half"), kind=kinds, offset=offsets, seed=seeds)
@reproducible
def test_interleaved_to_half_is_interleaved_put_elsewhere(rope: posenc.Rope, kind: Any, offset: int, seed: int) -> None:
    """Bit for bit: its first half holds the first members, its second half the others."""
    x = normal(seed, (2, 6, rope.head_dim + rope.head_dim % 2), kind)
    width = 2 * len(rope.inv_freq)
    given_frequencies = {"inv_freq": rope.inv_freq, "rotary_offset": rope.rotary_offset, "precision": rope.precision}
    found = posenc.Rope(x.shape[-1], layout="interleaved_to_half", **given_frequencies)(x, offset=offset)
    pairs = posenc.Rope(x.shape[-1], layout="interleaved", **given_frequencies)(x, offset=offset)
    wanted = pairs.copy()
    inside = slice(rope.rotary_offset, rope.rotary_offset + width)
    wanted[..., inside] = np.concatenate([pairs[..., inside][..., 0::2], pairs[..., inside][..., 1::2]], axis=-1)
    assert_same(found, wanted)


def test_the_helpers_say_no() -> None:
    """One unit in the last place, one wrong sign, one neighbouring position."""
    x = normal(3, (4, 8))
    y = x.copy()
    y[2, 3] = np.nextafter(y[2, 3], np.float32(9))
    with pytest.raises(AssertionError):
        assert_same(x, y)
    with pytest.raises(AssertionError):
        assert_same(np.zeros(1), -np.zeros(1))
    rope = posenc.Rope(8, layout="half")
    with pytest.raises(AssertionError):
        assert_close(matrix(rope, 5) @ matrix(rope, 3).T, matrix(rope, -2), 2.0**-50)
    with pytest.raises(AssertionError):
        assert_close(rope(x, offset=1), rope(x), 1e-3)
