"""Relative keys: rows of a learned table, chosen by a clipped distance (Shaw et al., arXiv:1803.02155).

In attention each query meets the table once, (queries, rows), and its products are gathered by distance: the gather of
`posenc.bias.add_disentangled_bias` with another index.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from posenc import _parameters as check
from posenc.bias import _relative, _scores

#: sign of (query - key) in the index
ORDERS = {"key_minus_query": -1, "query_minus_key": 1}
LARGEST = 1 << 24


def relative_key_index(
    relative_position: Any, left: int, right: int | None = None, *, order: str = "key_minus_query"
) -> npt.NDArray[np.int64]:
    """Return the row of a table of left + 1 + right relative vectors for each distance.

    Parameters
    ----------
    relative_position : array_like of int
        query - key.
    left, right : int
        The largest distance each way; right defaults to left. Rows go from -left to right: clip(d, -left, right) + left
        with d = key - query, or d = query - key, as `order` says.
    order : {"key_minus_query", "query_minus_key"}
        The first is Shaw's and wav2vec2-bert's (left and right `*_max_position_embeddings`); the second that of BERT's
        relative_key and relative_key_query, with left = max_position_embeddings - 1.

    Returns
    -------
    ndarray of int64

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> from posenc.bias import relative_key_index
    >>> relative_key_index([-3, 0, 1], 2), relative_key_index([-3, 0, 1], 2, order="query_minus_key")
    (array([4, 2, 1]), array([0, 2, 3]))
    """
    distance = check.integers("relative_position", relative_position)
    left, right = _reach(left, right)
    sign = ORDERS[check.choice("order", order, ORDERS)]
    return np.clip(sign * distance, -left, right) + left


def _reach(left: Any, right: Any) -> tuple[int, int]:
    left = check.integer("left", left, 0, LARGEST)
    return left, left if right is None else check.integer("right", right, 0, LARGEST)


def add_relative_keys(
    scores: Any,
    *,
    of_query: Any = None,
    of_key: Any = None,
    left: int,
    right: int | None = None,
    order: str = "key_minus_query",
    scale: float = 1.0,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Add relative keys to scores in one pass: y[i, j] = x[i, j] + scale * (of_query[i, n] + of_key[j, n]).

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
    of_query : array, shape (..., queries, left + 1 + right), optional
        Queries times the table ("relative_key").
    of_key : array, shape (..., keys, left + 1 + right), optional
        Keys times the table ("relative_key_query" has both).
    left, right, order
        As in `relative_key_index`, which is n.
    scale, causal, window, sinks, query_positions, key_positions, out
        As in `add_disentangled_bias`.

    Returns
    -------
    array
        `out` where given, else a new array like scores.

    Raises
    ------
    TypeError, ValueError, BufferError

    Notes
    -----
    No gradient is recorded, and posenc.torch has no twin.

    Shaw et al., equation 4, by the product first; modeling_wav2vec2_bert.py of transformers 5, and modeling_bert.py of
    transformers 4.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_relative_keys
    >>> add_relative_keys(np.zeros((2, 2), np.float32), of_query=np.array([[1.0, 2.0, 3.0]] * 2), left=1)
    array([[2., 3.],
           [1., 2.]], dtype=float32)
    """
    left, right = _reach(left, right)
    check.choice("order", order, ORDERS)
    if of_query is None and of_key is None:
        raise ValueError("of_query or of_key must be given")
    rows = left + 1 + right
    for name, array in (("of_query", of_query), ("of_key", of_key)):
        if array is not None and (_scores.shape_of(array) or (0,))[-1] != rows:
            raise ValueError(f"{name} must have {rows} entries in its last axis, got shape {_scores.shape_of(array)}")
    index, scale = partial(relative_key_index, left=left, right=right, order=order), check.finite("scale", scale)

    def term(shape: tuple[int, ...], where: _scores.Where) -> tuple[Any, ...]:
        return _relative.entries_term(of_query, of_key, index, max(left, right) + 1, where, shape, scale, "k")

    return _scores.add_made(scores, out, term, (causal, window, sinks), (query_positions, key_positions))
