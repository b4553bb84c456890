"""Additions to embeddings as operators of torch; see `_rotary_ops` for how they are made.

posenc::add_rows, posenc::rows_gradient         embeddings and a learned table
posenc::add_sinusoidal                          embeddings
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc import additive
from posenc.torch._bias_ops import like_first
from posenc.torch._table_ops import plain
from posenc.torch._transforms import aligned, differentiable, one_by_one


def _registered(operator: Any, keep: Any, backward: Any, positions_at: int) -> Any:
    """Register an operator, and its rule for vmap: one call where x and positions alone are batched.

    Tables of their own, and sums of gradients, are call by call.
    """

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        x, positions, dim = inputs[0], inputs[positions_at], in_dims[positions_at]
        others = [d for i, d in enumerate(in_dims) if i not in (0, positions_at) and not isinstance(d, (list, tuple))]
        if positions_at == 0 or any(d is not None for d in others):
            return one_by_one(call, info, in_dims, inputs)
        rows = None if positions is None else positions if dim is None else positions.movedim(dim, 0)
        at = int(dim is None and rows is not None and rows.ndim == 2)
        wide = aligned(x, in_dims[0], at, x.ndim - (in_dims[0] is not None), info.batch_size)
        batch = wide.shape[1]
        merged = rows is not None and rows.ndim == 3  # rows for the batch and for the first axis: one axis of both
        if merged:
            wide, rows = wide.flatten(0, 1), rows.expand(-1, batch, -1).flatten(0, 1)  # type: ignore[union-attr]
        result = call(wide, *(rows if i == positions_at else t for i, t in enumerate(inputs) if i))
        return result.unflatten(0, (info.batch_size, batch)) if merged else result, at

    call = differentiable(operator, keep, backward, rule)
    return call


# ---- learned positions ----


@torch.library.custom_op("posenc::add_rows", mutates_args=())
def _add_rows(
    x: Tensor, table: Tensor, positions: Tensor | None, offset: int, table_scale: float, seq_axis: int
) -> Tensor:
    """Add table_scale * table[positions]."""
    where: dict[str, Any] = {"positions": positions, "offset": offset, "table_scale": table_scale, "seq_axis": seq_axis}
    return additive.add_positions(plain(x), plain(table), **where)  # type: ignore[no-any-return]


_add_rows.register_fake(like_first)


def _keep_rows(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.rows, ctx.dtype, ctx.how = inputs[1].shape[0], inputs[1].dtype, inputs[3:]
    ctx.save_for_backward(inputs[2])


def _add_rows_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (positions,) = ctx.saved_tensors
    of_table = rows_gradient(grad, ctx.rows, positions, *ctx.how).to(ctx.dtype) if ctx.needs_input_grad[1] else None
    return grad.clone() if ctx.needs_input_grad[0] else None, of_table, *[None] * 4


add_rows: Any = _registered(_add_rows, _keep_rows, _add_rows_backward, 2)


@torch.library.custom_op("posenc::rows_gradient", mutates_args=())
def _rows_gradient(
    grad: Tensor, rows: int, positions: Tensor | None, offset: int, table_scale: float, seq_axis: int
) -> Tensor:
    """Return the gradient of a table, float32 (float64 for float64)."""
    where: dict[str, Any] = {"positions": positions, "offset": offset, "table_scale": table_scale, "seq_axis": seq_axis}
    return additive.position_table_gradient(plain(grad), rows, **where)  # type: ignore[no-any-return]


@_rows_gradient.register_fake
def _(grad: Tensor, rows: int, *_: Any) -> Tensor:
    wide = grad.dtype == torch.float64
    return grad.new_empty((rows, grad.shape[-1]), dtype=torch.float64 if wide else torch.float32)


def _keep_rows_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape, ctx.dtype, ctx.how = inputs[0].shape, inputs[0].dtype, inputs[3:]
    ctx.save_for_backward(inputs[2])


def _rows_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    nothing = torch.zeros(ctx.shape, dtype=ctx.dtype, device="cpu")
    return add_rows(nothing, grad.to(ctx.dtype), ctx.saved_tensors[0], *ctx.how), *[None] * 5


rows_gradient: Any = _registered(_rows_gradient, _keep_rows_gradient, _rows_gradient_backward, 0)

# ---- sinusoids ----


@torch.library.custom_op("posenc::add_sinusoidal", mutates_args=())
def _add_sinusoidal(
    x: Tensor,
    positions: Tensor | None,
    offset: int,
    convention: str,
    base: float,
    table_scale: float,
    seq_axis: int,
) -> Tensor:
    """Add sinusoids."""
    how: dict[str, Any] = {"convention": convention, "base": base, "table_scale": table_scale, "seq_axis": seq_axis}
    return additive.add_sinusoidal(plain(x), positions=positions, offset=offset, **how)  # type: ignore[no-any-return]


_add_sinusoidal.register_fake(like_first)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _add_sinusoidal_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return grad.clone(), *[None] * 6


add_sinusoidal: Any = _registered(_add_sinusoidal, _keep_nothing, _add_sinusoidal_backward, 1)
