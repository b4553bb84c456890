"""What a rotary encoding is, as properties that hypothesis tries to break.

Norms are kept; R_i R_j^T = R_(i-j); the inverse restores. And what makes posenc safe to slice: a row depends on its
position alone, so offsets, packing, slices and the order of calls leave every bit as it is. Examples are the same in
every run (derandomize).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from posenc import _reference

Array = np.ndarray
reproducible = settings(derandomize=True, deadline=None, max_examples=200)

LAYOUTS = ("half", "interleaved", "interleaved_to_half")
KINDS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
ROUNDING = {np.float32: 2.0**-24, np.float64: 2.0**-53, np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8}
SMALLEST = {np.float32: 2.0**-149, np.float64: 2.0**-1074, np.float16: 2.0**-24, ml_dtypes.bfloat16: 2.0**-133}
FAR = 2**31 - 2**12

layouts = st.sampled_from(LAYOUTS)
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**32 - 1)
bases = st.sampled_from([1e2, 1e4, 5e5, 1e6, 1e7, 123.4])
offsets = st.one_of(st.integers(0, 300), st.integers(-(2**20), 2**20), st.integers(-FAR, FAR))


@st.composite
def ropes(draw: st.DrawFn, layout: str | None = None) -> posenc.Rope:
    """Even widths, inner ranges, odd heads, both precisions."""
    pairs, before, behind = draw(st.integers(1, 40)), draw(st.integers(0, 5)), draw(st.integers(0, 9))
    odd = draw(st.booleans())
    where: dict[str, Any] = {} if odd else {"rotary_dim": 2 * pairs, "rotary_offset": before}
    return posenc.Rope(
        2 * pairs - 1 if odd else before + 2 * pairs + behind,
        layout=layout or draw(layouts),
        base=draw(bases),
        precision=draw(st.sampled_from(["exact", "float32"])),
        **where,
    )


def normal(seed: int, shape: tuple[int, ...], kind: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


def assert_same(found: Array, wanted: Array) -> None:
    """The same bits."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    word = f"u{found.itemsize}"
    assert np.array_equal(np.ascontiguousarray(found).view(word), np.ascontiguousarray(wanted).view(word))


def assert_close(found: Array, wanted: Array, tolerance: float | Array) -> None:
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    assert np.all(difference <= tolerance), f"{difference.max()} exceeds {np.max(tolerance)}"


def wide(x: Array) -> Array:
    return x.astype(np.float64)


# ---- rotations ----


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


# ---- the same bits, however the call is put ----


@given(rope=ropes(), kind=kinds, offset=offsets, first=st.integers(0, 40), seed=seeds)
@reproducible
def test_offset_equals_prefill(rope: posenc.Rope, kind: Any, offset: int, first: int, seed: int) -> None:
    """Token by token with a growing offset, what the whole sequence gives at once."""
    x = normal(seed, (2, 3, 48, rope.head_dim), kind)
    whole = rope(x, offset=offset)
    assert_same(rope(x[:, :, first:], offset=offset + first), whole[:, :, first:])
    for token in (first, 47):
        one = slice(token, token + 1)
        assert_same(rope(x[:, :, one], offset=offset + token), whole[:, :, one])
        assert_same(rope(x[:, :, one], positions=[offset + token]), whole[:, :, one])


@given(rope=ropes(), kind=kinds, offsets=st.lists(offsets, min_size=1, max_size=40), many=st.booleans(), seed=seeds)
@reproducible
def test_batch_rows_are_separate(rope: posenc.Rope, kind: Any, offsets: list[int], many: bool, seed: int) -> None:
    """One offset or one row of positions for each batch row, of one token or of nine: what each row gives alone."""
    seq = 9 if many else 1
    x = normal(seed, (len(offsets), 2, seq, rope.head_dim), kind)
    wanted = np.stack([rope(row, offset=o) for row, o in zip(x, offsets, strict=True)])
    assert_same(rope(x, offset=offsets), wanted)
    assert_same(rope(x, positions=np.array(offsets)[:, None] + np.arange(seq)), wanted)
    swapped = rope(np.ascontiguousarray(x.swapaxes(1, 2)), offset=offsets, seq_axis=1)
    assert_same(swapped.swapaxes(1, 2), wanted)


@given(rope=ropes(), kind=kinds, lengths=st.lists(st.integers(0, 12), min_size=1, max_size=6), seed=seeds)
@reproducible
def test_packed_equals_separate(rope: posenc.Rope, kind: Any, lengths: list[int], seed: int) -> None:
    """(tokens, heads, head_dim) with positions that start again for each document."""
    total = sum(lengths)
    x = normal(seed, (total, 3, rope.head_dim), kind)
    positions = np.concatenate([np.arange(n) for n in lengths])
    packed = rope(x, positions=positions, seq_axis=0)
    start = 0
    for n in lengths:
        assert_same(rope(x[start : start + n], seq_axis=0), packed[start : start + n])
        start += n


