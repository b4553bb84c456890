"""The rotation as operators of torch: what torch.compile, autograd, vmap and fake tensors see is one opaque call each.

    posenc::rotate            x by positions and frequencies
    posenc::rotate_gradient   its gradient to frequencies and positions
    posenc::apply_rotary      x by ready tables
    posenc::table_gradient    its gradient to the tables
    posenc::rotary_table      positions and frequencies to tables

Their kernels are those of `posenc` itself and take CPU tensors. The gradient to x is the same operator, transposed, and
so are all its own gradients. Derivatives of the two gradient operators go through a plain formula.

A seq_axis is negative here, an axis_of_freq a list of integers, positions float64 or integers, frequencies float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc import _core, _split, runtime
from posenc.tables import make_table
from posenc.torch import _formula
from posenc.torch._memory import fresh
from posenc.torch._transforms import differentiable, one_by_one

TRANSPOSED = (0, 1, 3, 2)  # of a layout's code


def plain(x: Tensor) -> Tensor:
    """Return the tensor as C takes it: nothing to record, no sign pending."""
    return x.detach().resolve_neg()


def make_spec(
    inv_freq: Tensor,
    axis_of_freq: list[int] | None,
    layout: int,
    head_dim: int,
    rotary_offset: int,
    scale: float,
    as_float32: bool,
) -> Any:
    """Return C's numbers of a rotation."""
    axes = None if axis_of_freq is None else np.array(axis_of_freq, np.int64)
    frequencies = np.ascontiguousarray(plain(inv_freq).numpy())
    return _core.spec(frequencies, axes, layout, head_dim, rotary_offset, scale, as_float32)


def count_axes(axis_of_freq: list[int] | None) -> int:
    """Return the number of position axes."""
    return 1 if axis_of_freq is None else max(axis_of_freq) + 1


# ---- posenc::rotate ----


@torch.library.custom_op("posenc::rotate", mutates_args=())
def _rotate(
    x: Tensor,
    inv_freq: Tensor,
    positions: Tensor | None,
    offset: int,
    axis_of_freq: list[int] | None,
    layout: int,
    rotary_offset: int,
    scale: float,
    as_float32: bool,
    seq_axis: int,
) -> Tensor:
    """Rotate."""
    spec = make_spec(inv_freq, axis_of_freq, layout, x.shape[-1], rotary_offset, scale, as_float32)
    x, positions = plain(x), None if positions is None else plain(positions)
    return rotate_plain(spec, count_axes(axis_of_freq), x, positions, offset, seq_axis)


def rotate_plain(spec: Any, axes: int, x: Tensor, positions: Tensor | None, offset: int, seq_axis: int) -> Tensor:
    """Rotate a plain CPU tensor."""
    out = fresh(x)
    result = _core.rotate(spec, x, None, out, positions, offset, seq_axis, runtime.SPLIT_BYTES, False)
    if type(result) is int:
        result = _split.rotate(spec, axes, x, None, out, positions, offset, seq_axis, result)
    return result  # type: ignore[no-any-return]


@_rotate.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _keep_rotate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, inv_freq, positions, *how = inputs
    needs = inv_freq.requires_grad or (positions is not None and positions.requires_grad)
    ctx.how = how
    ctx.save_for_backward(x if needs else None, inv_freq, positions)


def _rotate_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, inv_freq, positions = ctx.saved_tensors
    offset, axis_of_freq, layout, rotary_offset, scale, as_float32, seq_axis = ctx.how
    of_x = of_frequencies = of_positions = None
    if ctx.needs_input_grad[0]:
        turned = (TRANSPOSED[layout], rotary_offset, scale, as_float32, seq_axis)
        of_x = rotate(grad, -inv_freq, positions, offset, axis_of_freq, *turned)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        of_frequencies, of_positions = rotate_gradient(x, grad, inv_freq, positions, *ctx.how)
    return (
        of_x,
        of_frequencies if ctx.needs_input_grad[1] else None,
        of_positions if ctx.needs_input_grad[2] else None,
        *[None] * len(ctx.how),
    )


