"""The backward pass of the biases that content decides: DeBERTa's, Transformer-XL's and relative keys.

The gradient of the scores themselves is that of the result. Sums are float64, in an order that the shape alone
decides: the same bits for any number of threads and any processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.bias import _relative, _scores
from posenc.bias.deberta import entries_of
from posenc.bias.transformer_xl import products_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

__all__ = ["of_disentangled", "of_transformer_xl"]


def of_disentangled(
    grad: Any,
    *,
    c2p_shape: tuple[int, ...] | None = None,
    p2c_shape: tuple[int, ...] | None = None,
    num_buckets: int | None = None,
    max_distance: int = 512,
    beyond: str = "transformers",
    scale: float = 1.0,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    c2p_out: Any = None,
    p2c_out: Any = None,
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.float64] | None]:
    """Return the gradients of c2p and p2c of `add_disentangled_bias`, from that of its result.

    Each entry gathers scale * grad of the scores it was added to.

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        The gradient of what `add_disentangled_bias` returned.
    c2p_shape, p2c_shape : tuple of int, optional
        The shapes of c2p and p2c; None for what was not given. Axes of length 1, and axes that are not there, are
        summed.
    num_buckets, max_distance, beyond, scale, causal, window, sinks, query_positions, key_positions
        Those of the forward call. What a mask wrote has no part.
    c2p_out, p2c_out : float64 array, optional
        What the gradients are added to.

    Returns
    -------
    (c2p_grad, p2c_grad)
        float64 arrays, the ones given where given; None for what was not given.

    Raises
    ------
    TypeError, ValueError, BufferError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import relative_gradients
    >>> c2p, p2c = relative_gradients.of_disentangled(np.ones((2, 3), np.float32), c2p_shape=(2, 4))
    >>> c2p
    array([[0., 1., 1., 1.],
           [0., 0., 1., 2.]])
    """
    shape = _scores.shape_of(grad)
    where = _scores.where_of(shape, query_positions, key_positions)
    outs = (c2p_out, p2c_out)
    targets = [
        None if wanted is None else _relative.target(name, out, _relative.summed_axes(tuple(wanted), shape[:-2]))
        for name, wanted, out in zip(("c2p_out", "p2c_out"), (c2p_shape, p2c_shape), outs, strict=True)
    ]
    _disjoint(targets)
    first, second = targets
    term = entries_of(shape, where, first, second, (num_buckets, max_distance, beyond), scale)
    _relative.sums(grad, where, _scores.mask_of(causal, window, sinks), term, first, second)
    return first, second


def of_transformer_xl(
    grad: Any,
    q: Any,
    r: Any,
    v: Any = None,
    *,
    convention: str = "transformer_xl",
    scale: float = 1.0,
    causal: bool | str | None = None,
    window: Any = None,
    sinks: int = 0,
    q_out: Any = None,
    r_out: Any = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the gradients of q + v and of r of `add_transformer_xl_bias`, from that of its result.

    That of q is the first; that of v is the first summed over the axes along which v is repeated.

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        The gradient of what `add_transformer_xl_bias` returned.
    q, r, v, convention, scale, causal, window, sinks
        Those of the forward call. What a mask wrote has no part.
    q_out, r_out : float64 array, optional
        What the gradients are added to, of the shapes of q and r.

    Returns
    -------
    (q_grad, r_grad)
        float64 arrays, the ones given where given.

    Raises
    ------
    TypeError, ValueError, BufferError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import relative_gradients
    >>> q, r = np.ones((2, 1)), np.array([[3.0], [2.0], [1.0]])
    >>> q_grad, r_grad = relative_gradients.of_transformer_xl(np.ones((2, 3)), q, r)
    >>> q_grad.ravel(), r_grad.ravel()
    (array([3., 6.]), array([1., 2., 2.]))
    """
    shape = _scores.shape_of(grad)
    where = _scores.where_of(shape, None, None)
    term, causal = products_of(shape, q, r, v, convention, scale, causal)
    targets = [
        _relative.target(name, out, _relative.summed_axes(_scores.shape_of(array), shape[:-2]))
        for name, array, out in (("q_out", q, q_out), ("r_out", r, r_out))
    ]
    _disjoint(targets)
    _relative.sums(grad, where, _scores.mask_of(causal, window, sinks), term, *targets)
    return targets[0], targets[1]


def _disjoint(targets: Sequence[npt.NDArray[np.float64] | None]) -> None:
    first, second = targets
    if first is not None and second is not None and np.shares_memory(first, second):
        raise ValueError("the two outputs overlap in memory")
