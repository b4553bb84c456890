"""Attention maps read once: the sums by distance and by row from which everything that is said of decay follows.

A head's maps are summed by distance and by how far back their rows could look. No map is kept or copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from posenc import _core, runtime
from posenc.checks._maps import Sample

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

#: a map's rows are cut into so many groups, and its keys into so many blocks: what errors are estimated from
GROUPS = 8
#: a row whose sum is further from 1 is reported; bfloat16 alone is off by less
ROW_SUM_TOLERANCE = 0.02
#: the most keys that one sum of a row's weights may cover; PE_TALLY_BLOCK
LARGEST_BLOCK = 1024


@dataclass
class Side:
    """What one head's queries give to keys on one side of them, at distances from 0 (the past) or from 1 (the future).

    Attributes
    ----------
    sums : ndarray of float64, shape (GROUPS, distances)
        Weight at each distance, by group of rows.
    mass : ndarray of float64, shape (GROUPS, distances + 1)
        Weight of rows that see n distances, n = 0, 1, ...
    counts : ndarray of float64, shape (distances + 1,)
        How many rows with any weight see n distances.
    used : bool
        Whether sums and mass were ever added to.
    """

    sums: Floats
    mass: Floats
    counts: Floats
    used: bool = False


@dataclass
class HeadSums:
    """One head, over all of its maps.

    Attributes
    ----------
    label : tuple of int
        Its index in what was passed, without the batch.
    by_offset : ndarray of float64, shape (GROUPS, 2 * distances)
        The past's sums backwards, then the future's: `past.sums` and `future.sums` are views of it.
    lean : float
        The sum of weight * (1 - 2 * relative distance).
    tilt, tiles : ndarray of float64, shape (GROUPS, GROUPS)
        The same by group of rows and block of keys, all of a block at its middle; and the sum of weight.
    plan : Plan or None
        Of the longest of its maps.
    sinks : dict
        Key (negative from the end) -> its share of the weight.
    """

    label: tuple[int, ...]
    by_offset: Floats
    past: Side
    future: Side
    tilt: Floats
    tiles: Floats
    sinks: dict[int, float] = field(default_factory=dict)
    row_sums: tuple[float, float] = (np.inf, -np.inf)
    plan: Plan | None = None
    lean: float = 0.0
    rows: int = 0
    off: int = 0
    empty: int = 0

    def add(self, other: HeadSums) -> None:
        """Add another head's sums; its sinks stay its own."""
        for mine, its in ((self.past, other.past), (self.future, other.future)):
            mine.counts += its.counts
            if its.used:
                mine.sums += its.sums
                mine.mass += its.mass
                mine.used = True
        self.lean += other.lean
        self.plan = self.plan or other.plan
        self.tilt += other.tilt
        self.tiles += other.tiles
        self.row_sums = min(self.row_sums[0], other.row_sums[0]), max(self.row_sums[1], other.row_sums[1])
        self.rows, self.off, self.empty = self.rows + other.rows, self.off + other.off, self.empty + other.empty


