"""Biases as functions: recorded by autograd, or in place for inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc import _parameters as check
from posenc import bias
from posenc.bias.transformer_xl import causal_of, origin_of
from posenc.torch import _arguments, _bias, _content_ops
from posenc.torch._bias_place import mask_of, place_of
from posenc.torch._rotary import has_kernels


def add_alibi(
    scores: Tensor,
    slopes: Tensor,
    *,
    form: str = "distance",
    right_slopes: Tensor | None = None,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    offset: Any = None,
    attention_mask: Any = None,
) -> Tensor:
    """Add ALiBi to scores, as `posenc.add_alibi` does; differentiable in scores and slopes.

    Parameters
    ----------
    scores : Tensor, shape (..., heads, queries, keys)
    slopes, right_slopes : Tensor, shape (heads,) or (batch, heads)
    form, causal, window, sinks
        As in `posenc.add_alibi`.
    query_positions, key_positions, offset, attention_mask
        As in `posenc.torch.ALiBi.forward`.

    Returns
    -------
    Tensor
        New, like scores.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.add_alibi`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> slopes = torch.tensor([0.5, 0.25], requires_grad=True)
    >>> posenc.torch.add_alibi(torch.zeros(2, 3, 3), slopes).sum().backward()
    >>> slopes.grad.tolist()
    [-8.0, -8.0]
    """
    check.choice("form", form, ("distance", "key"))
    if right_slopes is not None and form == "key":
        raise ValueError("right_slopes need form 'distance': a key's position has no side")
    right = {} if right_slopes is None else {"right_slopes": right_slopes}
    _arguments.tensors(slopes=slopes, **right)
    mask = mask_of(causal, window, sinks)
    place = place_of(scores, mask, query_positions, key_positions, offset, attention_mask)
    return _bias.add_lines(scores, slopes, right_slopes, form, place)


def add_t5_bias(
    scores: Tensor,
    table: Tensor,
    *,
    bidirectional: bool,
    max_distance: int = 128,
    order: str = "buckets_heads",
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    offset: Any = None,
    attention_mask: Any = None,
) -> Tensor:
    """Add T5's bias to scores, as `posenc.bias.add_t5_bias` does; differentiable in scores and table.

    Parameters
    ----------
    scores : Tensor, shape (..., heads, queries, keys)
    table : Tensor, shape (num_buckets, heads), or (heads, num_buckets) as order says
    bidirectional, max_distance, order, causal, window, sinks
        As in `posenc.bias.add_t5_bias`.
    query_positions, key_positions, offset, attention_mask
        As in `posenc.torch.ALiBi.forward`.

    Returns
    -------
    Tensor
        New, like scores.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.bias.add_t5_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> table = torch.zeros(4, 1, requires_grad=True)
    >>> posenc.torch.add_t5_bias(torch.zeros(1, 2, 3), table, bidirectional=False).sum().backward()
    >>> table.grad[:, 0].tolist()
    [3.0, 2.0, 1.0, 0.0]
    """
    _arguments.tensors(table=table)
    entries = table.mT if check.choice("order", order, ("buckets_heads", "heads_buckets")) == "buckets_heads" else table
    index, low = _bias.t5_index(bidirectional, entries.shape[-1], max_distance)
    mask = mask_of(causal, window, sinks)
    place = place_of(scores, mask, query_positions, key_positions, offset, attention_mask)
    return _bias.add_by_distance(scores, entries, index, low, place)


def add_disentangled_bias(
    scores: Tensor,
    *,
    c2p: Tensor | None = None,
    p2c: Tensor | None = None,
    num_buckets: int | None = None,
    max_distance: int = 512,
    beyond: str = "transformers",
    scale: float = 1.0,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    offset: Any = None,
    attention_mask: Any = None,
) -> Tensor:
    """Add DeBERTa's relative terms to scores; differentiable in scores, c2p and p2c, any number of times.

    Parameters
    ----------
    scores : Tensor, shape (..., heads, queries, keys)
    c2p, p2c : Tensor, shape (..., queries, 2 * span) and (..., keys, 2 * span), optional
    num_buckets, max_distance, beyond, scale, causal, window, sinks
        As in `posenc.bias.add_disentangled_bias`.
    query_positions, key_positions, offset, attention_mask
        As in `posenc.torch.ALiBi.forward`.

    Returns
    -------
    Tensor
        New, like scores.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.bias.add_disentangled_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> c2p = torch.zeros(2, 4, requires_grad=True)
    >>> posenc.torch.add_disentangled_bias(torch.zeros(2, 3), c2p=c2p).sum().backward()
    >>> c2p.grad.tolist()
    [[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 2.0]]
    """
    if c2p is None and p2c is None:
        raise ValueError("c2p or p2c must be given")
    _arguments.tensors(**{name: x for name, x in (("c2p", c2p), ("p2c", p2c)) if x is not None})
    mask = mask_of(causal, window, sinks)
    place = place_of(scores, mask, query_positions, key_positions, offset, attention_mask)
    how = (num_buckets, max_distance, beyond, _arguments.number("scale", scale))
    if has_kernels(scores):
        return _content_ops.add_disentangled(scores, c2p, p2c, *place, *how)  # type: ignore[no-any-return]
    return _content_ops.disentangled_formula(scores, c2p, p2c, place, *how)


def add_transformer_xl_bias(
    scores: Tensor,
    q: Tensor,
    r: Tensor,
    v: Tensor | None = None,
    *,
    convention: str = "transformer_xl",
    scale: float = 1.0,
    causal: bool | str | None = None,
    window: Any = None,
    sinks: int = 0,
) -> Tensor:
    """Add Transformer-XL's term BD to scores; differentiable in scores, q, r and v, any number of times.

    Parameters
    ----------
    scores : Tensor, shape (..., heads, queries, keys)
    q : Tensor, shape (..., heads, queries, head_dim)
    r : Tensor, shape (..., heads, distances, head_dim)
    v : Tensor, shape (..., heads, 1, head_dim), optional
    convention, scale, causal, window, sinks
        As in `posenc.bias.add_transformer_xl_bias`.

    Returns
    -------
    Tensor
        New, like scores.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.bias.add_transformer_xl_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> q, r = torch.ones(2, 1, requires_grad=True), torch.tensor([[3.0], [2.0], [1.0]], requires_grad=True)
    >>> posenc.torch.add_transformer_xl_bias(torch.zeros(2, 3), q, r).sum().backward()
    >>> q.grad.flatten().tolist(), r.grad.flatten().tolist()
    ([3.0, 6.0], [1.0, 2.0, 2.0])
    """
    _arguments.tensors(scores=scores, q=q, r=r, **({} if v is None else {"v": v}))
    shape = tuple(scores.shape)
    if min(len(shape), q.ndim, r.ndim) < 2:
        shapes = f"{shape}, {tuple(q.shape)} and {tuple(r.shape)}"
        raise ValueError(f"scores, q and r must have two axes at least, got shapes {shapes}")
    rows, factor = r.shape[-2], _arguments.number("scale", scale)
    origin = origin_of(rows, shape[-2], shape[-1], convention, "r")
    mask = mask_of(causal_of(causal, rows, origin, shape, "r"), window, sinks)
    if v is not None:  # gradients of v are those of q + v, summed
        q = q.expand(torch.broadcast_shapes(q.shape, v.shape))  # type: ignore[no-untyped-call]
    if has_kernels(scores):
        return _content_ops.add_products(scores, q, r, v, mask, convention, factor)  # type: ignore[no-any-return]
    return _content_ops.products_formula(scores, q, r, v, mask, convention, factor)


# ---- in place ----


def add_alibi_(scores: Tensor, slopes: Any, **options: Any) -> Tensor:
    """Add ALiBi to scores in place: for inference.

    Parameters
    ----------
    scores, slopes, **options
        As in `posenc.add_alibi`.

    Returns
    -------
    Tensor
        scores itself.

    Raises
    ------
    RuntimeError
        Where scores or slopes require a gradient. A tensor that autograd has saved for something else makes that
        backward pass raise.
    TypeError, ValueError
        As in `posenc.add_alibi`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> scores = torch.zeros(1, 2, 2)
    >>> posenc.torch.add_alibi_(scores, [0.5], causal=True) is scores
    True
    """
    _refuse("add_alibi", scores=scores, slopes=slopes, right_slopes=options.get("right_slopes"))
    return bias.add_alibi(scores, slopes, **options, out=scores)  # type: ignore[no-any-return]


def add_t5_bias_(scores: Tensor, table: Tensor, **options: Any) -> Tensor:
    """Add T5's bias to scores in place: for inference.

    Parameters
    ----------
    scores, table, **options
        As in `posenc.bias.add_t5_bias`.

    Returns
    -------
    Tensor
        scores itself.

    Raises
    ------
    RuntimeError
        As in `add_alibi_`.
    TypeError, ValueError
        As in `posenc.bias.add_t5_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> scores = torch.zeros(1, 2, 2)
    >>> posenc.torch.add_t5_bias_(scores, torch.ones(8, 1), bidirectional=True) is scores
    True
    """
    _refuse("add_t5_bias", scores=scores, table=table)
    return bias.add_t5_bias(scores, table, **options, out=scores)  # type: ignore[no-any-return]


def add_disentangled_bias_(
    scores: Tensor, *, c2p: Tensor | None = None, p2c: Tensor | None = None, **options: Any
) -> Tensor:
    """Add DeBERTa's relative terms to scores in place: for inference.

    Parameters
    ----------
    scores, c2p, p2c, **options
        As in `posenc.bias.add_disentangled_bias`.

    Returns
    -------
    Tensor
        scores itself.

    Raises
    ------
    RuntimeError
        As in `add_alibi_`.
    TypeError, ValueError
        As in `posenc.bias.add_disentangled_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> scores = torch.zeros(1, 2, 2)
    >>> posenc.torch.add_disentangled_bias_(scores, c2p=torch.ones(1, 2, 4)) is scores
    True
    """
    _refuse("add_disentangled_bias", scores=scores, c2p=c2p, p2c=p2c)
    return bias.add_disentangled_bias(scores, c2p=c2p, p2c=p2c, **options, out=scores)  # type: ignore[no-any-return]


def add_transformer_xl_bias_(scores: Tensor, q: Tensor, r: Tensor, v: Tensor | None = None, **options: Any) -> Tensor:
    """Add Transformer-XL's term BD to scores in place: for inference.

    Parameters
    ----------
    scores, q, r, v, **options
        As in `posenc.bias.add_transformer_xl_bias`.

    Returns
    -------
    Tensor
        scores itself.

    Raises
    ------
    RuntimeError
        As in `add_alibi_`.
    TypeError, ValueError
        As in `posenc.bias.add_transformer_xl_bias`.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> scores = torch.zeros(1, 2, 2)
    >>> posenc.torch.add_transformer_xl_bias_(scores, torch.ones(1, 2, 4), torch.ones(1, 2, 4)) is scores
    True
    """
    _refuse("add_transformer_xl_bias", scores=scores, q=q, r=r, v=v)
    return bias.add_transformer_xl_bias(scores, q, r, v, **options, out=scores)  # type: ignore[no-any-return]


def _refuse(function: str, **arguments: Any) -> None:
    for name, x in arguments.items():
        if isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(f"{name} requires grad, which is not recorded in place; use posenc.torch.{function}")
