"""Transformer-XL's shift of products with the rows of distances: as a view, and added.

Models multiply the queries with all rows R first and then shift: `relative_shift` is that shift as a view, and
`add_relative_shift` adds what it shows.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import _views
from posenc.bias import _relative, _scores
from posenc.bias.transformer_xl import CONVENTIONS, causal_of, origin_of

if TYPE_CHECKING:
    import numpy.typing as npt


def relative_shift_valid(query_len: int, key_len: int) -> npt.NDArray[np.bool_]:
    """Return where the shift of Transformer-XL's own rows shows a product: keys up to the query, at their ends aligned.

    Parameters
    ----------
    query_len, key_len : int

    Returns
    -------
    ndarray of bool, shape (query_len, key_len)

    Examples
    --------
    >>> from posenc.bias import relative_shift_valid
    >>> relative_shift_valid(2, 3)
    array([[ True,  True, False],
           [ True,  True,  True]])
    """
    queries, keys = _scores.length("query_len", query_len), _scores.length("key_len", key_len)
    return np.arange(keys) <= np.arange(queries)[:, None] + (keys - queries)


def relative_shift(x: Any, key_len: int | None = None, *, convention: str = "transformer_xl", out: Any = None) -> Any:
    """Return products with the rows of distances as a bias of queries and keys: a view, nothing is moved.

    Entry (i, j) of the view is x[i, n] with n the row of the distance of query i and key j, queries at the last of
    the keys.

    Parameters
    ----------
    x : NumPy array or torch CPU tensor, shape (..., queries, distances)
        (q + v) @ R.T, with the rows of `relative_position_table`.
    key_len : int, optional
        Default: what the convention's number of rows says.
    convention : {"transformer_xl", "xlnet", "conformer"}
        "xlnet" is its `rel_shift_bnij`, "conformer" the skew of wav2vec2_conformer, parakeet and others.
    out : array, shape (..., queries, key_len), optional
        Where to write instead, zeros where there is no product.

    Returns
    -------
    view of x, shape (..., queries, key_len)
        Or `out`, where given. Transformer-XL and one-sided XLNet have no rows for keys after the query: there (see
        `relative_shift_valid`) the view shows what lies behind the row in memory, elements of the next queries in an
        array without gaps, never anything outside of x. It must be masked, as the model's causal mask does; in
        Transformer-XL's own code those entries hold other leftovers.

    Raises
    ------
    ValueError
        For a number of distances that does not fit, and for rows that lie so that the view would leave x: pass `out`.
    TypeError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import relative_shift
    >>> relative_shift(np.arange(6).reshape(2, 3), convention="conformer")
    array([[1, 2],
           [3, 4]])
    """
    shape = _scores.shape_of(x)
    if len(shape) < 2:
        raise ValueError(f"x must have shape (.., queries, distances), got {shape or check.shown(x)}")
    queries, rows = shape[-2:]
    implied = {"transformer_xl": rows, "xlnet": rows - queries, "conformer": rows - queries + 1}
    check.choice("convention", convention, CONVENTIONS)
    keys = check.integer("key_len", implied[convention] if key_len is None else key_len, 0)
    origin = origin_of(rows, queries, keys, convention, "x")
    if out is not None:
        wanted = (*shape[:-2], queries, keys)
        where = _scores.where_of(wanted, None, None)
        term = _shift_term(x, origin, rows, where, wanted, 1.0)
        mask = _scores.mask_of(causal_of(None, rows, origin, wanted, "x"), None, 0)
        return _scores.dense(wanted, np.float32, out, where, mask, term)
    return _shifted(_views.sliceable(x), keys, origin - keys + queries, rows < origin + queries)


def _shifted(x: Any, keys: int, start: int, leaves_rows: bool) -> Any:
    """Return the view whose entry (i, j) is x[i, start + j - i]."""
    torch = sys.modules.get("torch")
    is_tensor = torch is not None and isinstance(x, torch.Tensor)
    strides = x.stride() if is_tensor else x.strides
    row, step = strides[-2:]
    shape, moved = (*x.shape[:-1], keys), (*strides[:-2], row - step, step)
    if 0 in shape:
        return x[..., :0] if keys == 0 else x.reshape(shape)
    if leaves_rows and x.shape[-2] > 1 and not row >= step > 0:
        raise ValueError("x must have rows one after the other for this view; pass out=")
    if is_tensor:
        return x.as_strided(shape, moved, x.storage_offset() + start * step)
    # from the last query, whose first entry is in its row; that of the first may lie far behind its row
    last = x[..., ::-1, start - (x.shape[-2] - 1) :]
    backwards = (*moved[:-2], -moved[-2], step)
    return np.lib.stride_tricks.as_strided(last, shape, backwards, writeable=x.flags.writeable)[..., ::-1, :]


def _shift_term(
    x: Any, origin: int, rows: int, where: _scores.Where, shape: tuple[int, ...], scale: float
) -> tuple[Any, ...] | None:
    if not rows:  # and no keys
        return None
    index = partial(_row_of, origin=origin, rows=rows)
    return _relative.entries_term(x, None, index, rows + origin, where, shape, scale, "s")


def _row_of(distance: npt.NDArray[np.int64], origin: int, rows: int) -> npt.NDArray[np.int64]:
    return np.clip(origin - distance, 0, max(rows - 1, 0))


def add_relative_shift(
    scores: Any,
    x: Any,
    *,
    convention: str = "transformer_xl",
    scale: float = 1.0,
    causal: bool | str | None = None,
    window: Any = None,
    sinks: int = 0,
    out: Any = None,
) -> Any:
    """Add products with the rows of distances to scores, shifted on the way.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
    x : array, shape (..., queries, distances)
        As in `relative_shift`; any strides and any of the four float dtypes. Leading axes fit by broadcasting.
    convention, scale
    causal, window, sinks
        Masks, see `posenc.mask_scores`. Default for causal: False where there are rows for keys after the query, else
        "skip", which leaves those keys as they are.
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores: the bits of scores + scale * relative_shift(x), where that is a
        product.

    Raises
    ------
    TypeError, ValueError, BufferError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_relative_shift
    >>> add_relative_shift(np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32))
    array([[1., 0.],
           [1., 1.]], dtype=float32)
    """
    shape, own = _scores.shape_of(scores), _scores.shape_of(x)
    if len(shape) < 2 or len(own) < 2:
        raise ValueError(f"scores and x must have two axes at least, got shapes {shape} and {own}")
    origin = origin_of(own[-1], shape[-2], shape[-1], convention, "x")
    causal, where = causal_of(causal, own[-1], origin, shape, "x"), _scores.where_of(shape, None, None)
    mask = _scores.mask_of(causal, window, sinks)
    term = _shift_term(x, origin, own[-1], where, shape, check.finite("scale", scale))
    return _scores.add(scores, out, where, mask, term)
