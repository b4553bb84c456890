"""Attention sinks, and padding that nobody named: what single keys at the ends of a map draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from posenc import _core
from posenc.checks._maps import Sample
from posenc.checks._sums import LARGEST_BLOCK, refuse

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

#: keys at each end that may be sinks (Xiao et al., arXiv:2309.17453, find four), and keys that they are compared with
SINK_KEYS, NEIGHBOURS = 4, 8
#: a sink draws so many times the weight of its neighbours, and of what each key would draw of uniform rows
SINK_RATIO = 4.0
#: sinks are looked for in so many queries, evenly spaced
SINK_QUERIES = 256


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
    mass, sides = np.empty((keys, -(-n // LARGEST_BLOCK))), np.empty((keys, 4))
    bad = _core.tally(turned, LARGEST_BLOCK, n, np.zeros(keys + n - 1), mass, sides)
    if bad is not None:
        refuse(sample, bad[1] * queries.step + queries.start, bad[0] + k0)
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
