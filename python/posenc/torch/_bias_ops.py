"""Biases of scores as operators of torch; see `_rotary_ops` for how they are made.

    posenc::add_line        scores, and lines of the distance or of the key: ALiBi
    posenc::line_gradient   its gradient to the lines
    posenc::add_entries     scores, and an entry for each distance and head: T5, KERPLE
    posenc::entries_gradient    its gradient to the entries

What is added is linear in lines and entries, and sums of gradients are linear in the gradient: so the derivative of a
sum is the addition itself, to zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from posenc.bias import _scores
from posenc.torch._bias_place import Place, add_formula, positions_in, without_hidden, without_masked
from posenc.torch._memory import fresh
from posenc.torch._table_ops import plain
from posenc.torch._transforms import aligned, differentiable


def add_in_c(scores: Tensor, place: Place, term: Any) -> Tensor:
    """Add a term to scores out of place."""
    x = plain(scores)
    return _scores.add(x, fresh(x), place.where, place.bounds, term)  # type: ignore[no-any-return]


def like_first(x: Tensor, *_: Any) -> Tensor:
    """Return what the fake of an addition returns."""
    return torch.empty_like(x)


def nothing_like(shape: Any, dtype: torch.dtype) -> Tensor:
    """Return the scores that a derivative is added to."""
    return torch.zeros(shape, dtype=dtype, device="cpu")


# ---- lines ----


@torch.library.custom_op("posenc::add_line", mutates_args=())
def _add_line(
    scores: Tensor,
    lines: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    first: int,
    mask: list[int],
    of_key: bool,
) -> Tensor:
    """Add lines, (heads, 2) or (batch, heads, 2): what abs(u) is multiplied by where u < 0, and elsewhere."""
    factors = np.ascontiguousarray(plain(lines).double().numpy())
    factors = factors[None] if factors.ndim == 2 else factors
    if not np.isfinite(factors.astype(np.float32)).all():
        raise ValueError("slopes must be finite in float32")
    return add_in_c(scores, Place(query, key, first, mask), (factors, of_key))


_add_line.register_fake(like_first)


def _keep_line(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.shape, ctx.dtype, ctx.how = list(inputs[1].shape), inputs[1].dtype, inputs[4:]
    ctx.save_for_backward(*inputs[2:4])


def _line_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key = ctx.saved_tensors
    of_scores = without_hidden(grad, Place(query, key, *ctx.how[:2])) if ctx.needs_input_grad[0] else None
    of_lines = line_gradient(grad, ctx.shape, query, key, *ctx.how).to(ctx.dtype) if ctx.needs_input_grad[1] else None
    return of_scores, of_lines, *[None] * 5


@torch.library.custom_op("posenc::line_gradient", mutates_args=())
def _line_gradient(
    grad: Tensor, shape: list[int], query: Tensor | None, key: Tensor | None, first: int, mask: list[int], of_key: bool
) -> Tensor:
    """Return the float64 gradient of lines of this shape."""
    lines = np.zeros((shape[0] if len(shape) == 3 else 1, *shape[-2:]))
    lines[..., 0] = -1.0  # whatever they are: C tells the two sides apart where they differ
    sums, place = np.zeros_like(lines), Place(query, key, first, mask)
    _scores.gradient_sums(plain(grad), place.where, place.bounds, (lines, of_key), sums)
    return torch.from_numpy(sums.reshape(shape))


@_line_gradient.register_fake
def _(grad: Tensor, shape: list[int], *_: Any) -> Tensor:
    return grad.new_empty(shape, dtype=torch.float64)


def _keep_line_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.shape, ctx.dtype, ctx.how = inputs[0].shape, inputs[0].dtype, inputs[4:]
    ctx.save_for_backward(*inputs[2:4])


def _line_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key = ctx.saved_tensors
    added = add_line(nothing_like(ctx.shape, ctx.dtype), grad, query, key, *ctx.how)
    return without_masked(added, Place(query, key, *ctx.how[:2])), *[None] * 6


def line_formula(scores: Tensor, lines: Tensor, place: Place, of_key: bool) -> Tensor:
    """Add lines in torch's operations."""
    query, key = positions_in(scores.shape, place, scores.device)
    u = key + 0 * query if of_key else key - query
    left, right = (fitted(side, scores).float()[..., None, None] for side in lines.unbind(-1))
    return add_formula(scores, torch.where(u < 0, left, right) * u.abs(), place)


