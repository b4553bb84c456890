"""Biases that content decides as operators of torch; see `_rotary_ops` for how they are made.

    posenc::add_disentangled        scores, and DeBERTa's entries of queries and keys
    posenc::disentangled_gradient   its gradients to both
    posenc::add_products            scores, and Transformer-XL's products of queries with the rows of distances
    posenc::products_gradient       its gradients to queries and rows

Every derivative of these is one of them again: an addition is linear in entries, and in queries and in rows; so are the
sums of gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc.bias import _relative
from posenc.bias.deberta import entries_of, index_of
from posenc.bias.transformer_xl import origin_of, products_of, relative_position_table
from posenc.torch._bias_ops import add_in_c, like_first, nothing_like
from posenc.torch._bias_place import Place, add_formula, positions_in, without_hidden, without_masked
from posenc.torch._table_ops import plain
from posenc.torch._transforms import aligned, differentiable, one_by_one


def _plain(x: Tensor | None) -> Tensor | None:
    return None if x is None else plain(x)


def _given(wanted: bool, x: Tensor | None, dtype: Any) -> Tensor | None:
    """Return a gradient in the dtype of what it belongs to, where it is asked for."""
    return x.to(dtype) if wanted and x is not None else None


# ---- DeBERTa ----


@torch.library.custom_op("posenc::add_disentangled", mutates_args=())
def _add_disentangled(
    scores: Tensor,
    c2p: Tensor | None,
    p2c: Tensor | None,
    query: Tensor | None,
    key: Tensor | None,
    first: int,
    mask: list[int],
    num_buckets: int | None,
    max_distance: int,
    beyond: str,
    scale: float,
) -> Tensor:
    """Add entries of queries and keys."""
    place, buckets = Place(query, key, first, mask), (num_buckets, max_distance, beyond)
    term = entries_of(tuple(scores.shape), place.where, _plain(c2p), _plain(p2c), buckets, scale)
    return add_in_c(scores, place, term)


_add_disentangled.register_fake(like_first)


def _keep_disentangled(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.shapes = [None if x is None else list(x.shape) for x in inputs[1:3]]
    ctx.dtypes = [None if x is None else x.dtype for x in inputs[1:3]]
    ctx.how = inputs[5:]
    ctx.save_for_backward(*inputs[3:5])


def _disentangled_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key = ctx.saved_tensors
    of_scores = without_hidden(grad, Place(query, key, *ctx.how[:2])) if ctx.needs_input_grad[0] else None
    found: tuple[Any, ...] = (None, None)
    if any(ctx.needs_input_grad[1:3]):
        sums = disentangled_gradient(grad, *ctx.shapes, query, key, *ctx.how)
        found = tuple(map(_given, ctx.needs_input_grad[1:3], sums, ctx.dtypes))
    return of_scores, *found, *[None] * 8


@torch.library.custom_op("posenc::disentangled_gradient", mutates_args=())
def _disentangled_gradient(
    grad: Tensor,
    c2p: list[int] | None,
    p2c: list[int] | None,
    query: Tensor | None,
    key: Tensor | None,
    first: int,
    mask: list[int],
    num_buckets: int | None,
    max_distance: int,
    beyond: str,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Return float64 gradients of c2p and p2c of these shapes; empty where there is none."""
    place, targets = Place(query, key, first, mask), [np.zeros(()) if s is None else np.zeros(s) for s in (c2p, p2c)]
    own = [t if s is not None else None for t, s in zip(targets, (c2p, p2c), strict=True)]
    term = entries_of(tuple(grad.shape), place.where, own[0], own[1], (num_buckets, max_distance, beyond), scale)
    _relative.sums(plain(grad), place.where, place.bounds, term, own[0], own[1])
    return torch.from_numpy(targets[0]), torch.from_numpy(targets[1])


@_disentangled_gradient.register_fake
def _(grad: Tensor, c2p: list[int] | None, p2c: list[int] | None, *_: Any) -> tuple[Tensor, Tensor]:
    first, second = (grad.new_empty(s or (), dtype=torch.float64) for s in (c2p, p2c))
    return first, second


def _keep_disentangled_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape, ctx.dtype, ctx.given, ctx.how = inputs[0].shape, inputs[0].dtype, inputs[1:3], inputs[5:]
    ctx.save_for_backward(*inputs[3:5])


def _disentangled_gradient_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    query, key = ctx.saved_tensors
    entries = [g if shape is not None else None for g, shape in zip(grads, ctx.given, strict=True)]
    added = add_disentangled(nothing_like(ctx.shape, ctx.dtype), *entries, query, key, *ctx.how)
    return without_masked(added, Place(query, key, *ctx.how[:2])), *[None] * 10


