"""Attention maps as they come, read once: what `position_sanity_check` knows of each head.

A head's maps are summed by distance and by how far back their rows could look. Everything that is said of decay follows
from these sums; no map is kept or copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from posenc import _core, runtime
from posenc import _parameters as check
from posenc._split import sliceable

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

#: a map's rows are cut into so many groups, and its keys into so many blocks: what errors are estimated from
GROUPS = 8
#: keys at each end that may be sinks (Xiao et al., arXiv:2309.17453, find four), and keys that they are compared with
SINK_KEYS, NEIGHBOURS = 4, 8
#: a sink draws so many times the weight of its neighbours, and of what each key would draw of uniform rows
SINK_RATIO = 4.0
#: sinks are looked for in so many queries, evenly spaced
SINK_QUERIES = 256
#: a row whose sum is further from 1 is reported; bfloat16 alone is off by less
ROW_SUM_TOLERANCE = 0.02
_LARGEST_BLOCK = 1024  # PE_TALLY_BLOCK


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
    """

    sums: Floats
    mass: Floats
    counts: Floats


@dataclass
class HeadSums:
    """One head, over all of its maps.

    Attributes
    ----------
    label : tuple of int
        Its index in what was passed, without the batch.
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
            mine.sums += its.sums
            mine.mass += its.mass
            mine.counts += its.counts
        self.lean += other.lean
        self.plan = self.plan or other.plan
        self.tilt += other.tilt
        self.tiles += other.tiles
        self.row_sums = min(self.row_sums[0], other.row_sums[0]), max(self.row_sums[1], other.row_sums[1])
        self.rows, self.off, self.empty = self.rows + other.rows, self.off + other.off, self.empty + other.empty


@dataclass(frozen=True)
class Sample:
    """One map: keys first .. stop are tokens, the others padding."""

    array: Any
    index: str
    first: int
    stop: int


# ---- from what was passed to maps ----


def heads_of(
    attention: Any, batch_axis: int | None, mask: Any
) -> tuple[list[tuple[tuple[int, ...], list[Sample]]], int]:
    """Return (label, maps) of each head, and how many keys of all maps are padding."""
    if isinstance(attention, (list, tuple)):
        layers = [_array(layer, f"attention[{i}]") for i, layer in enumerate(attention)]
        if not layers:
            raise ValueError("attention must not be empty")
        if len({layer.ndim for layer in layers}) > 1:
            raise ValueError(f"all layers of attention must have as many axes, got {[layer.ndim for layer in layers]}")
        if batch_axis is None and layers[0].ndim == 4:
            batch_axis = 1  # transformers: a tuple of (batch, heads, queries, keys)
        lead = [(i, *index) for i, layer in enumerate(layers) for index in np.ndindex(*layer.shape[:-2])]
    else:
        layers, array = [], _array(attention, "attention")
        lead = list(np.ndindex(*array.shape[:-2]))
    ndim = len(lead[0]) if lead else 0
    if not lead:
        raise ValueError("attention holds no map")
    if batch_axis is not None:
        batch_axis = check.integer("batch_axis", batch_axis, -ndim, ndim - 1) % max(ndim, 1)
    heads: dict[tuple[int, ...], list[Sample]] = {}
    ranges = _ranges(mask, batch_axis)
    padding = 0
    for index in lead:
        found = layers[index[0]][index[1:]] if layers else array[index]
        sample = index[batch_axis] if batch_axis is not None else 0
        first, stop = ranges(sample, int(found.shape[-1]))
        padding += int(found.shape[-1]) - (stop - first)
        label = tuple(n for axis, n in enumerate(index) if axis != batch_axis)
        where = "".join(f"{n}, " for n in index)
        heads.setdefault(label, []).append(Sample(found, where, first, stop))
    return list(heads.items()), padding


def _array(value: Any, name: str) -> Any:
    if not hasattr(value, "__dlpack__"):
        raise TypeError(f"{name} must be a NumPy array or a torch CPU tensor, got {check.shown(value)}")
    array = sliceable(value)
    if array.ndim < 2:
        raise ValueError(f"{name} must have a query and a key axis, (..., queries, keys), got {array.ndim} axes")
    if 0 in tuple(array.shape):
        raise ValueError(f"{name} holds no weights: its shape is {tuple(array.shape)}")
    if array.shape[-1] < array.shape[-2]:
        raise ValueError(
            f"{name} must have at least as many keys as queries, its last two axes, got {tuple(array.shape[-2:])}"
        )
    return array


def _ranges(mask: Any, batch_axis: int | None) -> Any:
    """Return a function of (sample, keys): which keys are tokens."""
    if mask is None:
        return lambda sample, keys: (0, keys)
    array = check.plain_array("mask", mask)
    if array.dtype.kind not in "biu" or array.ndim not in (1, 2):
        raise ValueError(
            f"mask must be booleans or integers, 1 for a token and 0 for padding, of shape (keys,) or (batch, keys); "
            f"got {check.shown(array)}"
        )
    if array.ndim == 2 and batch_axis is None:
        raise ValueError("a mask with a batch axis needs batch_axis=, which axis of attention is the batch")
    rows = np.atleast_2d(array != 0)

    def ranges(sample: int, keys: int) -> tuple[int, int]:
        if rows.shape[-1] != keys or (array.ndim == 2 and sample >= len(rows)):
            raise ValueError(f"mask must have shape ({keys},) or (batch, {keys}), got {array.shape}")
        row = rows[sample if array.ndim == 2 else 0]
        tokens = np.flatnonzero(row)
        if not len(tokens) or not row[tokens[0] : tokens[-1] + 1].all():
            raise ValueError("mask must leave one run of tokens in every row: padding at its ends, nowhere else")
        return int(tokens[0]), int(tokens[-1]) + 1

    return ranges


# ---- one pass ----


def tally_heads(heads: Sequence[tuple[tuple[int, ...], list[Sample]]], leading: int, trailing: int) -> list[HeadSums]:
    """Read every map once, heads side by side on the threads there are; the same bits for any number of them."""
    most = max(sample.stop - sample.first for _, samples in heads for sample in samples)
    found = [empty_head(label, most) for label, _ in heads]
    size = sum(sample.array.shape[-1] * sample.array.shape[-2] for _, samples in heads for sample in samples)
    threads = runtime.get_num_threads() if 4 * size > runtime.SPLIT_BYTES else 1
    parts = min(len(heads), 4 * threads)

    def some(part: int) -> None:
        scratch = Scratch()
        for i in range(part * len(heads) // parts, (part + 1) * len(heads) // parts):
            for sample in heads[i][1]:
                _tally_sample(found[i], sample, leading, trailing, scratch)

    runtime.run_parts(some, parts, threads)
    return found


def empty_head(label: tuple[int, ...], most: int) -> HeadSums:
    """Return a head whose maps have yet to be added, for up to so many distances."""
    past, future = (Side(np.zeros((GROUPS, most)), np.zeros((GROUPS, most + 1)), np.zeros(most + 1)) for _ in range(2))
    return HeadSums(label, past, future, np.zeros((GROUPS, GROUPS)), np.zeros((GROUPS, GROUPS)))


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
    _refuse(sample, bad[0] + q0, bad[1] + k0)


def _refuse(sample: Sample, query: int, key: int) -> NoReturn:
    value = float(sample.array[query, key])
    hint = "these look like scores: pass them through softmax" if value < 0 else "mask it, or leave its row out"
    raise ValueError(
        f"attention must hold weights, finite and at least 0, got {value:g} at [{sample.index}{query}, {key}]; {hint}"
    )


class Plan:
    """What all maps of one shape share: which queries and keys are counted, and how far each is from each.

    A sink token is left out as a key and, since it is no word, as a query.
    """

    def __init__(self, queries: int, keys: int, key0: int, key1: int) -> None:
        shift = keys - queries  # query i stands at key i + shift
        self.key0, self.key1 = key0, key1
        self.query0, self.query1 = max(0, key0 - shift), max(0, key1 - shift)
        self.empty = self.query1 <= self.query0 or key1 - key0 < 2
        if self.empty:
            return
        n = key1 - key0
        self.edges = np.unique(np.linspace(self.query0, self.query1, GROUPS + 1).round().astype(int)).tolist()
        self.starts = np.array(self.edges[:-1]) - self.query0
        self.width = min(_LARGEST_BLOCK, -(-n // GROUPS))
        self.at = np.arange(self.query0, self.query1) + shift - key0  # the key of each query
        self.seen = self.at + 1, n - 1 - self.at
        first = np.arange(0, n, self.width)
        reach = self.at[:, None] - (first + (np.minimum(first + self.width, n) - first - 1) / 2)
        self.per_distance = tuple(1 / np.maximum(seen, 1) for seen in self.seen)
        past, future = (np.maximum(seen, 1)[:, None] for seen in self.seen)
        self.tilt = 1 - 2 * np.clip(np.where(reach >= 0, (reach + 0.5) / past, (-reach - 0.5) / future), 0, 1)
        self.first, self.keys = first, n
        self.block_starts = np.unique(np.arange(GROUPS) * len(first) // GROUPS)


@lru_cache(maxsize=8)
def _plan(queries: int, keys: int, key0: int, key1: int) -> Plan:
    return Plan(queries, keys, key0, key1)


class Scratch:
    """Sums of one map at a time, in memory that the maps of one shape share: fresh pages cost a tenth of the pass."""

    def __init__(self) -> None:
        self._plan: Plan | None = None

    def of(self, plan: Plan) -> tuple[Floats, Floats, Floats]:
        """Return mass, sides and zeros by offset, for the longest group of rows."""
        if self._plan is not plan:
            rows = max(q1 - q0 for q0, q1 in itertools.pairwise(plan.edges))
            self._plan, self._mass = plan, np.empty((len(plan.at), plan.tilt.shape[1]))
            self._sides, self._by_offset = np.empty((len(plan.at), 4)), np.empty(rows + plan.keys - 1)
        return self._mass, self._sides, self._by_offset


def _tally_sample(head: HeadSums, sample: Sample, leading: int, trailing: int, scratch: Scratch) -> None:
    """Add one map to a head."""
    queries, keys = (int(n) for n in sample.array.shape)
    plan = _plan(queries, keys, sample.first + leading, sample.stop - trailing)
    if plan.empty:
        return
    if head.plan is None or head.plan.keys < plan.keys:
        head.plan = plan
    mass, sides, whole = scratch.of(plan)
    for group, (q0, q1) in enumerate(itertools.pairwise(plan.edges)):
        by_offset = whole[: q1 - q0 + plan.keys - 1]
        by_offset.fill(0)
        rows = slice(q0 - plan.query0, q1 - plan.query0)
        _tally_into(sample, q0, q1, plan.key0, plan.key1, plan.width, by_offset, mass[rows], sides[rows])
        # offset e holds distance middle - e: the past backwards, then the future
        middle = q1 - q0 - 1 + int(plan.at[rows.start])
        past, future = by_offset[: middle + 1][::-1], by_offset[middle + 1 :]
        head.past.sums[group, : len(past)] += past
        if sides[rows, 2].any():  # a causal map touches no memory for it
            head.future.sums[group, : len(future)] += future
    _add_rows(head, plan, mass, sides)
    _add_row_sums(head, sides[:, 0] + sides[:, 2] + _outside(sample, plan))


def _add_rows(head: HeadSums, plan: Plan, mass: Floats, sides: Floats) -> None:
    """Rows by how many distances they see, and how they lean: distance d on a side of n is (d + 1/2) / n of the way."""
    lively = sides[:, 0] + sides[:, 2] > 0
    for which, side in enumerate((head.past, head.future)):
        weight, moment = sides[:, 2 * which], sides[:, 2 * which + 1]
        total = float(weight.sum())
        # n goes up by one from row to row for the past, down by one for the future: the same as slices
        step = 1 - 2 * which
        first = int(plan.seen[which][0 if step > 0 else -1])
        side.counts[first : first + len(weight)] += lively[::step]
        if total == 0:
            continue
        for group, (start, stop) in enumerate(itertools.pairwise((*plan.starts.tolist(), len(weight)))):
            n = int(plan.seen[which][start if step > 0 else stop - 1])
            side.mass[group, n : n + stop - start] += weight[start:stop][::step]
        # sums of distance * weight; the future begins at distance 1, which counts as 0 here
        reach = moment - (plan.at + 1) * weight if which else plan.at * weight - moment
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
            total += _tally(sample, plan.query0, plan.query1, k0, k1, min(k1 - k0, _LARGEST_BLOCK))[1].sum(1)
    return total


def _add_row_sums(head: HeadSums, sums: Floats) -> None:
    full = sums if sums.min() > 0 else sums[sums > 0]
    head.rows += len(sums)
    head.empty += len(sums) - len(full)
    if len(full):
        head.off += int((np.abs(full - 1) > ROW_SUM_TOLERANCE).sum())
        head.row_sums = min(head.row_sums[0], float(full.min())), max(head.row_sums[1], float(full.max()))


# ---- sinks ----


def find_sinks(heads: Sequence[tuple[tuple[int, ...], list[Sample]]]) -> tuple[int, int, list[dict[int, float]]]:
    """Return how many keys at the start and at the end are sinks in some head, and each head's shares."""
    found = [_sinks_of(samples) for _, samples in heads]
    leading = max((key + 1 for shares in found for key in shares if key >= 0), default=0)
    trailing = max((-key for shares in found for key in shares if key < 0), default=0)
    return leading, trailing, found


