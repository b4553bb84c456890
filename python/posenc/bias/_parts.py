"""One large call on scores becomes the same call on slices, for worker threads.

C has checked the whole call before it comes here, so a slice cannot fail halfway.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from posenc import _core, runtime
from posenc._split import cut, sliceable, slices_of


def add_bias(scores: Any, out: Any, where: Any, mask: Any, term: Any, nbytes: int) -> Any:
    """`_core.add_bias`, in parts where there are threads for them: along the batch, the heads or the queries."""
    threads = runtime.get_num_threads()
    if threads == 1:
        return _core.add_bias(scores, out, where, mask, term, runtime.NEVER, False)
    y = _core.empty_like(scores) if out is None else out
    source, target = None if scores is None else sliceable(scores), sliceable(y)
    axis = _bias_axis(target.shape, threads)
    slices = slices_of(axis, target.shape[axis], axis == -2, nbytes, threads)
    letter = "q" if axis == -2 else "h" if axis == -3 else "b" if target.ndim + axis == 0 else ""
    stream = nbytes > runtime.STREAM_BYTES

    def part(start: int, stop: int) -> None:
        piece = None if source is None else cut(source, axis, start, stop)
        result = piece if y is scores else cut(target, axis, start, stop)
        place = cut_where(where, letter, start, stop)
        relative = term is not None and len(term) == 6
        own = cut_relative(term, axis, start, stop) if relative else cut_term(term, letter, start, stop)
        _core.add_bias(piece, result, place, mask, own, runtime.NEVER, stream)

    slices.run(part)
    return y


def _bias_axis(shape: Sequence[int], threads: int) -> int:
    """Return the first axis that gives every thread a few parts, or the longest, counted from the end."""
    axes = range(-len(shape), -1)
    return next((axis for axis in axes if shape[axis] >= 4 * threads), max(axes, key=lambda axis: shape[axis]))


def cut_where(where: Any, letter: str, start: int, stop: int) -> Any:
    """Return (query positions, key positions, first query) of a part of the queries or of the batch."""
    query, key, first = where
    if letter == "q":
        return (None if query is None else cut(as_array(query), -1, start, stop)), key, first + start
    if letter == "b":
        query, key = (_cut_rows(positions, start, stop) for positions in (query, key))
    return query, key, first


def _cut_rows(positions: Any, start: int, stop: int) -> Any:
    if positions is None:
        return None
    positions = as_array(positions)
    return positions[start:stop] if positions.ndim == 2 and len(positions) > 1 else positions


def as_array(values: Any) -> Any:
    """Return an array or a tensor as it is, and anything else as an array."""
    return values if hasattr(values, "ndim") else np.asarray(values)


def cut_term(term: Any, letter: str, start: int, stop: int) -> Any:
    """Return the term of a part: of its batch rows, heads or queries."""
    if term is None or not letter:
        return term
    if len(term) == 2:
        slopes, of_key = term
        if letter == "h":
            return np.ascontiguousarray(slopes[:, start:stop]), of_key
        return (slopes[start:stop] if letter == "b" and len(slopes) > 1 else slopes), of_key
    table, roles, index, low, scale = term
    if letter in roles:
        table = cut(sliceable(table), roles.index(letter), start, stop)
    if letter == "q" and index.ndim == 2:
        index = index[start:stop]
    return table, roles, index, low, scale


def cut_relative(term: Any, axis: int, start: int, stop: int) -> Any:
    """Return the term of a part along an axis, counted from the end, of a bias that content decides.

    Its arrays fit the scores by broadcasting. Queries are cut in those that have a row for each of them: the first, and
    the second of a projection and of a grid.
    """
    *arrays, fourth, scale, kind = term
    cuts: list[Any] = list(arrays)
    for i in range(3 if kind == "p" else 2):
        array = arrays[i]
        if array is None or (axis == -2 and i >= (2 if kind in "pg" else 1)):
            continue
        array = sliceable(array)
        if array.ndim >= -axis and array.shape[axis] != 1:
            cuts[i] = cut(array, axis, start, stop)
    return *cuts, fourth, scale, kind


def batch_rows(*arrays: Any) -> int | None:
    """Return how many batch rows arguments have, or None where none has such an axis."""
    rows = [len(a) for a in map(as_array, arrays) if getattr(a, "ndim", 0) == 2]
    return max(rows) if rows else None