def tally_heads(heads: Sequence[tuple[tuple[int, ...], list[Sample]]], leading: int, trailing: int) -> list[HeadSums]:
    """Read every map once, heads side by side on the threads there are; the same bits for any number of them."""
    most = max(sample.stop - sample.first for _, samples in heads for sample in samples)
    found = empty_heads([label for label, _ in heads], most)
    size = sum(sample.array.shape[-1] * sample.array.shape[-2] for _, samples in heads for sample in samples)
    threads = runtime.get_num_threads() if 4 * size > runtime.SPLIT_BYTES else 1
    parts = min(len(heads), 4 * threads)

    def some(part: int) -> None:
        scratch = Scratch()
        for i in range(part * len(heads) // parts, (part + 1) * len(heads) // parts):
            for sample in heads[i][1]:
                _tally_sample(found[i], sample, leading, trailing, scratch)

    if threads == 1:
        for part in range(parts):
            some(part)
        return found
    pool = ThreadPoolExecutor(threads, "posenc")
    try:
        for _ in pool.map(some, range(parts)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt waits for the heads under way, and for no other
    return found


def empty_heads(labels: Sequence[tuple[int, ...]], most: int) -> list[HeadSums]:
    """Return heads whose maps have yet to be added, for up to so many distances.

    All of a kind lie in one array: large ones get large pages, and pages that nobody writes cost nothing.
    """
    n = len(labels)
    by_offset, tiles = np.zeros((n, GROUPS, 2 * most)), np.zeros((2, n, GROUPS, GROUPS))
    mass, counts = np.zeros((2, n, GROUPS, most + 1)), np.zeros((2, n, most + 1))
    past, future = by_offset[:, :, most - 1 :: -1], by_offset[:, :, most:]
    return [
        HeadSums(
            label,
            by_offset[i],
            Side(past[i], mass[0, i], counts[0, i]),
            Side(future[i], mass[1, i], counts[1, i]),
            tiles[0, i],
            tiles[1, i],
        )
        for i, label in enumerate(labels)
    ]


def _tally(sample: Sample, q0: int, q1: int, k0: int, k1: int, width: int) -> tuple[Floats, Floats, Floats]:
    """Return by_offset, mass and sides of a part of a map."""
    by_offset = np.zeros(q1 - q0 + k1 - k0 - 1)
    mass, sides = np.empty((q1 - q0, -(-(k1 - k0) // width))), np.empty((q1 - q0, 4))
    _tally_into(sample, q0, q1, k0, k1, width, by_offset, mass, sides)
    return by_offset, mass, sides


def _tally_into(
    sample: Sample, q0: int, q1: int, k0: int, k1: int, width: int, by_offset: Floats, mass: Floats, sides: Floats
) -> None:
    diagonal = q0 - k0 + int(sample.array.shape[-1] - sample.array.shape[-2])
    bad = _core.tally(sample.array[q0:q1, k0:k1], width, diagonal, by_offset, mass, sides)
    if bad is None:
        return
    refuse(sample, bad[0] + q0, bad[1] + k0)


def refuse(sample: Sample, query: int, key: int) -> NoReturn:
    value = float(sample.array[query, key])
    hint = "these look like scores: pass them through softmax" if value < 0 else "mask it, or leave its row out"
    raise ValueError(
        f"attention must hold weights, finite and at least 0, got {value:g} at [{sample.index}{query}, {key}]; {hint}"
    )


def _spans(starts: list[int], past: Ints, future: Ints) -> tuple[list[tuple[slice, slice]], ...]:
    """Return, for each side and group, its rows in the order in which the distances that they see go up, and which.

    They go up by one from row to row for the past, and down by one for the future: both are slices.
    """
    found: tuple[list[tuple[slice, slice]], ...] = [], []
    for start, stop in itertools.pairwise((*starts, len(past))):
        up, down, before = int(past[start]), int(future[stop - 1]), start - 1 if start else None
        found[0].append((slice(start, stop), slice(up, up + stop - start)))
        found[1].append((slice(stop - 1, before, -1), slice(down, down + stop - start)))
    return found


class Plan:
    """What all maps of one shape share: which queries and keys are counted, and how far each is from each.

    A sink token is left out as a key and, since it is no word, as a query.
    """

    def __init__(self, queries: int, keys: int, key0: int, key1: int) -> None:
        shift = keys - queries  # query i stands at key i + shift
        self.key0, self.key1, self.whole = key0, key1, (key0, key1) == (0, keys)
        self.query0, self.query1 = max(0, key0 - shift), max(0, key1 - shift)
        self.empty = self.query1 <= self.query0 or key1 - key0 < 2
        if self.empty:
            return
        n = key1 - key0
        self.edges = np.unique(np.linspace(self.query0, self.query1, GROUPS + 1).round().astype(int)).tolist()
        self.starts = np.array(self.edges[:-1]) - self.query0
        self.width = min(LARGEST_BLOCK, -(-n // GROUPS))
        self.at = np.arange(self.query0, self.query1) + shift - key0  # the key of each query
        self.seen = self.at + 1, n - 1 - self.at
        first = np.arange(0, n, self.width)
        reach = self.at[:, None] - (first + (np.minimum(first + self.width, n) - first - 1) / 2)
        self.per_distance = tuple(1 / np.maximum(seen, 1) for seen in self.seen)
        past, future = (np.maximum(seen, 1)[:, None] for seen in self.seen)
        self.tilt = 1 - 2 * np.clip(np.where(reach >= 0, (reach + 0.5) / past, (-reach - 0.5) / future), 0, 1)
        self.spans = _spans(self.starts.tolist(), *self.seen)
        self.from_zero = self.at.astype(np.float64), self.at + 1.0
        self.first, self.keys = first, n
        self.block_starts = np.unique(np.arange(GROUPS) * len(first) // GROUPS)


@lru_cache(maxsize=8)
def _plan(queries: int, keys: int, key0: int, key1: int) -> Plan:
    return Plan(queries, keys, key0, key1)


class Scratch:
    """Sums by row of one map at a time, in memory that maps of one shape share: new pages cost a tenth of the pass."""

    def __init__(self) -> None:
        self._plan: Plan | None = None

    def of(self, plan: Plan) -> tuple[Floats, Floats]:
        """Return mass and sides."""
        if self._plan is not plan:
            self._plan, self._mass = plan, np.empty((len(plan.at), plan.tilt.shape[1]))
            self._sides = np.empty((len(plan.at), 4))
        return self._mass, self._sides


def _tally_sample(head: HeadSums, sample: Sample, leading: int, trailing: int, scratch: Scratch) -> None:
    """Add one map to a head."""
    queries, keys = (int(n) for n in sample.array.shape)
    plan = _plan(queries, keys, sample.first + leading, sample.stop - trailing)
    if plan.empty:
        return
    if head.plan is None or head.plan.keys < plan.keys:
        head.plan = plan
    mass, sides = scratch.of(plan)
    most = head.by_offset.shape[1] // 2
    for group, (q0, q1) in enumerate(itertools.pairwise(plan.edges)):
        rows = slice(q0 - plan.query0, q1 - plan.query0)
        farthest = int(plan.at[rows.stop - 1])  # the distance of the group's first offset
        by_offset = head.by_offset[group, most - 1 - farthest :][: q1 - q0 + plan.keys - 1]
        _tally_into(sample, q0, q1, plan.key0, plan.key1, plan.width, by_offset, mass[rows], sides[rows])
    columns = sides.T.copy()
    sums = columns[0] + columns[2]
    _add_rows(head, plan, mass, columns, sums)
    _add_row_sums(head, sums if plan.whole else sums + _outside(sample, plan))


def _add_rows(head: HeadSums, plan: Plan, mass: Floats, columns: Floats, sums: Floats) -> None:
    """Rows by how many distances they see, and how they lean: distance d on a side of n is (d + 1/2) / n of the way."""
    lively = sums > 0
    for which, side in enumerate((head.past, head.future)):
        weight, moment = columns[2 * which : 2 * which + 2]
        total = float(weight.sum())
        step = 1 - 2 * which
        first = plan.spans[which][0 if step > 0 else -1][1].start
        side.counts[first : first + len(weight)] += lively[::step]
        if total == 0:
            continue
        side.used = True
        for group, (rows, n) in enumerate(plan.spans[which]):
            side.mass[group, n] += weight[rows]
        # sums of distance * weight; the future begins at distance 1, which counts as 0 here
        places = plan.from_zero[which] * weight
        reach = moment - places if which else places - moment
        head.lean += total - float((2 * reach + weight) @ plan.per_distance[which])
    _add_tiles(head.tiles, plan, mass)
    mass *= plan.tilt  # nobody reads it any more
    _add_tiles(head.tilt, plan, mass)


def _add_tiles(to: Floats, plan: Plan, mass: Floats) -> None:
    tiles = np.add.reduceat(np.add.reduceat(mass, plan.starts, 0), plan.block_starts, 1)
    to[: tiles.shape[0], : tiles.shape[1]] += tiles


def _outside(sample: Sample, plan: Plan) -> Floats:
    """Return what rows give to keys that are not counted: sinks and padding."""
    total = np.zeros(len(plan.at))
    for k0, k1 in ((0, plan.key0), (plan.key1, int(sample.array.shape[-1]))):
        if k1 > k0:
            total += _tally(sample, plan.query0, plan.query1, k0, k1, min(k1 - k0, LARGEST_BLOCK))[1].sum(1)
    return total


def _add_row_sums(head: HeadSums, sums: Floats) -> None:
    full = sums if sums.min() > 0 else sums[sums > 0]
    head.rows += len(sums)
    head.empty += len(sums) - len(full)
    if len(full):
        least, most = float(full.min()), float(full.max())
        if max(1 - least, most - 1) > ROW_SUM_TOLERANCE:
            head.off += int((np.abs(full - 1) > ROW_SUM_TOLERANCE).sum())
        head.row_sums = min(head.row_sums[0], least), max(head.row_sums[1], most)
