"""ALiBi: scores minus a slope times the distance (Press et al., arXiv:2108.12409)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact, _views
from posenc import _parameters as check
from posenc.bias import _scores

if TYPE_CHECKING:
    import numpy.typing as npt

FORMS = ("distance", "key")

_BEYOND_FLOAT32 = float.fromhex("0x1.ffffffp127")  # the least number that is rounded to infinity


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> npt.NDArray[np.float64]:
    """Return the slopes of ALiBi for any number of heads, each the nearest float64.

    For H = 2**k heads the slope of head h = 1..H is 2 ** (-max_bias * h / H). For other numbers, as the authors' code:
    with c the power of two below H, first the slopes of c heads, then every second one of 2c heads,
    2 ** (-max_bias * (2k - 1) / (2c)) for k = 1..H - c.

    Parameters
    ----------
    num_heads : int
        At least 1.
    max_bias : float
        Positive; 8 in the paper (`alibi_bias_max` of MPT, `max_bias` of ggml).

    Returns
    -------
    ndarray of float64, shape (num_heads,)
        Positive, not sorted where num_heads is no power of two.

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    Press et al., section 3, and `get_slopes` of https://github.com/ofirpress/attention_with_linear_biases. The paper's
    plain 2 ** (-8h/H) for other numbers of heads is used by no model.

    Examples
    --------
    >>> import posenc
    >>> posenc.alibi_slopes(8)[:3]
    array([0.5  , 0.25 , 0.125])
    """
    heads = check.integer("num_heads", num_heads, 1, 1 << 20)
    return np.array(_slopes(heads, check.positive("max_bias", max_bias)))


@lru_cache(maxsize=64)
def _slopes(heads: int, max_bias: float) -> tuple[float, ...]:
    whole = 1 << (heads.bit_length() - 1)
    first = [_exact.power_of_two(max_bias, h, whole) for h in range(1, whole + 1)]
    rest = [_exact.power_of_two(max_bias, 2 * k - 1, 2 * whole) for k in range(1, heads - whole + 1)]
    return tuple(first + rest)


def alibi_bias(
    slopes: Any,
    query_len: int,
    key_len: int,
    *,
    form: str = "distance",
    right_slopes: Any = None,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
) -> Any:
    """Return ALiBi's bias as an array: what `add_alibi` adds to scores of zeros.

    Parameters
    ----------
    slopes : array_like, shape (heads,) or (batch, heads)
    query_len, key_len : int
        Numbers of queries and keys.
    form, right_slopes, causal, window, sinks, query_positions, key_positions
        As in `add_alibi`.
    dtype : float32, float64, float16 or bfloat16
        Of a new array.
    out : array, optional
        Where to write, of the shape below.

    Returns
    -------
    array, shape (heads, query_len, key_len) or (batch, heads, query_len, key_len)
        `out` where given. The latter shape where slopes or positions have batch rows.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `add_alibi`.

    Examples
    --------
    >>> import posenc
    >>> posenc.alibi_bias(posenc.alibi_slopes(1, max_bias=1), 2, 3)
    array([[[-0.5, -0. , -0.5],
            [-1. , -0.5, -0. ]]], dtype=float32)
    """
    term = line_term(slopes, right_slopes, form)
    positions = (query_positions, key_positions)
    rows = _views.batch_rows(slopes, right_slopes, *positions)
    masks, heads = (causal, window, sinks), term[0].shape[1]
    return _scores.dense_of_heads(heads, (query_len, key_len), rows, (dtype, out), term, masks, positions)


def add_alibi(
    scores: Any,
    slopes: Any,
    *,
    form: str = "distance",
    right_slopes: Any = None,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Add ALiBi to scores in one pass, without building it; mask in the same pass.

    With slope m, query position i and key position j::

        form="distance":  y = x - m * |i - j|
        form="key":       y = x + m * j        the same after a causal softmax, since a row's own m * i cancels

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        float32, float64, float16 or bfloat16; any strides. The first of four axes or more is the batch.
    slopes : array_like of float, shape (heads,) or (batch, heads)
        Finite; see `alibi_slopes`. Rounded to float32 (float64 for float64 scores).
    form : {"distance", "key"}
        A formula; masks are another matter.
    right_slopes : array_like, optional
        Slopes of keys after the query, where they differ; for form "distance". Default: slopes.
    causal : bool or "skip"
        True: -inf where a key is after the query. "skip": those entries stay as scores has
        them, for whoever masks them later.
    window, sinks
        A sliding window and attention sinks, see `mask_scores`.
    query_positions, key_positions : array_like, shape (queries,), (keys,) or (batch, ..), optional
        In tokens, integers or floats, below 2**30 in size. Default: keys from 0 on, and queries at the last of the keys
        (FlashAttention's alignment). Padding as BLOOM counts it is `posenc.bias.bloom_positions(attention_mask)`.
    out : array, optional
        Where to write; may be scores itself. Same shape and dtype, no other overlap.

    Returns
    -------
    array
        `out` where given, else a new array like scores. The product is rounded, then the sum (in float32 for 16-bit
        scores, which are rounded once more): the bits of `scores + (-m) * distance` in NumPy or torch.

    Raises
    ------
    TypeError
        For another kind or dtype.
    ValueError
        For head counts, shapes, positions, windows and slopes that do not fit, and for overlaps.
    BufferError
        For a read-only `out`.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> scores = np.zeros((1, 8, 2, 4), np.float32)
    >>> posenc.add_alibi(scores, posenc.alibi_slopes(8), causal=True)[0, 0]
    array([[-1. , -0.5,  0. , -inf],
           [-1.5, -1. , -0.5,  0. ]], dtype=float32)
    """
    term = line_term(slopes, right_slopes, form)
    return _scores.add_made(scores, out, lambda *_: term, (causal, window, sinks), (query_positions, key_positions))


def line_term(slopes: Any, right_slopes: Any, form: str) -> tuple[npt.NDArray[np.float64], bool]:
    """Return slopes as C takes them, (1 or batch, heads, 2): the factor of |u| where u < 0, and elsewhere."""
    of_key = check.choice("form", form, FORMS) == "key"
    left = finite_slopes("slopes", slopes)
    if right_slopes is None:
        right = left
    elif of_key:
        raise ValueError("right_slopes need form 'distance': a key's position has no side")
    else:
        right = finite_slopes("right_slopes", right_slopes)
        if right.shape[1] != left.shape[1] or (len(left) != len(right) and 1 not in (len(left), len(right))):
            raise ValueError(
                f"right_slopes must have the shape of slopes, {np.shape(slopes)}, got {np.shape(right_slopes)}"
            )
        left, right = np.broadcast_arrays(left, right)
    sides = np.empty((*left.shape, 2))  # np.stack would be a third of a call for one query
    np.negative(left, sides[..., 0])
    np.multiply(right, 1.0 if of_key else -1.0, sides[..., 1])
    return sides, of_key


def finite_slopes(name: str, slopes: Any) -> npt.NDArray[np.float64]:
    """Return float64 (1 or batch, heads)."""
    array = check.plain_array(name, slopes)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name} must have shape (heads,) or (batch, heads), got {array.shape}")
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise TypeError(f"{name} must be numbers, got {array.dtype}")
    array = array.astype(np.float64)
    finite = np.abs(array) < _BEYOND_FLOAT32
    if not finite.all():
        raise ValueError(f"{name} must be finite in float32, got {array[~finite][0]}")
    return array[None] if array.ndim == 1 else array
