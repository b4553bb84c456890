"""The backward pass of biases: gradients of ALiBi's slopes and of T5's table.

The gradient of the scores themselves is that of the result, but for what a mask wrote. Sums are float64, over keys,
queries and batch in an order that the shape alone decides: the same bits for any number of threads and any processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias import _scores
from posenc.bias.alibi import FORMS
from posenc.bias.t5 import ORDERS, distance_index

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["of_slopes", "of_t5_table"]


def of_slopes(
    grad: Any,
    *,
    form: str = "distance",
    per_batch: bool = False,
    sides: bool = False,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Return the gradient of the slopes of `add_alibi`, from that of its result.

    The sum over queries and keys, and over the batch, of -grad * distance, or of grad * key position for form "key".

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        The gradient of what `add_alibi` returned.
    form, causal, window, sinks, query_positions, key_positions
        Those of the forward call. What a mask wrote has no part.
    per_batch : bool
        Slopes of shape (batch, heads): a sum for each batch row.
    sides : bool
        right_slopes were given: a pair of gradients, of keys up to the query and of those after it.
    out : float64 array, or a pair of them with sides, optional
        What the gradient is added to.

    Returns
    -------
    ndarray of float64, shape (heads,) or (batch, heads), or a pair of them
        `out` where given.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import gradients
    >>> gradients.of_slopes(np.ones((1, 2, 3), np.float32))
    array([-5.])
    """
    of_key = check.choice("form", form, FORMS) == "key"
    if check.flag("sides", sides) and of_key:
        raise ValueError("sides need form 'distance': a key's position has no side")
    shape = _shape(grad)
    rows = shape[0] if check.flag("per_batch", per_batch) else 1
    if per_batch and len(shape) < 4:
        raise ValueError(
            f"grad must have shape (batch, .., heads, queries, keys) for slopes of batch rows, got {shape}"
        )
    slopes = np.zeros((rows, shape[-3], 2))
    slopes[..., 0] = -1.0  # whatever they are: C tells the two sides apart where they differ
    where = _scores.where_of(shape, query_positions, key_positions)
    sums = np.zeros_like(slopes)
    targets = _targets(out, (rows, shape[-3]) if per_batch else (shape[-3],), sides)
    _scores.gradient_sums(grad, where, _scores.mask_of(causal, window, sinks), (slopes, of_key), sums)
    before, after = sums[..., 0], sums[..., 1]
    with np.errstate(invalid="ignore"):  # infinite gradients are the caller's
        found = [-before, -after] if sides else [after - before if of_key else -(before + after)]
    for target, gradient in zip(targets, found, strict=True):
        target += gradient if per_batch else gradient[0]
    return tuple(targets) if sides else targets[0]


def of_t5_table(
    grad: Any,
    *,
    bidirectional: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
    order: str = "buckets_heads",
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Return the gradient of the table of `add_t5_bias`, from that of its result: each bucket's sum.

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        The gradient of what `add_t5_bias` returned.
    bidirectional, num_buckets, max_distance, order, causal, window, sinks, query_positions, key_positions
        Those of the forward call. What a mask wrote has no part.
    out : float64 array, optional
        What the gradient is added to.

    Returns
    -------
    ndarray of float64, shape (num_buckets, heads) or (heads, num_buckets), as order says
        `out` where given.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import gradients
    >>> gradients.of_t5_table(np.ones((1, 2, 3), np.float32), bidirectional=False, num_buckets=4)[:, 0]
    array([3., 2., 1., 0.])
    """
    buckets_first = check.choice("order", order, ORDERS) == "buckets_heads"
    index, low = distance_index(bidirectional, num_buckets, max_distance)
    shape = _shape(grad)
    where = _scores.where_of(shape, query_positions, key_positions)
    sums = np.zeros((shape[-3], num_buckets))
    (target,) = _targets(out, sums.T.shape if buckets_first else sums.shape, False)
    term = (np.broadcast_to(np.float64(0), sums.shape), "hn", index, low, 1.0)
    _scores.gradient_sums(grad, where, _scores.mask_of(causal, window, sinks), term, sums)
    target += sums.T if buckets_first else sums
    return target


def _shape(grad: Any) -> tuple[int, ...]:
    """Return the shape of a gradient of scores."""
    shape = _scores.shape_of(grad)
    if len(shape) < 3:
        raise ValueError(f"grad must have shape (.., heads, queries, keys), got {shape or check.shown(grad)}")
    return shape


def _targets(out: Any, shape: tuple[int, ...], pair: bool) -> list[npt.NDArray[np.float64]]:
    """Return what is added to: new zeros, or what was given."""
    if out is None:
        return [np.zeros(shape) for _ in range(2 if pair else 1)]
    given = list(out) if pair and isinstance(out, (tuple, list)) else [out]
    if pair and len(given) != 2:
        raise TypeError("out must be a pair of arrays, one for each side")
    for array in given:
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            raise TypeError(f"out must be a float64 array, got {check.shown(array)}")
        if array.shape != shape:
            raise ValueError(f"out must have shape {shape}, got {array.shape}")
        if not array.flags.writeable:
            raise BufferError("out is read-only")
    if pair and np.shares_memory(*given):
        raise ValueError("out[0] and out[1] overlap in memory")
    return given