@st.composite
def cuts(draw: st.DrawFn, n: int) -> slice:
    """Draw slices of any start, stop and step, backwards too."""
    step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
    a, b = sorted((draw(st.integers(0, n)), draw(st.integers(0, n))))
    return slice(a, b, step) if step > 0 else slice(b, a or None, step)


@given(rope=ropes(), kind=kinds, batch=cuts(3), heads=cuts(4), seq=cuts(40), offset=offsets, seed=seeds)
@reproducible
def test_slices_equal_the_whole(
    rope: posenc.Rope, kind: Any, batch: slice, heads: slice, seq: slice, offset: int, seed: int
) -> None:
    """Slice the positions as x is sliced: a view of x gives a view of the result."""
    x = normal(seed, (3, 4, 40, rope.head_dim), kind)
    positions = offset + np.arange(40)
    whole = rope(x, positions=positions)
    part = x[batch, heads, seq]
    found = rope(part, positions=positions[seq])
    assert_same(found, whole[batch, heads, seq])
    in_place = x.copy()
    view = in_place[batch, heads, seq]
    rope(view, positions=positions[seq], out=view)
    assert_same(view, found)


@given(rope=ropes(), kind=kinds, offset=offsets, seed=seeds, q_heads=st.integers(1, 5), k_heads=st.integers(1, 5))
@reproducible
def test_together_equals_apart(
    rope: posenc.Rope, kind: Any, offset: int, seed: int, q_heads: int, k_heads: int
) -> None:
    """Queries with keys, by a Rope or by its tables, into a new array or in place, in either memory order."""
    q, k = normal(seed, (2, q_heads, 7, rope.head_dim), kind), normal(seed + 1, (2, k_heads, 7, rope.head_dim), kind)
    found_q, found_k = rope(q, k, offset=offset)
    assert_same(rope(q, offset=offset), found_q)
    assert_same(rope(k, offset=offset), found_k)
    swapped = rope(np.ascontiguousarray(k.transpose(0, 2, 1, 3)), offset=offset, seq_axis=-3)
    assert_same(swapped.transpose(0, 2, 1, 3), found_k)
    cos, sin = rope.table(offset + np.arange(7), dtype=np.float64 if kind is np.float64 else np.float32)
    how = {"layout": rope.layout, "rotary_offset": rope.rotary_offset}
    assert_same(posenc.apply_rotary_emb(q, cos, sin, **how), found_q)
    rope(q, k, offset=offset, out=(q, k))
    assert_same(q, found_q)
    assert_same(k, found_k)


NARROW = [(100, "int8"), (250, "uint8"), (32000, "int16"), (65000, "uint16")]
WIDE = [(2**31 - 5000, "int32"), (2**31 - 5000, "uint32"), (32000, "int64")]
held_by = pytest.mark.parametrize(("offset", "dtype"), [*NARROW, *WIDE])


@held_by
def test_an_offset_is_a_number_whatever_holds_it(offset: int, dtype: str, threads: Callable[[int], None]) -> None:
    """offset + token may exceed what the offset's own type can hold, in calls small and large, split or not."""
    threads(2)
    rope = posenc.Rope(64, layout="half")
    for x in (normal(1, (2, 5, 64)), normal(2, (1, 5, 4100, 64))):
        assert_same(rope(x, offset=np.array([offset], dtype)), rope(x, offset=offset))


@held_by
def test_the_length_of_a_call_whatever_holds_its_offset(offset: int, dtype: str) -> None:
    """The same where the frequencies follow from the largest position."""
    rope, x = posenc.Rope(64, layout="half", scaling=ByLength()), normal(3, (1, 900, 64))
    assert_same(rope(x, offset=np.array([offset], dtype)), rope(x, offset=offset))


