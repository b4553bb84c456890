"""T5's relative biases: a value for each bucket of distances and each head (Raffel et al., arXiv:1910.10683)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import _views
from posenc.bias import _scores

if TYPE_CHECKING:
    import numpy.typing as npt

#: order of a table -> the letters of its axes in C: n the bucket, h the head
ORDERS = {"buckets_heads": "nh", "heads_buckets": "hn"}
LARGEST_DISTANCE = 1 << 24


def t5_bucket(
    relative_position: Any, bidirectional: bool = True, num_buckets: int = 32, max_distance: int = 128
) -> npt.NDArray[np.int64]:
    """Return the bucket of each relative position, by exact integer arithmetic.

    With n buckets for a direction, e = n // 2 and d the distance: bucket d where d < e; else e + floor(ln(d/e) /
    ln(max_distance/e) * (n - e)), at most n - 1. Bidirectional: n = num_buckets // 2, and keys after the query take the
    second n. Else n = num_buckets, and keys after the query are at distance 0.

    Parameters
    ----------
    relative_position : array_like of int
        Key position - query position, in tokens.
    bidirectional : bool
        True in encoders, False in decoders.
    num_buckets, max_distance : int
        32 and 128 in every published T5. max_distance is beyond the exact buckets and at most 2**24.

    Returns
    -------
    ndarray of int64, of the shape of relative_position

    Raises
    ------
    TypeError, ValueError
        For positions that are no integers, for fewer than 2 buckets (4 if bidirectional), and for a max_distance that
        is not beyond e.

    Notes
    -----
    `T5Attention._relative_position_bucket` of transformers, whose names these are; its float32 logarithm finds the same
    buckets (tests/test_t5_bias.py).

    Examples
    --------
    >>> from posenc.bias import t5_bucket
    >>> t5_bucket([-200, -20, -3, 0, 3, 20])
    array([15, 10,  3,  0, 19, 26])
    """
    bounds = _bounds(bidirectional, num_buckets, max_distance)
    u = check.integers("relative_position", relative_position)
    steps = np.array(bounds)
    before = np.searchsorted(steps, np.maximum(-u, 0), side="right")
    if not bidirectional:
        return np.asarray(before)
    after = np.searchsorted(steps, np.maximum(u, 0), side="right") + num_buckets // 2
    return np.asarray(np.where(u > 0, after, before))


def _bounds(bidirectional: Any, num_buckets: Any, max_distance: Any) -> tuple[int, ...]:
    """Check, and return the smallest distance of each bucket of a direction but the first."""
    both = check.flag("bidirectional", bidirectional)
    buckets = check.integer("num_buckets", num_buckets, 4 if both else 2, 1 << 16) // (2 if both else 1)
    exact = buckets // 2
    name = f"max_distance with {exact} exact distances"
    return _distances(buckets, check.integer(name, max_distance, exact + 1, LARGEST_DISTANCE))


@lru_cache(maxsize=64)
def _distances(buckets: int, max_distance: int) -> tuple[int, ...]:
    """Return the smallest distance of each bucket but the first.

    ln(d/e) / ln(D/e) * m >= t is d**m >= D**t * e**(m - t), in integers.
    """
    exact = buckets // 2
    width = buckets - exact
    found = list(range(1, exact + 1))
    for t in range(1, width):
        bound = max_distance**t * exact ** (width - t)
        low, high = found[-1], max_distance  # low**m < bound <= high**m, unless low is enough already
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if middle**width >= bound else (middle + 1, high)
        found.append(low)
    return tuple(found)


def distance_index(bidirectional: bool, num_buckets: int, max_distance: int) -> tuple[npt.NDArray[np.int32], int]:
    """Return the bucket of each distance that is not clamped, int32, and the first of these distances."""
    # checked before it is looked up: 1 and 32.0 would find what is kept for True and 32
    reach = _bounds(bidirectional, num_buckets, max_distance)[-1]
    return _index(bool(bidirectional), int(num_buckets), int(max_distance), reach)


@lru_cache(maxsize=16)
def _index(bidirectional: bool, num_buckets: int, max_distance: int, reach: int) -> tuple[npt.NDArray[np.int32], int]:
    index = t5_bucket(np.arange(-reach, reach + 1), bidirectional, num_buckets, max_distance).astype(np.int32)
    index.flags.writeable = False
    return index, -reach


def table_term(table: Any, bidirectional: bool, num_buckets: Any, max_distance: int, order: str) -> tuple[Any, ...]:
    """Return what C adds for a table."""
    roles = ORDERS[check.choice("order", order, ORDERS)]
    axis = roles.index("n")
    shape = _scores.shape_of(table)
    rows = shape[axis] if len(shape) == 2 else 0
    if num_buckets is None:
        if len(shape) != 2:
            raise ValueError(f"table must have two axes, {order}, got shape {shape}")
        num_buckets = rows
    index, low = distance_index(bidirectional, num_buckets, max_distance)
    if rows != num_buckets:
        raise ValueError(
            f"table must have {num_buckets} buckets along axis {axis} for order {order!r}, got shape {shape}"
        )
    return table, roles, index, low, 1.0


def add_t5_bias(
    scores: Any,
    table: Any,
    *,
    bidirectional: bool,
    num_buckets: int | None = None,
    max_distance: int = 128,
    order: str = "buckets_heads",
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Add T5's bias to scores in one pass: table[bucket(key - query), head], looked up on the way.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        float32, float64, float16 or bfloat16; any strides.
    table : NumPy array or torch CPU tensor, shape (num_buckets, heads)
        Any of the four dtypes, any strides; read as float32 (float64 for float64 scores).
    bidirectional : bool
        True in encoders, False in decoders; no default, since both fit every table.
    num_buckets : int, optional
        Default: those of the table. Another number is an error.
    max_distance : int
    order : {"buckets_heads", "heads_buckets"}
        Of the table's axes: transformers, or T5X, whose table is (heads, num_buckets).
    causal, window, sinks
        Masks in the same pass, see `mask_scores`.
    query_positions, key_positions : array_like of int, shape (queries,), (keys,) or (batch, ..), optional
        In tokens. Default: keys from 0 on, and queries at the last of the keys, as a cache has them.
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores.

    Raises
    ------
    TypeError, ValueError, BufferError
        For arguments that do not fit; the message says what was expected and what came.

    Notes
    -----
    T5 does not divide its scores by the square root of head_dim. Its first layer owns the table and all layers add the
    same bias; UMT5 has a table for each layer. Cross-attention has none.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_t5_bias
    >>> table = np.arange(32, dtype=np.float32)[:, None]
    >>> add_t5_bias(np.zeros((1, 2, 4), np.float32), table, bidirectional=True)
    array([[[ 2.,  1.,  0., 17.],
            [ 3.,  2.,  1.,  0.]]], dtype=float32)
    """
    term = table_term(table, bidirectional, num_buckets, max_distance, order)
    return _scores.add_made(scores, out, lambda *_: term, (causal, window, sinks), (query_positions, key_positions))


