"""One large call becomes the same call on slices, for worker threads.

C has checked the whole call before it comes here, so a slice cannot fail halfway.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from posenc import _core, runtime


def cut(array: Any, axis: int, start: int, stop: int) -> Any:
    """Return array[start:stop] along an axis: a view, for NumPy and torch alike."""
    return array[(slice(None),) * (axis % array.ndim) + (slice(start, stop),)]


def sliceable(array: Any) -> Any:
    """Return what can be sliced: the array, or NumPy's view of one that only has __dlpack__."""
    return array if hasattr(array, "ndim") else np.from_dlpack(array)


class Slices(NamedTuple):
    """How a call is cut: `parts` along an axis of `length`."""

    axis: int
    length: int
    along_seq: bool
    threads: int
    parts: int

    def run(self, call: Callable[[int, int], object]) -> None:
        """Call `call(start, stop)` for every part."""
        step = max(1, -(-self.length // self.parts))
        runtime.run_parts(
            lambda part: call(part * step, min((part + 1) * step, self.length)),
            -(-self.length // step),
            self.threads,
        )


def slices_of(axis: int, length: int, along_seq: bool, nbytes: int, threads: int) -> Slices:
    """Cut into as many parts for each thread, none of them too large."""
    each = math.ceil(nbytes / (threads * runtime.SLICE_BYTES))
    return Slices(axis, length, along_seq, threads, threads * each)


def plan(arrays: Sequence[Any], seq_axis: int, nbytes: int, threads: int) -> Slices:
    """Cut along the sequence, or along the batch where that is longer and all arrays share it."""
    first = arrays[0]
    seq_axis %= first.ndim
    shared_batch = seq_axis > 0 and len({x.shape[0] for x in arrays}) == 1
    along_seq = not shared_batch or first.shape[seq_axis] >= first.shape[0]
    axis = seq_axis if along_seq else 0
    return slices_of(axis, first.shape[axis], along_seq, nbytes, threads)


def cut_positions(positions: Any, offset: Any, axes: int, along_seq: bool, start: int, stop: int) -> tuple[Any, Any]:
    """Return (positions, offset) for start:stop of the sequence, or of the batch."""
    if positions is None:
        return None, _cut_offset(offset, along_seq, start, stop)
    positions = positions if hasattr(positions, "ndim") else np.asarray(positions)
    if along_seq:
        return cut(positions, -1, start, stop), 0
    has_rows = positions.ndim == (3 if axes > 1 else 2) and positions.shape[-2] > 1
    return (cut(positions, -2, start, stop) if has_rows else positions), 0


def _cut_offset(offset: Any, along_seq: bool, start: int, stop: int) -> Any:
    try:
        single = operator.index(offset)
    except TypeError:
        rows = np.asarray(offset, np.int64)  # sums of narrow integers would wrap
        if along_seq:
            return rows + start
        return rows[start:stop] if len(rows) > 1 else rows
    return single + start if along_seq else single


def rotate(
    spec: Any,
    axes: int,
    q: Any,
    k: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    nbytes: int,
    core: Callable[..., Any] = _core.rotate,
) -> Any:
    """`core`, which is `_core.rotate` or `_core.rotate_onto`, in parts where there are threads for them."""
    threads = runtime.get_num_threads()
    if threads == 1:
        return core(spec, q, k, out, positions, offset, seq_axis, runtime.NEVER, False)
    inputs = [q] if k is None else [q, k]
    given = [None] * len(inputs) if out is None else [out] if k is None else list(out)
    outputs = [_core.empty_like(x) if y is None else y for x, y in zip(inputs, given, strict=True)]
    stream = nbytes > runtime.STREAM_BYTES
    sources, targets = [sliceable(x) for x in inputs], [sliceable(y) for y in outputs]
    slices = plan(sources, seq_axis, nbytes, threads)

    def part(start: int, stop: int) -> None:
        where, first = cut_positions(positions, offset, axes, slices.along_seq, start, stop)
        xs = [cut(x, slices.axis, start, stop) for x in sources]
        ys = [
            piece if y is x else cut(target, slices.axis, start, stop)
            for piece, x, y, target in zip(xs, inputs, outputs, targets, strict=True)
        ]
        second, results = (None, ys[0]) if k is None else (xs[1], ys)
        core(spec, xs[0], second, results, where, first, seq_axis, runtime.NEVER, stream)

    slices.run(part)
    return outputs[0] if k is None else tuple(outputs)


def over(
    x: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    nbytes: int,
    call: Callable[[Any, Any, Any, Any, bool, slice | None], Any],
) -> Any:
    """Make a call over one array in parts, where there are threads for them; positions on one axis.

    `call` gets (x, out, positions, offset, stream, rows): rows is which batch rows the part has, None for all of them.
    """
    threads = runtime.get_num_threads()
    if threads == 1:
        return call(x, out, positions, offset, False, None)
    y = _core.empty_like(x) if out is None else out
    stream = nbytes > runtime.STREAM_BYTES
    source, target = sliceable(x), sliceable(y)
    slices = plan([source], seq_axis, nbytes, threads)

    def part(start: int, stop: int) -> None:
        where, first = cut_positions(positions, offset, 1, slices.along_seq, start, stop)
        piece = cut(source, slices.axis, start, stop)
        result = piece if y is x else cut(target, slices.axis, start, stop)
        call(piece, result, where, first, stream, None if slices.along_seq else slice(start, stop))

    slices.run(part)
    return y


def apply(
    x: Any,
    tables: tuple[Any, Any],
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    how: tuple[int, int, bool],
    nbytes: int,
    core: Callable[..., Any] = _core.apply,
) -> Any:
    """`core`, which is `_core.apply` or `_core.apply_onto`, in parts where there are threads for them.

    `how` is (layout, rotary_offset, conjugate).
    """
    whole = (sliceable(tables[0]), sliceable(tables[1]))

    def call(x: Any, y: Any, where: Any, first: Any, stream: bool, rows: slice | None) -> Any:
        cos, sin = (t[rows] if rows is not None and t.ndim == 3 and t.shape[0] > 1 else t for t in whole)
        return core(x, cos, sin, y, where, first, seq_axis, *how, runtime.NEVER, stream)

    return over(x, out, positions, offset, seq_axis, nbytes, call)


def add(
    x: Any,
    table: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    how: tuple[float, int | None],
    nbytes: int,
) -> Any:
    """`_core.add`, in parts where there are threads for them; `how` is (scale, padding_idx)."""

    def call(x: Any, y: Any, where: Any, first: Any, stream: bool, rows: slice | None) -> Any:
        return _core.add(x, table, y, where, first, seq_axis, *how, runtime.NEVER, stream)

    return over(x, out, positions, offset, seq_axis, nbytes, call)


def add_sinusoid(
    made: tuple[Any, int],
    x: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    how: tuple[float, int | None],
    nbytes: int,
) -> Any:
    """`_core.add_sinusoid`, in parts where there are threads for them; `made` is (spec, order)."""

    def call(x: Any, y: Any, where: Any, first: Any, stream: bool, rows: slice | None) -> Any:
        return _core.add_sinusoid(*made, x, y, where, first, seq_axis, *how, runtime.NEVER, stream)

    return over(x, out, positions, offset, seq_axis, nbytes, call)


def scatter(
    grad: Any, out: Any, positions: Any, offset: Any, seq_axis: int, how: tuple[float, int | None], nbytes: int
) -> None:
    """`_core.scatter`, in parts of the columns: every column's sum is formed as in one call."""
    threads = runtime.get_num_threads() if nbytes > runtime.SPLIT_BYTES else 1
    source, target = sliceable(grad), sliceable(out)
    dim = source.shape[-1]
    step = -(-dim // threads)

    def part(i: int) -> None:
        columns = slice(i * step, (i + 1) * step)
        _core.scatter(source[..., columns], target[:, columns], positions, offset, seq_axis, *how, runtime.NEVER)

    runtime.run_parts(part, -(-dim // step), threads)


def table(spec: Any, axes: int, positions: Any, wide: bool, out: Any, nbytes: int) -> tuple[Any, Any]:
    """`_core.table`, in parts where there are threads for them."""

    def call(where: Any, out: Any, stream: bool) -> Any:
        return _core.table(spec, where, wide, out, runtime.NEVER, stream)

    cos, sin = _tables(call, 2, axes, positions, wide, out, nbytes)
    return cos, sin


def sinusoid(made: tuple[Any, int], positions: Any, wide: bool, out: Any, padding_idx: int | None, nbytes: int) -> Any:
    """`_core.sinusoid`, in parts where there are threads for them; `made` is (spec, order)."""

    def call(where: Any, out: Any, stream: bool) -> Any:
        result = _core.sinusoid(*made, where, wide, out and out[0], padding_idx, runtime.NEVER, stream)
        return (result,)

    return _tables(call, 1, 1, positions, wide, None if out is None else (out,), nbytes)[0]


def _tables(
    call: Callable[[Any, Any, bool], Any], count: int, axes: int, positions: Any, wide: bool, out: Any, nbytes: int
) -> tuple[Any, ...]:
    """Make `count` tables of positions by call(positions, out, stream), in parts where there are threads for them."""
    threads = runtime.get_num_threads()
    if threads == 1:
        return tuple(call(positions, out, False))
    if isinstance(positions, int):
        shape: tuple[int, ...] = (positions,)
    else:
        positions = positions if hasattr(positions, "ndim") else np.asarray(positions)
        shape = tuple(positions.shape[1:] if axes > 1 else positions.shape)
    if out is None:
        kind = np.dtype(np.float64 if wide else np.float32)
        columns = nbytes // (count * math.prod(shape) * kind.itemsize)
        out = tuple(np.empty((*shape, columns), kind) for _ in range(count))
    stream = nbytes > runtime.STREAM_TABLE_BYTES

    def part(start: int, stop: int) -> None:
        where = np.arange(start, stop) if isinstance(positions, int) else cut(positions, -1, start, stop)
        call(where, tuple(cut(table, -2, start, stop) for table in out), stream)

    slices_of(-1, shape[-1], True, nbytes, threads).run(part)
    return tuple(out)


#: A block of a sum is about so many bytes of its inputs, whatever the number of threads, and so are its bits.
BLOCK_BYTES = 2 << 20


def rotate_gradient(
    spec: Any,
    axes: int,
    x: Any,
    grad: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    inv_freq: Any,
    position_gradient: Any,
    nbytes: int,
) -> None:
    """Run `_core.rotate_gradient` block by block; the sums of the blocks are added in order."""
    source, change = sliceable(x), sliceable(grad)
    slices = plan([source], seq_axis, nbytes, 1)
    if (
        position_gradient is not None and position_gradient.shape[1] == 1
    ):  # shared by the batch: no two blocks add to one
        slices = slices._replace(axis=seq_axis % source.ndim, length=source.shape[seq_axis], along_seq=True)
    slices = slices._replace(threads=runtime.get_num_threads(), parts=max(1, -(-nbytes // BLOCK_BYTES)))
    sums: dict[int, Any] = {}

    def part(start: int, stop: int) -> None:
        where, first = cut_positions(positions, offset, axes, slices.along_seq, start, stop)
        total = None if inv_freq is None else np.zeros_like(inv_freq)
        target = position_gradient
        if target is not None:
            target = cut(target, 2 if slices.along_seq else 1, start, stop)
        xs = [cut(array, slices.axis, start, stop) for array in (source, change)]
        _core.rotate_gradient(spec, xs[0], xs[1], where, first, seq_axis, total, target, runtime.NEVER)
        sums[start] = total

    slices.run(part)
    for start in sorted(sums) if inv_freq is not None else ():
        inv_freq += sums[start]


def table_gradient(
    x: Any, grad: Any, tables: tuple[Any, Any], seq_axis: int, how: tuple[int, int, bool], nbytes: int
) -> None:
    """Run `_core.table_gradient`, in parts where there are threads for them: along the sequence, for rows add up."""
    threads = runtime.get_num_threads()
    source, change, (cos, sin) = sliceable(x), sliceable(grad), map(sliceable, tables)
    slices = slices_of(seq_axis % source.ndim, source.shape[seq_axis], True, nbytes, threads)

    def part(start: int, stop: int) -> None:
        xs = [cut(array, slices.axis, start, stop) for array in (source, change)]
        rows = [cut(table, -2, start, stop) for table in (cos, sin)]
        _core.table_gradient(xs[0], xs[1], rows[0], rows[1], seq_axis, *how, runtime.NEVER)

    slices.run(part)
