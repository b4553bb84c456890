"""The rotation as operators of torch: what torch.compile, autograd, vmap and fake tensors see is one opaque call each.

    posenc::rotate            x by positions and frequencies
    posenc::rotate_gradient   its gradient to frequencies and positions
    posenc::apply_rotary      x by ready tables
    posenc::table_gradient    its gradient to the tables
    posenc::rotary_table      positions and frequencies to tables

Their kernels are those of `posenc` itself and take CPU tensors. The gradient to x is the same operator, transposed, and
so are all its own gradients. Derivatives of the gradient operators are made of these operators too.

A seq_axis is negative here, an axis_of_freq a list of integers, positions float64 or integers, frequencies float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc import _core, runtime
from posenc.torch import _formula
from posenc.torch._memory import fresh
from posenc.torch._table_ops import (
    TRANSPOSED,
    apply_rotary,
    count_axes,
    make_spec,
    plain,
    rotary_table,
    table_gradient,
)
from posenc.torch._transforms import aligned, differentiable

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
    return runtime.call(_core.rotate, spec, x, None, fresh(x), positions, offset, seq_axis)  # type: ignore[no-any-return]


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
    """One call: the batch is the first axis, with rows of positions, or of tables where frequencies differ.

    Where x alone is batched its batch is one more axis; rows of positions belong to the first.
    """
    x, inv_freq, positions, offset, axis_of_freq, *how = inputs
    axes, n = int(count_axes(axis_of_freq) > 1), info.batch_size
    if in_dims[1] is not None:
        layout, rotary_offset, scale, as_float32, seq_axis = how
        where, dim = _formula.positions_of(positions, offset, x.shape[seq_axis]), in_dims[2]
        make = (axis_of_freq, scale, as_float32, x.dtype == torch.float64)

        def one(x: Tensor, inv_freq: Tensor, where: Tensor) -> Tensor:
            tables = rotary_table(where, inv_freq, *make)
            return apply_rotary(x, *tables, layout, rotary_offset, False, seq_axis)  # type: ignore[no-any-return]

        return torch.vmap(one, (in_dims[0], in_dims[1], dim))(x, inv_freq, where), 0
    if in_dims[2] is None:
        at = int(positions is not None and positions.ndim == 2 + axes)
        return rotate(x.movedim(in_dims[0], at), *inputs[1:]), at
    rows, wide = positions.movedim(in_dims[2], axes), aligned(x, in_dims[0], 0, x.ndim - (in_dims[0] is not None), n)
    if rows.ndim == 2 + axes:
        return rotate(wide, inv_freq, rows, *inputs[3:]), 0
    batch = wide.shape[1]  # whose rows have positions of their own: one axis with the batch
    rows = rows.expand(*rows.shape[: axes + 1], batch, rows.shape[-1]).flatten(axes, axes + 1)
    return rotate(wide.flatten(0, 1), inv_freq, rows, *inputs[3:]).unflatten(0, (n, batch)), 0


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
    total, of_positions = None, torch.empty(0, dtype=torch.float64, device="cpu")
    if where is not None and where.is_floating_point():
        of_positions = torch.zeros(where.shape, dtype=torch.float64, device="cpu")
        rows = (axes, where.shape[-2] if where.ndim == 2 + (axes > 1) else 1, where.shape[-1])
        total = of_positions.view(rows).numpy()
    arguments = (x, grad, where, offset, seq_axis, of_frequencies, total)
    runtime.call(_core.rotate_gradient, spec, *arguments)
    return torch.from_numpy(of_frequencies), of_positions


@_rotate_gradient.register_fake
def _(
    x: Tensor, grad: Tensor, inv_freq: Tensor, positions: Tensor | None, offset: int, *_: Any
) -> tuple[Tensor, Tensor]:
    floats = positions is not None and positions.is_floating_point()
    shape = positions.shape if positions is not None and floats else (0,)
    return torch.empty_like(inv_freq), torch.empty(shape, dtype=torch.float64, device=x.device)


def _keep_rotate_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.how = inputs[4:]
    ctx.save_for_backward(*inputs[:4])


def _composed(
    x: Tensor, grad: Tensor, inv_freq: Tensor, positions: Tensor | None, offset: int, *how: Any
) -> tuple[Tensor, Tensor]:
    """Return what rotate_gradient does, from the gradients of tables: nothing larger than tables is made."""
    axis_of_freq, layout, rotary_offset, scale, as_float32, seq_axis = how
    floats = positions is not None and positions.is_floating_point()
    where = _formula.positions_of(positions, offset, x.shape[seq_axis])
    cos, sin = rotary_table(where, inv_freq, axis_of_freq, 1.0, as_float32, True)
    of_cos, of_sin = table_gradient(x, grad, list(cos.shape), True, layout, rotary_offset, False, seq_axis)
    of_angles = scale * (cos * of_sin - sin * of_cos)
    of_frequencies, of_positions = _formula.angles_backward(of_angles, where, inv_freq, axis_of_freq)
    return of_frequencies, of_positions if floats else torch.zeros(0, dtype=torch.float64, device="cpu")


def _rotate_gradient_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """Pull back through what it is made of, for those that a gradient is wanted of."""
    tensors = ctx.saved_tensors
    wanted = [i for i, needs in enumerate(ctx.needs_input_grad[:4]) if needs]
    if tensors[3] is None or not tensors[3].is_floating_point():
        grads, wanted = (grads[0], torch.zeros(0, dtype=torch.float64, device="cpu")), [i for i in wanted if i < 3]

    def found(*chosen: Tensor) -> tuple[Tensor, Tensor]:
        own = dict(zip(wanted, chosen, strict=True))
        x, grad, inv_freq, positions = (own.get(i, tensor) for i, tensor in enumerate(tensors))
        return _composed(x, grad, inv_freq, positions, *ctx.how)

    pull: Any = torch.func.vjp(found, *(tensors[i] for i in wanted))[1]
    pulled = dict(zip(wanted, pull(grads), strict=True))
    return (*(pulled.get(i) for i in range(4)), *[None] * len(ctx.how))


def _vmap_rotate_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    """Each element of the batch has sums of its own: those of tables, which have rows for it."""
    tensors, dims, how = inputs[:4], in_dims[:4], inputs[4:]
    return torch.vmap(lambda *own: _composed(*own, *how), dims)(*tensors), (0, 0)


rotate_gradient = differentiable(
    _rotate_gradient, _keep_rotate_gradient, _rotate_gradient_backward, _vmap_rotate_gradient
)