def fitted(rows: Tensor, scores: Tensor) -> Tensor:
    """Return (heads,), or (batch, heads) so that it fits the leading axes of scores."""
    rows = rows.to(scores.device)
    return rows if rows.ndim == 1 else rows.reshape(len(rows), *[1] * (scores.ndim - 4), rows.shape[1])


# ---- entries ----


@torch.library.custom_op("posenc::add_entries", mutates_args=())
def _add_entries(
    scores: Tensor,
    entries: Tensor,
    query: Tensor | None,
    key: Tensor | None,
    first: int,
    mask: list[int],
    index: Tensor,
    low: int,
) -> Tensor:
    """Add entries, (heads, n) or (batch, heads, n), number index[key - query - low], distances clamped to the index."""
    term = (plain(entries), "bhn"[-entries.ndim :], index.numpy(), low, 1.0)
    return add_in_c(scores, Place(query, key, first, mask), term)


_add_entries.register_fake(like_first)


def _keep_entries(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    entries = inputs[1]
    ctx.shape, ctx.dtype, ctx.how = list(entries.shape), entries.dtype, (*inputs[4:6], inputs[7])
    ctx.save_for_backward(inputs[2], inputs[3], inputs[6])


def _entries_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key, index = ctx.saved_tensors
    first, mask, low = ctx.how
    of_scores = without_hidden(grad, Place(query, key, first, mask)) if ctx.needs_input_grad[0] else None
    of_entries = None
    if ctx.needs_input_grad[1]:
        of_entries = entries_gradient(grad, ctx.shape, query, key, first, mask, index, low).to(ctx.dtype)
    return of_scores, of_entries, *[None] * 6


@torch.library.custom_op("posenc::entries_gradient", mutates_args=())
def _entries_gradient(
    grad: Tensor,
    shape: list[int],
    query: Tensor | None,
    key: Tensor | None,
    first: int,
    mask: list[int],
    index: Tensor,
    low: int,
) -> Tensor:
    """Return the float64 gradient of entries of this shape."""
    sums, place, g = np.zeros(shape), Place(query, key, first, mask), plain(grad)
    table = np.broadcast_to(np.float64(0), tuple(shape[-2:]))  # of which only the shape is read
    term = (table, "hn", index.numpy(), low, 1.0)
    if len(shape) == 2:
        _scores.gradient_sums(g, place.where, place.bounds, term, sums)
        return torch.from_numpy(sums)
    for i in range(shape[0]):
        rows = [p[i : i + 1] if p is not None and p.ndim == 2 and len(p) > 1 else p for p in place.where[:2]]
        _scores.gradient_sums(g[i : i + 1], (*rows, first), place.bounds, term, sums[i])
    return torch.from_numpy(sums)


@_entries_gradient.register_fake
def _(grad: Tensor, shape: list[int], *_: Any) -> Tensor:
    return grad.new_empty(shape, dtype=torch.float64)


def _keep_entries_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.shape, ctx.dtype, ctx.how = inputs[0].shape, inputs[0].dtype, (*inputs[4:6], inputs[7])
    ctx.save_for_backward(inputs[2], inputs[3], inputs[6])


def _entries_gradient_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    query, key, index = ctx.saved_tensors
    first, mask, low = ctx.how
    added = add_entries(nothing_like(ctx.shape, ctx.dtype), grad, query, key, first, mask, index, low)
    return without_masked(added, Place(query, key, first, mask)), *[None] * 7


def entries_formula(scores: Tensor, entries: Tensor, place: Place, index: Tensor, low: int) -> Tensor:
    """Add entries in torch's operations."""
    query, key = positions_in(scores.shape, place, scores.device)
    index = index.to(scores.device).long()
    n = index[(key - query - low).clamp(0, len(index) - 1)]  # (queries, keys), or with leading axes, 1 for heads
    picked = entries[:, n]
    return add_formula(scores, picked if n.ndim == 2 else picked.movedim(0, -3).squeeze(-4), place)


# ---- batches under vmap: always one call ----
#
# The batch becomes the first axis of scores; the second where rows of their own belong to the first; and one with the
# first where there are rows for both.


class _Batched:
    """Scores and positions of a call under vmap, with an axis for the batch."""

    def __init__(self, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...], taken: bool, wanted: bool) -> None:
        positions = [(inputs[i], in_dims[i]) for i in (2, 3)]
        wanted = wanted or any(dim is not None for _, dim in positions)
        taken = taken or any(p is not None and p.ndim - (dim is not None) == 2 for p, dim in positions)
        self.ndim, self.size = inputs[0].ndim - (in_dims[0] is not None), info.batch_size
        self.merged, self.at = taken and wanted, int(taken and not wanted)
        self.scores = aligned(inputs[0], in_dims[0], self.at, max(self.ndim, 3), self.size)
        self.length = self.scores.shape[1]
        if self.merged:
            self.scores = self.scores.flatten(0, 1)
        self.positions = [None if p is None else self.rows(p, dim, 1) for p, dim in positions]

    def rows(self, x: Tensor, dim: int | None, ndim_of_one: int) -> Tensor:
        """Return rows for the first axis of scores, of what has `ndim_of_one` axes where it serves all."""
        own = x if dim is None else x.movedim(dim, 0)
        if not self.merged or own.ndim == ndim_of_one:
            return own
        if dim is None:
            own = own.unsqueeze(0)
        elif own.ndim == 1 + ndim_of_one:
            own = own.unsqueeze(1)
        return own.expand(self.size, self.length, *own.shape[2:]).flatten(0, 1)


