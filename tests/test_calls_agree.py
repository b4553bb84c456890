"""The same bits, however a call is put, as properties that hypothesis tries to break.

A row depends on its position alone, so offsets, packing, slices and the order of calls leave every bit as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from strategies import Array, assert_same, kinds, normal, offsets, reproducible, ropes, seeds


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


@pytest.mark.parametrize("power", [1.0, 2.0**20, 2.0**24, 2.0**30])
@pytest.mark.parametrize("fraction", [0.1, 0.3, 3 * 2.0**-23])
def test_fractions_that_are_rounded_on_the_way(power: float, fraction: float) -> None:
    """Positions go up by one to a power of two and beyond, where a fraction has fewer bits: each as it is alone."""
    positions = power - 10 + fraction + np.arange(64.0)
    inv_freq = np.array([1.0, 0.9, 0.5, 0.1, 0.0])
    alone = [posenc.rotary_table(positions[i : i + 1], inv_freq) for i in range(64)]
    for found, rows in zip(posenc.rotary_table(positions, inv_freq), zip(*alone, strict=True), strict=True):
        assert_same(found, np.concatenate(rows))


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


# ---- whatever holds the numbers ----

NARROW = [(100, "int8"), (250, "uint8"), (32000, "int16"), (65000, "uint16")]
WIDE = [(2**31 - 5000, "int32"), (2**31 - 5000, "uint32"), (32000, "int64")]
held_by = pytest.mark.parametrize(("offset", "dtype"), [*NARROW, *WIDE])


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


# ---- in any order ----


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