def t5_bias(
    table: Any,
    query_len: int,
    key_len: int,
    *,
    bidirectional: bool,
    num_buckets: int | None = None,
    max_distance: int = 128,
    order: str = "buckets_heads",
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
) -> Any:
    """Return T5's bias as an array: what `add_t5_bias` adds to scores of zeros.

    Parameters
    ----------
    table, bidirectional, num_buckets, max_distance, order, causal, window, sinks, query_positions, key_positions
        As in `add_t5_bias`.
    query_len, key_len : int
        Numbers of queries and keys (`compute_bias` of transformers, without its leading axis of length 1).
    dtype : float32, float64, float16 or bfloat16
        Of a new array.
    out : array, optional
        Where to write, of the shape below.

    Returns
    -------
    array, shape (heads, query_len, key_len) or (batch, heads, query_len, key_len)
        `out` where given. The latter shape where positions have batch rows.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `add_t5_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import t5_bias
    >>> t5_bias(np.ones((32, 8), np.float32), 3, 5, bidirectional=False).shape
    (8, 3, 5)
    """
    term = table_term(table, bidirectional, num_buckets, max_distance, order)
    positions = (query_positions, key_positions)
    rows = _views.batch_rows(*positions)
    masks, heads = (causal, window, sinks), _scores.shape_of(table)[term[1].index("h")]
    return _scores.dense_of_heads(heads, (query_len, key_len), rows, (dtype, out), term, masks, positions)