def _sinks_of(samples: list[Sample]) -> dict[int, float]:
    """Return key -> share of those keys at the ends that draw far more than the keys beside them."""
    near = SINK_KEYS + NEIGHBOURS
    columns, rows, even = np.zeros((2, near)), 0, 0.0
    for sample in samples:
        queries, keys = (int(n) for n in sample.array.shape)
        shift, length = keys - queries, sample.stop - sample.first
        q0 = max(0, sample.first + near - shift)  # queries that see all of the first keys
        q1 = sample.stop - shift
        if length < 3 * near or q1 <= q0:
            return {}
        some = slice(q0, q1, -(-(q1 - q0) // SINK_QUERIES))
        columns[0] += _column_sums(sample, some, sample.first, sample.first + near)
        columns[1] += _column_sums(sample, some, sample.stop - near, sample.stop)[::-1]
        seen = np.arange(q0, q1, some.step) + shift - sample.first + 1
        rows, even = rows + len(seen), even + float((1.0 / seen).sum())
    shares = {}
    for end, first in ((columns[0], 0), (columns[1], -1)):
        beside = float(np.median(end[SINK_KEYS:]))
        for key in range(SINK_KEYS):
            if end[key] > SINK_RATIO * max(beside, even / 2):
                shares[key if first == 0 else -1 - key] = float(end[key] / rows)
    return shares


def _column_sums(sample: Sample, queries: slice, k0: int, k1: int) -> Floats:
    """Return what some queries give to each of a few keys: the sums of the turned map's rows."""
    turned = sample.array[queries, k0:k1].T
    keys, n = (int(m) for m in turned.shape)
    mass, sides = np.empty((keys, -(-n // _LARGEST_BLOCK))), np.empty((keys, 4))
    bad = _core.tally(turned, _LARGEST_BLOCK, n, np.zeros(keys + n - 1), mass, sides)
    if bad is not None:
        _refuse(sample, bad[1] * queries.step + queries.start, bad[0] + k0)
    return np.asarray(sides[:, 0])


def shares_of(
    heads: Sequence[tuple[tuple[int, ...], list[Sample]]], leading: int, trailing: int
) -> list[dict[int, float]]:
    """Return key -> share of the weight, for so many keys at the start and at the end."""
    result = []
    for _, samples in heads:
        shares: dict[int, float] = {}
        rows = sum(int(sample.array.shape[0]) for sample in samples)
        for sample in samples:
            if leading + trailing > sample.stop - sample.first - 2:
                raise ValueError(f"sinks must leave at least two keys of {sample.stop - sample.first}")
            for key in (*range(leading), *range(-trailing, 0)):
                at = sample.first + key if key >= 0 else sample.stop + key
                weight = _column_sums(sample, slice(0, int(sample.array.shape[0]), 1), at, at + 1)
                shares[key] = shares.get(key, 0.0) + float(weight[0]) / rows
        result.append(shares)
    return result


def trailing_padding(heads: Sequence[tuple[tuple[int, ...], list[Sample]]]) -> int:
    """Return how many keys at the end get no weight at all, from any query of any map: padding that nobody named.

    More than half of the keys is no padding, but a map of a kind of its own.
    """
    found = 0
    shortest = min(sample.stop - sample.first for _, samples in heads for sample in samples)
    while found <= shortest // 2 and all(_is_idle(s, s.stop - 1 - found) for _, samples in heads for s in samples):
        found += 1
    return found if 2 * found <= shortest else 0


def _is_idle(sample: Sample, key: int) -> bool:
    return not _column_sums(sample, slice(0, int(sample.array.shape[0]), 1), key, key + 1).any()
