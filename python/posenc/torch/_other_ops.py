"""Biases of scores and additions to embeddings as operators of torch; see `_rotary_ops` for how they are made.

posenc::add_alibi, posenc::alibi_gradient       scores and slopes
posenc::add_t5, posenc::t5_gradient             scores and T5's table
posenc::add_rows, posenc::rows_gradient         embeddings and a learned table
posenc::add_sinusoidal                          embeddings
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc import additive, bias
from posenc.bias import gradients
from posenc.torch._rotary_ops import plain
from posenc.torch._transforms import differentiable, one_by_one


def distances(shape: Any, device: Any) -> Tensor:
    """Return key minus query, (queries, keys), with the queries at the last of the keys."""
    queries, keys = int(shape[-2]), int(shape[-1])
    key, query = torch.arange(keys, device=device), torch.arange(queries, device=device)[:, None]
    return key - (query + keys - queries)


def _without_masked(grad: Tensor, causal: bool) -> Tensor:
    """Return the gradient of scores: none reaches what the mask wrote."""
    return grad.masked_fill(distances(grad.shape, grad.device) > 0, 0) if causal else grad.clone()


def _like_first(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _registered(operator: Any, keep: Any, backward: Any) -> Any:
    """Register an operator whose batches under vmap are called one by one."""

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return one_by_one(call, info, in_dims, inputs)

    call = differentiable(operator, keep, backward, rule)
    return call


def _keep_how(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.first, ctx.second = inputs[0].shape, inputs[1].shape
    ctx.how = inputs[2:]


def _keep_rest(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape, ctx.dtype, ctx.how = inputs[0].shape, inputs[0].dtype, inputs[1:]


# ---- ALiBi ----


@torch.library.custom_op("posenc::add_alibi", mutates_args=())
def _add_alibi(scores: Tensor, slopes: Tensor, form: str, causal: bool) -> Tensor:
    """Add ALiBi."""
    return bias.add_alibi(plain(scores), plain(slopes), form=form, causal=causal)  # type: ignore[no-any-return]


_add_alibi.register_fake(_like_first)


def _alibi_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    of_scores = _without_masked(grad, ctx.how[1]) if ctx.needs_input_grad[0] else None
    of_slopes = alibi_gradient(grad, *ctx.how) if ctx.needs_input_grad[1] else None
    return of_scores, of_slopes, None, None


add_alibi: Any = _registered(_add_alibi, _keep_how, _alibi_backward)


@torch.library.custom_op("posenc::alibi_gradient", mutates_args=())
def _alibi_gradient(grad: Tensor, form: str, causal: bool) -> Tensor:
    """Return the float64 gradient of the slopes, (heads,)."""
    return torch.from_numpy(gradients.of_slopes(plain(grad), form=form, causal=causal))


@_alibi_gradient.register_fake
def _(grad: Tensor, *_: Any) -> Tensor:
    return grad.new_empty(grad.shape[-3], dtype=torch.float64)


def alibi_line(shape: Any, form: str, device: Any) -> Tensor:
    """Return what a slope is multiplied by, (queries, keys) float64."""
    if form == "key":
        return torch.arange(shape[-1], device=device).double().expand(*shape[-2:])
    return -distances(shape, device).abs().double()


def _alibi_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    form, causal = ctx.how
    line = _without_masked(alibi_line(ctx.shape, form, grad.device), causal)
    return (grad[:, None, None] * line).expand(ctx.shape).to(ctx.dtype), None, None


alibi_gradient: Any = _registered(_alibi_gradient, _keep_rest, _alibi_gradient_backward)

# ---- T5 ----


@torch.library.custom_op("posenc::add_t5", mutates_args=())
def _add_t5(scores: Tensor, table: Tensor, bidirectional: bool, max_distance: int, causal: bool) -> Tensor:
    """Add T5's bias; the table is (buckets, heads)."""
    how: dict[str, Any] = {"bidirectional": bidirectional, "max_distance": max_distance, "causal": causal}
    return bias.add_t5_bias(plain(scores), plain(table), **how)  # type: ignore[no-any-return]