@dataclass(frozen=True)
class ByLength:
    """A scaling of its own: frequencies that shrink with the sequence length, as dynamic NTK's do."""

    depends_on_length: bool = True

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[Array, float]:
        length = seq_len or 1
        return np.array([1 / (i + 1 + length) for i in range(rotary_dim // 2)]), 1 + length / 2**31

    def effective_length(self, seq_len: int) -> int:
        return seq_len


@pytest.mark.parametrize("scaling", [None, ByLength()], ids=["fixed", "by length"])
@given(kind=kinds, walk=st.permutations([0, 1, 500, 4095, 4096, 131072, 2**20, 2**24, 2**31 - 64]), seed=seeds)
@settings(reproducible, max_examples=25)
def test_any_position_at_any_time(scaling: Any, kind: Any, walk: list[int], seed: int) -> None:
    """From short to very long and back, in any order: nothing grows, and a long call changes no later short one."""
    rope = posenc.Rope(32, layout="half", base=5e5, scaling=scaling)
    fresh = {start: posenc.Rope(32, layout="half", base=5e5, scaling=scaling) for start in walk}
    x = normal(seed, (2, 16, 32), kind)
    wanted = {start: fresh[start](x, offset=start) for start in walk}
    for start in (*walk, *sorted(walk), *sorted(walk, reverse=True)):
        assert_same(rope(x, offset=start), wanted[start])
        assert_same(rope.at(start + 16)(x, offset=start), wanted[start])
    if scaling is not None:
        assert not np.array_equal(wanted[500], rope(x, offset=500, seq_len=4096))


@given(walk=st.permutations(range(8)))
@settings(reproducible, max_examples=10)
def test_tables_at_any_time(walk: list[int]) -> None:
    """The same of tables: rows of 2^31 - 64 before or after those of 0."""
    rope = posenc.Rope(64, layout="half")
    starts = [0, 1, 100, 4096, 131072, 2**24, 2**30, 2**31 - 64]
    wanted = [posenc.Rope(64, layout="half").table(start + np.arange(32)) for start in starts]
    for i in (*walk, *range(8), *reversed(range(8))):
        for found, expected in zip(rope.table(starts[i] + np.arange(32)), wanted[i], strict=True):
            assert_same(found, expected)


# ---- the oracle ----


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Every parameter of a Rope and of its call at once."""
    axes, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    batch, heads, seq = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    axis_of_freq = None if axes == 1 else np.concatenate([rng.integers(0, axes, pairs - 1), [axes - 1]])
    own_rows = draw(st.booleans())
    shape = (*([axes] if axes > 1 else []), *([batch] if own_rows else []), seq)
    whole = rng.integers(-(10**5), 10**5, shape)
    return {
        "shape": (batch, heads, seq),
        "inv_freq": rng.uniform(-1, 1, pairs),
        "axis_of_freq": axis_of_freq,
        "positions": whole if draw(st.booleans()) else whole / 7,
        "layout": draw(layouts),
        "rotary_offset": draw(st.integers(0, 4)),
        "rest": draw(st.integers(0, 6)),
        "inverse": draw(st.booleans()),
        "scale": draw(st.sampled_from([1.0, 1.25, 0.1])),
        "seq_axis": draw(st.sampled_from([-2, 2, -3, 1])),
        "kind": draw(kinds),
        "seed": seed,
    }


def by_rope(x: Array, call: dict[str, Any]) -> Array:
    fixed = posenc.scaling.InverseFrequencies(tuple(call["inv_freq"].tolist()), call["scale"])
    rope = posenc.Rope(
        x.shape[-1],
        layout=call["layout"],
        rotary_dim=2 * len(call["inv_freq"]),
        rotary_offset=call["rotary_offset"],
        scaling=fixed,
        axis_of_freq=call["axis_of_freq"],
    )
    return rope(x, positions=call["positions"], seq_axis=call["seq_axis"], inverse=call["inverse"])


@given(call=calls())
@settings(reproducible, max_examples=400)
def test_oracle_agrees(call: dict[str, Any]) -> None:
    """posenc._reference, float64 NumPy from the formulas, for every parameter at random."""
    batch, heads, seq = call["shape"]
    head_dim = call["rotary_offset"] + 2 * len(call["inv_freq"]) + call["rest"]
    along_third = call["seq_axis"] in (-2, 2)
    x = normal(
        call["seed"], (batch, heads, seq, head_dim) if along_third else (batch, seq, heads, head_dim), call["kind"]
    )
    names = ("axis_of_freq", "rotary_offset", "seq_axis", "scale", "inverse")
    wanted = _reference.rotate(
        x, call["positions"], call["inv_freq"], call["layout"], **{name: call[name] for name in names}
    )
    growth = 1 / call["scale"] if call["inverse"] else call["scale"]
    angles = 2.0**-53 * 1e5  # NumPy's angle is rounded to float64: positions below 1e5, frequencies below 1
    wider = ROUNDING[np.float64 if call["kind"] is np.float64 else np.float32]
    largest = 2 * np.abs(wide(x)).max() * max(1.0, growth)
    tolerance = largest * (2 * angles + 4 * wider + ROUNDING[call["kind"]]) + SMALLEST[call["kind"]]
    assert_close(by_rope(x, call), wanted, tolerance)


@given(pairs=st.integers(1, 30), seed=seeds, layout=layouts, inverse=st.booleans())
@reproducible
def test_oracle_agrees_on_odd_heads(pairs: int, seed: int, layout: str, inverse: bool) -> None:
    """The appended zero of head_dim 2*pairs - 1."""
    x = normal(seed, (2, 11, 2 * pairs - 1), np.float64)
    rope = posenc.Rope(2 * pairs - 1, layout=layout)
    wanted = _reference.rotate(x, np.arange(11), rope.inv_freq, layout, inverse=inverse)
    assert_close(rope(x, inverse=inverse), wanted, 2.0**-48)


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