def _vmap_rotate(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """Where x alone is batched its batch is one more axis; rows of positions belong to the first."""
    x, _, positions, _, axis_of_freq, *_ = inputs
    if any(dim is not None for dim in in_dims[1:3]):
        return one_by_one(rotate, info, in_dims, inputs)  # type: ignore[no-any-return]
    at = int(positions is not None and positions.ndim == 2 + (count_axes(axis_of_freq) > 1))
    return rotate(x.movedim(in_dims[0], at), *inputs[1:]), at


rotate = differentiable(_rotate, _keep_rotate, _rotate_backward, _vmap_rotate)


# ---- posenc::rotate_gradient ----


@torch.library.custom_op("posenc::rotate_gradient", mutates_args=())
def _rotate_gradient(
    x: Tensor,
    grad: Tensor,
    inv_freq: Tensor,
    positions: Tensor | None,
    offset: int,
    axis_of_freq: list[int] | None,
    layout: int,
    rotary_offset: int,
    scale: float,
    as_float32: bool,
    seq_axis: int,
) -> tuple[Tensor, Tensor]:
    """Return float64 gradients of inv_freq, and of positions where those are floats (else an empty tensor)."""
    spec = make_spec(inv_freq, axis_of_freq, layout, x.shape[-1], rotary_offset, scale, as_float32)
    x, grad, where = plain(x), plain(grad), None if positions is None else plain(positions)
    axes, of_frequencies = count_axes(axis_of_freq), np.zeros(len(inv_freq))
    total, of_positions = None, torch.empty(0, dtype=torch.float64)
    if where is not None and where.is_floating_point():
        of_positions = torch.zeros(where.shape, dtype=torch.float64)
        rows = (axes, where.shape[-2] if where.ndim == 2 + (axes > 1) else 1, where.shape[-1])
        total = of_positions.view(rows).numpy()
    arguments = (x, grad, where, offset, seq_axis, of_frequencies, total)
    nbytes = _core.rotate_gradient(spec, *arguments, 0)
    if nbytes is not None:
        _split.rotate_gradient(spec, axes, *arguments, nbytes)
    return torch.from_numpy(of_frequencies), of_positions


@_rotate_gradient.register_fake
def _(
    x: Tensor, grad: Tensor, inv_freq: Tensor, positions: Tensor | None, offset: int, *_: Any
) -> tuple[Tensor, Tensor]:
    floats = positions is not None and positions.is_floating_point()
    shape = positions.shape if positions is not None and floats else (0,)
    return torch.empty_like(inv_freq), torch.empty(shape, dtype=torch.float64, device=x.device)


def _keep_all(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors = 4 if len(inputs) == 11 else 2
    ctx.save_for_backward(*inputs[:tensors])
    ctx.how = inputs[tensors:]


def _rotate_gradient_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    x, grad, inv_freq, positions = ctx.saved_tensors
    floats = positions is not None and positions.is_floating_point()
    if not floats:
        grads = (grads[0], torch.zeros(0, dtype=torch.float64))

    def found(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        where = tensors[3] if floats else positions
        return _formula.rotate_gradient(tensors[0], tensors[1], tensors[2], where, *ctx.how)

    inputs = (x, grad, inv_freq, positions) if floats else (x, grad, inv_freq)
    pull: Any = torch.func.vjp(found, *inputs)[1]
    wanted = pull(grads)
    return (*wanted, *[None] * (len(ctx.how) + (not floats)))


def _vmap_rotate_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    return one_by_one(rotate_gradient, info, in_dims, inputs)  # type: ignore[no-any-return]


rotate_gradient = differentiable(_rotate_gradient, _keep_all, _rotate_gradient_backward, _vmap_rotate_gradient)


# ---- posenc::apply_rotary, posenc::table_gradient ----


@torch.library.custom_op("posenc::apply_rotary", mutates_args=())
def _apply_rotary(
    x: Tensor, cos: Tensor, sin: Tensor, layout: int, rotary_offset: int, conjugate: bool, seq_axis: int
) -> Tensor:
    """Rotate by row j of the tables for token j."""
    x, tables = plain(x), (plain(cos), plain(sin))
    how = (layout, rotary_offset, conjugate)
    out = fresh(x)
    result = _core.apply(x, tables[0], tables[1], out, None, 0, seq_axis, *how, runtime.SPLIT_BYTES, False)
    if type(result) is int:
        result = _split.apply(x, tables, out, None, 0, seq_axis, how, result)
    return result  # type: ignore[no-any-return]


@_apply_rotary.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _keep_apply(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, cos, sin = inputs[:3]
    ctx.how = inputs[3:]
    ctx.save_for_backward(x if cos.requires_grad or sin.requires_grad else None, cos, sin)


def _apply_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, cos, sin = ctx.saved_tensors
    layout, rotary_offset, conjugate, seq_axis = ctx.how
    of_x, of_tables = None, (None, None)
    if ctx.needs_input_grad[0]:
        of_x = apply_rotary(grad, cos, sin, TRANSPOSED[layout], rotary_offset, not conjugate, seq_axis)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        of_tables = table_gradient(x, grad, list(cos.shape), cos.dtype == torch.float64, *ctx.how)
    return (of_x, *of_tables, *[None] * 4)


def _vmap_apply(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    x, cos, *_ = inputs
    if any(dim is not None for dim in in_dims[1:3]):
        return one_by_one(apply_rotary, info, in_dims, inputs)  # type: ignore[no-any-return]
    return apply_rotary(x.movedim(in_dims[0], cos.ndim - 2), *inputs[1:]), cos.ndim - 2


apply_rotary = differentiable(_apply_rotary, _keep_apply, _apply_backward, _vmap_apply)


@torch.library.custom_op("posenc::table_gradient", mutates_args=())
def _table_gradient(
    x: Tensor,
    grad: Tensor,
    shape: list[int],
    wide: bool,
    layout: int,
    rotary_offset: int,
    conjugate: bool,
    seq_axis: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of cos and sin, of this shape, float32 or float64."""
    x, grad = plain(x), plain(grad)
    cos, sin = (torch.zeros(shape, dtype=torch.float64 if wide else torch.float32) for _ in range(2))
    longer = shape[-2] - x.shape[seq_axis]  # rows that turned nothing
    rows = [t.narrow(-2, 0, t.shape[-2] - longer) for t in (cos, sin)] if longer > 0 else [cos, sin]
    how = (layout, rotary_offset, conjugate)
    nbytes = _core.table_gradient(x, grad, rows[0], rows[1], seq_axis, *how, runtime.SPLIT_BYTES)
    if nbytes is not None:
        _split.table_gradient(x, grad, (rows[0], rows[1]), seq_axis, how, nbytes)
    return cos, sin


@_table_gradient.register_fake
def _(x: Tensor, grad: Tensor, shape: list[int], wide: bool, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if wide else torch.float32
    return torch.empty(shape, dtype=dtype, device=x.device), torch.empty(shape, dtype=dtype, device=x.device)


def _table_gradient_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    pull: Any = torch.func.vjp(lambda x, grad: _formula.table_gradient(x, grad, *ctx.how), *ctx.saved_tensors)[1]
    return (*pull(grads), *[None] * len(ctx.how))


def _vmap_table_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    return one_by_one(table_gradient, info, in_dims, inputs)  # type: ignore[no-any-return]


table_gradient = differentiable(_table_gradient, _keep_all, _table_gradient_backward, _vmap_table_gradient)


# ---- posenc::rotary_table ----


@torch.library.custom_op("posenc::rotary_table", mutates_args=())
def _rotary_table(
    positions: Tensor, inv_freq: Tensor, axis_of_freq: list[int] | None, scale: float, as_float32: bool, wide: bool
) -> tuple[Tensor, Tensor]:
    """Return tables of (seq, pairs) or (batch, seq, pairs)."""
    spec = make_spec(inv_freq, axis_of_freq, 0, 2 * len(inv_freq), 0, scale, as_float32)
    dtype = np.float64 if wide else np.float32
    return make_table(spec, count_axes(axis_of_freq), plain(positions), dtype, None)


@_rotary_table.register_fake
def _(
    positions: Tensor, inv_freq: Tensor, axis_of_freq: list[int] | None, scale: float, as_float32: bool, wide: bool
) -> tuple[Tensor, Tensor]:
    rows = positions.shape if count_axes(axis_of_freq) == 1 else positions.shape[1:]
    dtype, shape = torch.float64 if wide else torch.float32, (*rows, inv_freq.shape[0])
    return positions.new_empty(shape, dtype=dtype), positions.new_empty(shape, dtype=dtype)


def _keep_table(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.axis_of_freq, ctx.how = inputs[2], inputs[3:]
    ctx.save_for_backward(*inputs[:2], *output)


def _table_backward(ctx: Any, of_cos: Tensor, of_sin: Tensor) -> tuple[Any, ...]:
    positions, inv_freq, cos, sin = ctx.saved_tensors
    of_angles = cos.double() * of_sin.double() - sin.double() * of_cos.double()
    grads = _formula.angles_backward(of_angles, positions, inv_freq, ctx.axis_of_freq)
    of_positions = grads[1] if positions.is_floating_point() else None
    return (of_positions, grads[0], None, *[None] * len(ctx.how))


def _vmap_table(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    return one_by_one(rotary_table, info, in_dims, inputs)  # type: ignore[no-any-return]


rotary_table = differentiable(_rotary_table, _keep_table, _table_backward, _vmap_table)