_add_t5.register_fake(_like_first)


def _t5_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    of_scores = _without_masked(grad, ctx.how[2]) if ctx.needs_input_grad[0] else None
    of_table = t5_gradient(grad, ctx.second[0], *ctx.how) if ctx.needs_input_grad[1] else None
    return of_scores, of_table, None, None, None


add_t5: Any = _registered(_add_t5, _keep_how, _t5_backward)


@torch.library.custom_op("posenc::t5_gradient", mutates_args=())
def _t5_gradient(grad: Tensor, num_buckets: int, bidirectional: bool, max_distance: int, causal: bool) -> Tensor:
    """Return the float64 gradient of the table, (buckets, heads)."""
    how: dict[str, Any] = {"bidirectional": bidirectional, "max_distance": max_distance, "causal": causal}
    return torch.from_numpy(gradients.of_t5_table(plain(grad), num_buckets=num_buckets, **how))


@_t5_gradient.register_fake
def _(grad: Tensor, num_buckets: int, *_: Any) -> Tensor:
    return grad.new_empty((num_buckets, grad.shape[-3]), dtype=torch.float64)


def t5_buckets(shape: Any, num_buckets: int, bidirectional: bool, max_distance: int) -> Tensor:
    """Return the bucket of every query and key, (queries, keys)."""
    how: dict[str, Any] = {"bidirectional": bidirectional, "num_buckets": num_buckets, "max_distance": max_distance}
    return torch.from_numpy(bias.t5_bucket(distances(shape, "cpu").numpy(), **how))


def _t5_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    num_buckets, bidirectional, max_distance, causal = ctx.how
    picked = grad[t5_buckets(ctx.shape, num_buckets, bidirectional, max_distance)].movedim(-1, 0)
    return _without_masked(picked, causal).expand(ctx.shape).to(ctx.dtype), *[None] * 4


t5_gradient: Any = _registered(_t5_gradient, _keep_rest, _t5_gradient_backward)

# ---- learned positions ----


@torch.library.custom_op("posenc::add_rows", mutates_args=())
def _add_rows(
    x: Tensor, table: Tensor, positions: Tensor | None, offset: int, table_scale: float, seq_axis: int
) -> Tensor:
    """Add table_scale * table[positions]."""
    where: dict[str, Any] = {"positions": positions, "offset": offset, "table_scale": table_scale, "seq_axis": seq_axis}
    return additive.add_positions(plain(x), plain(table), **where)  # type: ignore[no-any-return]


_add_rows.register_fake(_like_first)


def _keep_rows(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.rows, ctx.dtype, ctx.how = inputs[1].shape[0], inputs[1].dtype, inputs[3:]
    ctx.save_for_backward(inputs[2])


def _add_rows_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (positions,) = ctx.saved_tensors
    of_table = rows_gradient(grad, ctx.rows, positions, *ctx.how).to(ctx.dtype) if ctx.needs_input_grad[1] else None
    return grad.clone() if ctx.needs_input_grad[0] else None, of_table, *[None] * 4


add_rows: Any = _registered(_add_rows, _keep_rows, _add_rows_backward)


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
    nothing = torch.zeros(ctx.shape, dtype=ctx.dtype)
    return add_rows(nothing, grad.to(ctx.dtype), ctx.saved_tensors[0], *ctx.how), *[None] * 5


rows_gradient: Any = _registered(_rows_gradient, _keep_rows_gradient, _rows_gradient_backward)

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


_add_sinusoidal.register_fake(_like_first)


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _add_sinusoidal_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return grad.clone(), *[None] * 6


add_sinusoidal: Any = _registered(_add_sinusoidal, _keep_nothing, _add_sinusoidal_backward)
