"""Ready tables, and rotations by them, as operators of torch: see `_rotary_ops`.

    posenc::apply_rotary      x by ready tables
    posenc::table_gradient    its gradient to the tables
    posenc::rotary_table      positions and frequencies to tables

A sum of products of x and its gradient is linear in both, and its derivatives are rotations by what stands for the
tables: there is no formula for them but these operators.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from posenc import _core, runtime
from posenc import _parameters as check
from posenc.tables import make_table
from posenc.torch import _formula
from posenc.torch._memory import fresh
from posenc.torch._transforms import aligned, differentiable, one_by_one

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
    """Return C's numbers of a rotation; those that learn leave float32 with the first step."""
    axes = None if axis_of_freq is None else np.array(axis_of_freq, np.int64)
    frequencies = check.rounded(plain(inv_freq).numpy(), "float32" if as_float32 else "exact")
    return _core.spec(np.ascontiguousarray(frequencies), axes, layout, head_dim, rotary_offset, scale, as_float32)


def count_axes(axis_of_freq: list[int] | None) -> int:
    """Return the number of position axes."""
    return 1 if axis_of_freq is None else max(axis_of_freq) + 1


# ---- posenc::apply_rotary, posenc::table_gradient ----


@torch.library.custom_op("posenc::apply_rotary", mutates_args=())
def _apply_rotary(
    x: Tensor, cos: Tensor, sin: Tensor, layout: int, rotary_offset: int, conjugate: bool, seq_axis: int
) -> Tensor:
    """Rotate by row j of the tables for token j."""
    x, tables = plain(x), (plain(cos), plain(sin))
    how = (layout, rotary_offset, conjugate)
    out = fresh(x)
    result = runtime.call(_core.apply, x, tables[0], tables[1], out, None, 0, seq_axis, *how)
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
    x, *pair = inputs[:3]
    ndim, rows = (
        x.ndim - (in_dims[0] is not None),
        max(t.ndim - (d is not None) for t, d in zip(pair, in_dims[1:3], strict=True)),
    )
    if all(dim is None for dim in in_dims[1:3]):
        return apply_rotary(x.movedim(in_dims[0], rows - 2), *inputs[1:]), rows - 2
    n = info.batch_size
    wide = aligned(x, in_dims[0], 0, ndim, n)
    tables = [aligned(t, dim, 0, rows, n) for t, dim in zip(pair, in_dims[1:3], strict=True)]
    if rows == 2:
        return apply_rotary(wide, *tables, *inputs[3:]), 0
    batch = wide.shape[1]  # whose rows have tables of their own: one axis with the batch
    tables = [t.expand(n, batch, *t.shape[2:]).flatten(0, 1) for t in tables]
    return apply_rotary(wide.flatten(0, 1), *tables, *inputs[3:]).unflatten(0, (n, batch)), 0


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
    cos, sin = (torch.zeros(shape, dtype=torch.float64 if wide else torch.float32, device="cpu") for _ in range(2))
    longer = shape[-2] - x.shape[seq_axis]  # rows that turned nothing
    rows = [t.narrow(-2, 0, t.shape[-2] - longer) for t in (cos, sin)] if longer > 0 else [cos, sin]
    how = (layout, rotary_offset, conjugate)
    runtime.call(_core.table_gradient, x, grad, rows[0], rows[1], seq_axis, *how)
    return cos, sin


@_table_gradient.register_fake
def _(x: Tensor, grad: Tensor, shape: list[int], wide: bool, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if wide else torch.float32
    return torch.empty(shape, dtype=dtype, device=x.device), torch.empty(shape, dtype=dtype, device=x.device)


def _keep_table_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.how = inputs[2:]
    ctx.save_for_backward(*inputs[:2])


def _table_gradient_backward(ctx: Any, of_cos: Tensor, of_sin: Tensor) -> tuple[Any, ...]:
    x, grad = ctx.saved_tensors
    _, _, layout, *_, conjugate, _ = ctx.how
    of_x = (
        _turned_alone(grad, of_cos, of_sin, TRANSPOSED[layout], not conjugate, ctx.how)
        if ctx.needs_input_grad[0]
        else None
    )
    of_grad = _turned_alone(x, of_cos, of_sin, layout, conjugate, ctx.how) if ctx.needs_input_grad[1] else None
    return of_x, of_grad, *[None] * len(ctx.how)


def _turned_alone(x: Tensor, cos: Tensor, sin: Tensor, layout: int, conjugate: bool, how: tuple[Any, ...]) -> Tensor:
    """Return the turned elements of x by what stands for tables, and zeros for those that do not turn."""
    shape, _, _, first, _, seq_axis = how
    end = min(first + 2 * shape[-1], x.shape[-1])
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    tables = cos.to(dtype), sin.to(dtype)
    turned = apply_rotary(x[..., first:end], *tables, layout, 0, conjugate, seq_axis)
    return pad(turned, (first, x.shape[-1] - end)) if turned.shape[-1] < x.shape[-1] else turned


def _vmap_table_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    x, shape, n = inputs[0], inputs[2], info.batch_size
    ndim = x.ndim - (in_dims[0] is not None)
    both = [aligned(t, dim, 0, ndim, n) for t, dim in zip(inputs[:2], in_dims[:2], strict=True)]
    if len(shape) == 2 or shape[0] == 1:
        found = table_gradient(*both, [n, *shape[-2:]], *inputs[3:])
        return tuple(t.unsqueeze(1) if len(shape) == 3 else t for t in found), (0, 0)
    found = table_gradient(*(t.flatten(0, 1) for t in both), [n * shape[0], *shape[1:]], *inputs[3:])
    return tuple(t.unflatten(0, (n, shape[0])) for t in found), (0, 0)


table_gradient = differentiable(_table_gradient, _keep_table_gradient, _table_gradient_backward, _vmap_table_gradient)


# ---- posenc::rotary_table ----


@torch.library.custom_op("posenc::rotary_table", mutates_args=())
def _rotary_table(
    positions: Tensor, inv_freq: Tensor, axis_of_freq: list[int] | None, scale: float, as_float32: bool, wide: bool
) -> tuple[Tensor, Tensor]:
    """Return tables of (seq, pairs) or (batch, seq, pairs)."""
    spec = make_spec(inv_freq, axis_of_freq, 0, 2 * len(inv_freq), 0, scale, as_float32)
    dtype = np.float64 if wide else np.float32
    return make_table(spec, plain(positions), dtype, None)


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
    """Batched positions are rows; batched frequencies one long row of them, cut again. Where both are, call by call."""
    positions, inv_freq, axis_of_freq, *how = inputs
    axes = int(count_axes(axis_of_freq) > 1)
    if in_dims[0] is not None and in_dims[1] is not None:
        return one_by_one(rotary_table, info, in_dims, inputs)  # type: ignore[no-any-return]
    if in_dims[1] is None:
        rows = positions.movedim(in_dims[0], axes)
        found = rotary_table(rows.flatten(axes, -2), inv_freq, axis_of_freq, *how)
        return tuple(t.unflatten(0, rows.shape[axes:-1]) for t in found), (0, 0)
    several = inv_freq.movedim(in_dims[1], 0)
    repeated = None if axis_of_freq is None else axis_of_freq * len(several)
    found = rotary_table(positions, several.flatten(), repeated, *how)
    return tuple(t.unflatten(-1, several.shape).movedim(-2, 0) for t in found), (0, 0)


rotary_table = differentiable(_rotary_table, _keep_table, _table_backward, _vmap_table)