def _vmap_add(call: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """Batch an addition; lines and entries have two axes where they serve all."""
    rows, dim = inputs[1], in_dims[1]
    b = _Batched(info, in_dims, inputs, rows.ndim - (dim is not None) == 3, dim is not None)
    result = call(b.scores, b.rows(rows, dim, 2), *b.positions, *inputs[4:])
    if b.merged:
        result = result.unflatten(0, (b.size, b.length))
    return (result.squeeze(-3) if b.ndim == 2 else result), b.at


def _vmap_sum(call: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> Any:
    """Batch a sum of gradients, whose every element has rows of its own."""
    shape = inputs[1]
    own = len(shape) == 3
    b = _Batched(info, in_dims, inputs, own, True)
    result = call(b.scores, [len(b.scores), *shape[-2:]], *b.positions, *inputs[4:])
    if b.merged:
        result = result.unflatten(0, (b.size, b.length))
        result = result if own else result.sum(1)
    return result, 0


def _registered(operator: Any, keep: Any, backward: Any, batch: Any) -> Any:
    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return batch(call, info, in_dims, inputs)

    call = differentiable(operator, keep, backward, rule)
    return call


add_line: Any = _registered(_add_line, _keep_line, _line_backward, _vmap_add)
line_gradient: Any = _registered(_line_gradient, _keep_line_gradient, _line_gradient_backward, _vmap_sum)
add_entries: Any = _registered(_add_entries, _keep_entries, _entries_backward, _vmap_add)
entries_gradient: Any = _registered(_entries_gradient, _keep_entries_gradient, _entries_gradient_backward, _vmap_sum)
