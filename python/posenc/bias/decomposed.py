"""Relative biases of images in two parts, of rows and of columns: SAM, ViTDet, MViTv2.

The bias of a query and a key at row k and column l of an image is rows[query, k] + columns[query, l].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, _views
from posenc import _parameters as check
from posenc.bias import _scores
from posenc.bias.windows import LARGEST_SIDE, sides_of

if TYPE_CHECKING:
    import numpy.typing as npt


def decomposed_index(query_len: int, key_len: int) -> npt.NDArray[np.int64]:
    """Return the row of a table of 2 * max(query_len, key_len) - 1 relative vectors, along one axis of an image.

    query - key + key_len - 1; where the lengths differ the shorter axis is stretched first, and the index truncated.

    Parameters
    ----------
    query_len, key_len : int

    Returns
    -------
    ndarray of int64, shape (query_len, key_len)

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    `get_rel_pos` of MViTv2, ViTDet and SAM, without the resizing of the table. In float32 as there: what is truncated
    may be an integer but for rounding.

    Examples
    --------
    >>> from posenc.bias import decomposed_index
    >>> decomposed_index(2, 2)
    array([[1, 0],
           [2, 1]])
    """
    queries = check.integer("query_len", query_len, 1, LARGEST_SIDE)
    keys = check.integer("key_len", key_len, 1, LARGEST_SIDE)
    other = max(queries / keys, 1.0)
    steps = [np.float32(step) for step in (max(keys / queries, 1.0), other, (keys - 1) * other)]
    stretched = np.arange(queries, dtype=np.float32)[:, None] * steps[0]
    return np.asarray((stretched - np.arange(keys, dtype=np.float32) * steps[1] + steps[2]).astype(np.int64))


def decomposed_bias(
    query: Any, rel_pos_h: Any, rel_pos_w: Any, query_size: tuple[int, int], key_size: tuple[int, int]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the two parts of SAM's bias: of the row and of the column of a key, for each query.

    The bias of query (h, w) and key (k, l) is rows[h, w, k] + columns[h, w, l].

    Parameters
    ----------
    query : array, shape (..., query_height * query_width, dim)
        float32 or float64.
    rel_pos_h, rel_pos_w : array, shape (2 * max(query side, key side) - 1, dim)
    query_size, key_size : (int, int)
        Heights and widths.

    Returns
    -------
    rows : ndarray, shape (..., query_height, query_width, key_height)
    columns : ndarray, shape (..., query_height, query_width, key_width)

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    `add_decomposed_rel_pos` of MViTv2 (Li et al., arXiv:2112.01526, equation 4), ViTDet and SAM. The products are
    NumPy's.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import decomposed_bias
    >>> rows, columns = decomposed_bias(np.ones((4, 1)), [[1.0], [2.0], [3.0]], [[0.0]] * 3, (2, 2), (2, 2))
    >>> rows[:, 0]
    array([[2., 1.],
           [3., 2.]])
    """
    sizes = [sides_of(name, size) for name, size in (("query_size", query_size), ("key_size", key_size))]
    x, tables = check.plain_array("query", query), [check.plain_array("rel_pos", t) for t in (rel_pos_h, rel_pos_w)]
    (height, width), key_sides = sizes
    if x.ndim < 2 or x.shape[-2] != height * width:
        raise ValueError(f"query must have shape (.., {height * width}, dim), got {x.shape}")
    x = x.reshape(*x.shape[:-2], height, width, x.shape[-1])
    chosen = []
    for name, side, keys, table in zip(("rel_pos_h", "rel_pos_w"), sizes[0], key_sides, tables, strict=True):
        wanted = (2 * max(side, keys) - 1, x.shape[-1])
        if table.shape != wanted:
            raise ValueError(f"{name} must have shape {wanted}, got {table.shape}; resize it first")
        chosen.append(table[decomposed_index(side, keys)])
    return np.einsum("...hwc,hkc->...hwk", x, chosen[0]), np.einsum("...hwc,wkc->...hwk", x, chosen[1])


def add_decomposed_bias(scores: Any, rows: Any, columns: Any, *, out: Any = None) -> Any:
    """Add SAM's bias to scores in one pass: y[query, (k, l)] = x + (rows[query, k] + columns[query, l]).

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., queries, key_height * key_width)
        float32, float64, float16 or bfloat16; any strides. queries is query_height * query_width.
    rows : array, shape (..., query_height, query_width, key_height)
        As `decomposed_bias` returns it, or the model's own product; any strides and any of the four dtypes. Leading
        axes fit those of the scores by broadcasting.
    columns : array, shape (..., query_height, query_width, key_width)
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores. The two parts are added, then their sum to the scores, each
        step rounded to float32 (float64 for float64 scores); 16-bit scores are rounded once more.

    Raises
    ------
    TypeError, ValueError, BufferError
        For arguments that do not fit; the message says what was expected and what came.

    Notes
    -----
    `SamVisionAttention` of transformers, whose sums these are; ViTDet and MViTv2 add rows and then columns, which
    rounds otherwise. No gradient is recorded: the one of rows is the sum of the result's over the columns of keys, the
    one of columns over the rows; docs/training.md has the sum in torch's operations.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_decomposed_bias
    >>> rows, columns = np.array([[[10.0, 20.0]]]), np.array([[[1.0, 2.0, 3.0]]])
    >>> add_decomposed_bias(np.zeros((1, 6), np.float32), rows, columns)
    array([[11., 12., 13., 21., 22., 23.]], dtype=float32)
    """
    shape, of_rows, of_columns = (_scores.shape_of(array) for array in (scores, rows, columns))
    if len(of_rows) < 3 or len(of_columns) < 3 or of_rows[-3:-1] != of_columns[-3:-1]:
        raise ValueError(
            "rows and columns must have shapes (.., query_height, query_width, key_height) and "
            f"(.., query_height, query_width, key_width), got {of_rows} and {of_columns}"
        )
    (height, width), keys = of_rows[-3:-1], (of_rows[-1], of_columns[-1])
    if len(shape) < 2 or shape[-2:] != (height * width, keys[0] * keys[1]):
        raise ValueError(
            f"scores must have shape (.., {height} * {width}, {keys[0]} * {keys[1]}), "
            f"got {shape or check.shown(scores)}"
        )
    apart = (*shape[:-2], height, width, shape[-1])
    result = _core.empty_like(scores) if out is None else out
    x = _views.sliceable(scores).reshape(apart)
    y = x
    if out is not scores:
        own = _scores.shape_of(result)
        if own and own != shape:
            raise ValueError(f"out must have the shape of scores, {shape}, got {own}")
        y = _views.sliceable(result).reshape(apart) if own else result  # C says what is wrong with that
    where = _scores.where_of(apart, None, None)
    _scores.add(x, y, where, _scores.mask_of(False, None, 0), (rows, columns, None, 0, 1.0, "g"))
    return result