def disentangled_formula(
    scores: Tensor,
    c2p: Tensor | None,
    p2c: Tensor | None,
    place: Place,
    num_buckets: int | None,
    max_distance: int,
    beyond: str,
    scale: float,
) -> Tensor:
    """Add entries in torch's operations."""
    width = (p2c if c2p is None else c2p).shape[-1]  # type: ignore[union-attr]
    index, reach = index_of(width // 2, num_buckets, max_distance, beyond)
    entries = torch.from_numpy(index(np.arange(-reach, reach + 1))).to(scores.device)
    query, key = positions_in(scores.shape, place, scores.device)
    n = entries[(query - key).clamp(-reach, reach) + reach]
    n = n.expand(*scores.shape)
    terms = []
    if c2p is not None:
        terms.append(c2p.expand(*scores.shape[:-2], *c2p.shape[-2:]).gather(-1, n))
    if p2c is not None:
        terms.append(p2c.expand(*scores.shape[:-2], *p2c.shape[-2:]).gather(-1, n.mT).mT)
    wide = scores.dtype if scores.dtype == torch.float64 else torch.float32
    total = terms[0].to(wide) if len(terms) == 1 else terms[0].to(wide) + terms[1].to(wide)
    return add_formula(scores, scale * total, place)


# ---- Transformer-XL ----


@torch.library.custom_op("posenc::add_products", mutates_args=())
def _add_products(
    scores: Tensor, q: Tensor, r: Tensor, v: Tensor | None, mask: list[int], convention: str, scale: float
) -> Tensor:
    """Add the products of q + v with the row of the distance."""
    causal = _CAUSAL[mask[0]]
    term, _ = products_of(tuple(scores.shape), plain(q), plain(r), _plain(v), convention, scale, causal)
    return add_in_c(scores, ends_aligned(scores.shape, mask), term)


_CAUSAL = (False, True, "skip")


def ends_aligned(shape: Any, mask: list[int]) -> Place:
    """Return the place of queries that are the last of the keys."""
    return Place(None, None, shape[-1] - shape[-2], mask)


_add_products.register_fake(like_first)


def _keep_products(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.how = inputs[4:]
    ctx.save_for_backward(*inputs[1:4])


def _products_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    q, r, v = ctx.saved_tensors
    of_scores = without_hidden(grad, ends_aligned(grad.shape, ctx.how[0])) if ctx.needs_input_grad[0] else None
    found: tuple[Any, ...] = (None, None, None)
    if any(ctx.needs_input_grad[1:4]):
        of_q, of_r = products_gradient(grad, q, r, v, *ctx.how)
        of_v = None if v is None else of_q.sum_to_size(v.shape)
        dtypes = (q.dtype, r.dtype, None if v is None else v.dtype)
        found = tuple(map(_given, ctx.needs_input_grad[1:4], (of_q, of_r, of_v), dtypes))
    return of_scores, *found, None, None, None


@torch.library.custom_op("posenc::products_gradient", mutates_args=())
def _products_gradient(
    grad: Tensor, q: Tensor, r: Tensor, v: Tensor | None, mask: list[int], convention: str, scale: float
) -> tuple[Tensor, Tensor]:
    """Return float64 gradients of q + v and of r, of the shapes of q and r."""
    place, g = ends_aligned(grad.shape, mask), plain(grad)
    term, _ = products_of(tuple(grad.shape), plain(q), plain(r), _plain(v), convention, scale, _CAUSAL[mask[0]])
    of_q, of_r = np.zeros(tuple(q.shape)), np.zeros(tuple(r.shape))
    _relative.sums(g, place.where, place.bounds, term, of_q, of_r)
    return torch.from_numpy(of_q), torch.from_numpy(of_r)


@_products_gradient.register_fake
def _(grad: Tensor, q: Tensor, r: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape, dtype=torch.float64), r.new_empty(r.shape, dtype=torch.float64)


def _keep_products_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.shape, ctx.dtype, ctx.how = inputs[0].shape, inputs[0].dtype, inputs[4:]
    ctx.save_for_backward(*inputs[:4])


def _products_gradient_backward(ctx: Any, along_q: Tensor, along_r: Tensor) -> tuple[Any, ...]:
    grad, q, r, v = ctx.saved_tensors
    of_grad = of_q = of_r = of_v = None
    if ctx.needs_input_grad[0]:
        added = add_products(nothing_like(ctx.shape, ctx.dtype), along_q, r, None, *ctx.how)
        added = add_products(added, q, along_r, v, *ctx.how)
        of_grad = without_masked(added, ends_aligned(ctx.shape, ctx.how[0]))
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[3]:
        of_q = products_gradient(grad, q, along_r, None, *ctx.how)[0]
        of_v = None if v is None else of_q.sum_to_size(v.shape).to(v.dtype)
        of_q = of_q.to(q.dtype)
    if ctx.needs_input_grad[2]:
        of_r = products_gradient(grad, along_q, r, None, *ctx.how)[1].to(r.dtype)
    return of_grad, of_q, of_r, of_v, None, None, None


def products_formula(
    scores: Tensor, q: Tensor, r: Tensor, v: Tensor | None, mask: list[int], convention: str, scale: float
) -> Tensor:
    """Add products in torch's operations."""
    queries, keys, rows = scores.shape[-2], scores.shape[-1], r.shape[-2]
    wide = scores.dtype if scores.dtype == torch.float64 else torch.float32
    query = (q if v is None else q + v).to(wide)
    products = (query @ r.to(wide).mT).expand(*scores.shape[:-1], rows)
    place = ends_aligned(scores.shape, mask)
    where = positions_in(scores.shape, place, scores.device)
    n = (origin_of(rows, queries, keys, convention, "r") - (where[0] - where[1])).clamp(0, rows - 1)
    return add_formula(scores, scale * products.gather(-1, n.expand(scores.shape)), place)


# ---- the rows of distances ----


@torch.library.custom_op("posenc::relative_rows", mutates_args=())
def relative_rows(
    key_len: int, dim: int, query_len: int, convention: str, clamp_len: int | None, base: float, wide: bool
) -> Tensor:
    """Return `posenc.bias.relative_position_table`, float32, or float64 where wide."""
    dtype = np.float64 if wide else np.float32
    how: dict[str, Any] = {"query_len": query_len, "convention": convention, "clamp_len": clamp_len, "base": base}
    return torch.from_numpy(relative_position_table(key_len, dim, dtype=dtype, **how))


@relative_rows.register_fake
def _(
    key_len: int, dim: int, query_len: int, convention: str, clamp_len: int | None, base: float, wide: bool
) -> Tensor:
    rows = {"transformer_xl": key_len, "xlnet": key_len + query_len, "conformer": key_len + query_len - 1}[convention]
    return torch.empty((rows, dim), dtype=torch.float64 if wide else torch.float32, device="cpu")


# ---- batches under vmap: leading axes fit by broadcasting, so one more is one call ----


def _vmap_disentangled(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    at = _axis(inputs, in_dims)
    if at is None:
        return one_by_one(add_disentangled, info, in_dims, inputs)  # type: ignore[no-any-return]
    ndim = inputs[0].ndim - (in_dims[0] is not None)
    scores = aligned(inputs[0], in_dims[0], at, ndim, info.batch_size)
    entries = _all_aligned(inputs[1:3], in_dims[1:3], at, ndim)
    return add_disentangled(scores, *entries, *inputs[3:]), at


def _all_aligned(tensors: Any, dims: Any, at: int, ndim: int, batch: int = 1) -> list[Tensor | None]:
    return [None if x is None else aligned(x, dim, at, ndim, batch) for x, dim in zip(tensors, dims, strict=True)]


def _axis(inputs: tuple[Any, ...], in_dims: tuple[Any, ...]) -> int | None:
    """Return the axis of the batch: the second where positions have rows for the first; None where they are batched."""
    if in_dims[3] is not None or in_dims[4] is not None:
        return None
    return int(any(p is not None and p.ndim == 2 for p in inputs[3:5]))


def _vmap_disentangled_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    at = _axis(inputs, in_dims)
    if at is None:
        return one_by_one(disentangled_gradient, info, in_dims, inputs)  # type: ignore[no-any-return]
    ndim = inputs[0].ndim - (in_dims[0] is not None)
    grad = aligned(inputs[0], in_dims[0], at, ndim, info.batch_size)
    wide = [None if s is None else [1] * (ndim - len(s)) + list(s) for s in inputs[1:3]]
    shapes = [None if s is None else [*s[:at], info.batch_size, *s[at:]] for s in wide]
    found = disentangled_gradient(grad, *shapes, *inputs[3:])
    sums = [
        f.expand(info.batch_size) if s is None else f.movedim(at, 0).reshape(info.batch_size, *s)
        for f, s in zip(found, inputs[1:3], strict=True)
    ]
    return tuple(sums), (0, 0)


def _vmap_products(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    ndim = inputs[0].ndim - (in_dims[0] is not None)
    scores = aligned(inputs[0], in_dims[0], 0, ndim, info.batch_size)
    own = _all_aligned(inputs[1:4], in_dims[1:4], 0, ndim)
    return add_products(scores, *own, *inputs[4:]), 0


def _vmap_products_gradient(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
    ndim, n = inputs[0].ndim - (in_dims[0] is not None), info.batch_size
    grad = aligned(inputs[0], in_dims[0], 0, ndim, n)
    own = _all_aligned(inputs[1:4], in_dims[1:4], 0, ndim, n)
    found = products_gradient(grad, *own, *inputs[4:])
    shapes = [x.shape[1:] for x in _all_aligned(inputs[1:3], in_dims[1:3], 0, 0, n) if x is not None]
    return tuple(f.reshape(n, *shape) for f, shape in zip(found, shapes, strict=True)), (0, 0)


add_disentangled: Any = differentiable(
    _add_disentangled, _keep_disentangled, _disentangled_backward, _vmap_disentangled
)
disentangled_gradient: Any = differentiable(
    _disentangled_gradient,
    _keep_disentangled_gradient,
    _disentangled_gradient_backward,
    _vmap_disentangled_gradient,
)
add_products: Any = differentiable(_add_products, _keep_products, _products_backward, _vmap_products)
products_gradient: Any = differentiable(
    _products_gradient, _keep_products_gradient, _products_gradient_backward, _vmap_products_gradient
)
