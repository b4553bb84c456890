"""DeBERTa: disentangled attention, content to position and position to content (He et al., arXiv:2006.03654).

Positions are met as query - key, the opposite of T5's sign. DeBERTa-v2 and v3 count far distances in logarithmic
buckets.
"""

from __future__ import annotations

import operator
from decimal import Context, Decimal
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias import _relative, _scores

if TYPE_CHECKING:
    import numpy.typing as npt

BEYOND = ("transformers", "microsoft")
LARGEST = 1 << 31
_DIGITS = Context(prec=60)


def deberta_bucket(
    relative_position: Any, *, num_buckets: int = 256, max_distance: int = 512, beyond: str = "transformers"
) -> npt.NDArray[np.int64]:
    """Return the signed bucket of each distance, as DeBERTa-v2 and v3 count.

    With mid = num_buckets // 2 and d = abs(relative_position), d itself up to mid, and beyond::

        mid + ceil((mid - 1) * ln(d / mid) / ln((max_distance - 1) / mid))        times the sign

    Parameters
    ----------
    relative_position : array_like of int
        query - key, in tokens, below 2**31 in size.
    num_buckets : int
        `position_buckets`, at least 2; 256 in DeBERTa-v3.
    max_distance : int
        `max_relative_positions`, more than mid + 1; 512 in DeBERTa-v3.
    beyond : {"transformers", "microsoft"}
        Distances of max_distance and more. "transformers": the formula goes on. "microsoft": as max_distance - 1. The
        two differ for keys that far after the query, where the entry of the first is 0 and of the second 1.

    Returns
    -------
    ndarray of int64
        Of the shape of relative_position.

    Raises
    ------
    TypeError, ValueError
        For distances that are no integers, and numbers that do not fit.

    Notes
    -----
    `make_log_bucket_position` of microsoft/DeBERTa (da_utils.py) and of transformers. Their logarithm is that of
    float32; here every bound between buckets is found in exact arithmetic.

    Examples
    --------
    >>> from posenc.bias import deberta_bucket
    >>> deberta_bucket([-600, -129, -128, 3, 200])
    array([-270, -129, -128,    3,  169])
    """
    distance = check.integers("relative_position", relative_position)
    buckets, most = (
        check.integer("num_buckets", num_buckets, 2, 1 << 20),
        check.integer("max_distance", max_distance, 1, LARGEST - 1),
    )
    mid = buckets // 2
    if most - 1 <= mid:
        raise ValueError(f"max_distance must be more than num_buckets // 2 + 1 = {mid + 1}, got {most}")
    far = int(max(abs(int(distance.min())), abs(int(distance.max())))) if distance.size else 0
    if far >= LARGEST:
        raise ValueError(f"relative_position must be below 2**31 in size, got {far}")
    if check.choice("beyond", beyond, BEYOND) == "microsoft":
        distance, far = np.clip(distance, 1 - most, most - 1), min(far, most - 1)
    size = np.abs(distance)
    bounds = np.array(_bounds(mid, most, 1 << max(far, 2 * most).bit_length()), np.int64)
    return np.asarray(np.sign(distance) * np.where(size <= mid, size, mid + np.searchsorted(bounds, size) + (mid > 1)))


@lru_cache(maxsize=32)
def _bounds(mid: int, most: int, far: int) -> tuple[int, ...]:
    """Return the largest distance of each bucket mid + 1, mid + 2, .., until one is at least `far`."""
    if mid == 1:  # the factor mid - 1 is 0: all that is far lies in one bucket
        return ()
    step = _DIGITS.divide(_DIGITS.ln(_DIGITS.divide(Decimal(most - 1), Decimal(mid))), Decimal(mid - 1))
    bounds: list[int] = []
    while not bounds or bounds[-1] < far:
        n = len(bounds) + 1
        bound = _DIGITS.multiply(Decimal(mid), _DIGITS.exp(_DIGITS.multiply(step, Decimal(n))))
        nearest = int(bound.to_integral_value())
        if abs(bound - nearest) < Decimal("1e-30"):  # an integer, perhaps: integers decide
            bounds.append(nearest if _within(nearest, n, mid, most) else nearest - 1)
        else:
            bounds.append(int(bound))
    return tuple(bounds)


def _within(distance: int, n: int, mid: int, most: int) -> bool:
    """Return whether ln(distance / mid) * (mid - 1) <= n * ln((most - 1) / mid), by powers of integers."""
    left, right = distance ** (mid - 1), (most - 1) ** n
    spare = n - (mid - 1)
    return bool(left * mid**spare <= right if spare >= 0 else left <= right * mid**-spare)


def deberta_index(
    relative_position: Any,
    span: int,
    *,
    num_buckets: int | None = None,
    max_distance: int = 512,
    beyond: str = "transformers",
) -> npt.NDArray[np.int64]:
    """Return the row of DeBERTa's table of 2 * span relative embeddings for each distance.

    clamp(relative_position + span, 0, 2 * span - 1), of the bucket where there are buckets.

    Parameters
    ----------
    relative_position : array_like of int
        query - key.
    span : int
        At least 1; of v1 min(max(queries, keys), max_relative_positions), of v2 and v3 the number of buckets.
    num_buckets, max_distance, beyond
        As in `deberta_bucket`; without num_buckets distances are clamped as they are (v1).

    Returns
    -------
    ndarray of int64

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> from posenc.bias import deberta_index
    >>> deberta_index([-9, -1, 0, 9], 4)
    array([0, 3, 4, 7])
    """
    span = check.integer("span", span, 1, LARGEST // 4)
    _check_unread(max_distance, beyond)
    if num_buckets is not None:
        relative_position = deberta_bucket(
            relative_position, num_buckets=num_buckets, max_distance=max_distance, beyond=beyond
        )
    return np.clip(check.integers("relative_position", relative_position) + span, 0, 2 * span - 1)


def _check_unread(max_distance: Any, beyond: Any) -> None:
    """Check what is read with num_buckets alone."""
    check.integer("max_distance", max_distance, 1)
    check.choice("beyond", beyond, ("transformers", "microsoft"))


def index_of(span: int, num_buckets: Any, max_distance: int, beyond: str) -> tuple[_relative.Index, int]:
    """Return the index of a distance, and the distance beyond which it no longer changes."""
    reach = span
    _check_unread(max_distance, beyond)
    if num_buckets is not None:
        deberta_bucket(0, num_buckets=num_buckets, max_distance=max_distance, beyond=beyond)  # checks
        num_buckets, max_distance = operator.index(num_buckets), operator.index(max_distance)
        mid, reach = num_buckets // 2, max_distance
        if beyond == "transformers" and num_buckets % 2 and mid > 1:  # one bucket more, which begins farther out
            reach = _bounds(mid, max_distance, 2 * max_distance)[mid - 1] + 1
    how = {"num_buckets": num_buckets, "max_distance": max_distance, "beyond": beyond}
    return partial(deberta_index, span=span, **how), reach


def entries_of(
    scores_shape: tuple[int, ...], where: _scores.Where, c2p: Any, p2c: Any, buckets: tuple[Any, int, str], scale: float
) -> tuple[Any, ...]:
    """Return what C adds, from the entries of queries and of keys."""
    if c2p is None and p2c is None:
        raise ValueError("c2p or p2c must be given")
    shape = _scores.shape_of(p2c if c2p is None else c2p)
    name = "p2c" if c2p is None else "c2p"
    if not shape or shape[-1] < 2 or shape[-1] % 2:
        raise ValueError(
            f"{name} must have shape (.., 2 * span), got {shape or check.shown(p2c if c2p is None else c2p)}"
        )
    span = shape[-1] // 2
    if buckets[0] is not None and check.integer("num_buckets", buckets[0], 2, 1 << 20) != span:
        raise ValueError(f"{name} must have 2 * num_buckets = {2 * buckets[0]} entries, got {2 * span}")
    index, reach = index_of(span, *buckets)
    return _relative.entries_term(c2p, p2c, index, reach, where, scores_shape, check.finite("scale", scale))


def add_disentangled_bias(
    scores: Any,
    *,
    c2p: Any = None,
    p2c: Any = None,
    num_buckets: int | None = None,
    max_distance: int = 512,
    beyond: str = "transformers",
    scale: float = 1.0,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Add DeBERTa's two relative terms to scores in one pass, each gathered by distance and none of them built.

    y[i, j] = x[i, j] + scale * (c2p[i, n] + p2c[j, n]) with n the `deberta_index` of i - j.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        float32, float64, float16 or bfloat16; any strides.
    c2p : array, shape (..., queries, 2 * span), optional
        Content to position: queries times the projected relative embeddings. Leading axes fit those of the scores by
        broadcasting; any strides and any of the four dtypes.
    p2c : array, shape (..., keys, 2 * span), optional
        Position to content: keys times the projected relative embeddings.
    num_buckets : int, optional
        `position_buckets` of v2 and v3, which is span there. Default: distances are clamped as they are (v1).
    max_distance, beyond
        As in `deberta_bucket`.
    scale : float
        Of both terms: 1 / sqrt(3 * head_dim) where c2p and p2c are plain products, 1 where queries and relative queries
        were divided before, as in v1.
    causal, window, sinks
        Masks, see `posenc.mask_scores`.
    query_positions, key_positions : array_like of int, optional
        As in `posenc.add_alibi`. Default: keys from 0 on, queries at the last of the keys.
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores. The two entries are added, then scaled, then added, each step
        rounded to float32 (float64 for float64 scores); 16-bit scores are rounded once more.

    Raises
    ------
    TypeError, ValueError, BufferError
        For arguments that do not fit; the message says what was expected and what came.

    Notes
    -----
    He et al., equations 4 and 5; `disentangled_attention_bias` of microsoft/DeBERTa and of transformers. Where
    queries and keys differ in number, transformers places both from 0 on and its v2 fails; here positions say where
    they are.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_disentangled_bias
    >>> c2p = np.arange(8, dtype=np.float32).reshape(2, 4)
    >>> add_disentangled_bias(np.zeros((2, 2), np.float32), c2p=c2p)
    array([[2., 1.],
           [7., 6.]], dtype=float32)
    """
    buckets = (num_buckets, max_distance, beyond)

    def term(shape: tuple[int, ...], where: _scores.Where) -> tuple[Any, ...]:
        return entries_of(shape, where, c2p, p2c, buckets, scale)

    return _scores.add_made(scores, out, term, (causal, window, sinks), (query_positions, key_positions))


def disentangled_bias(
    *,
    c2p: Any = None,
    p2c: Any = None,
    query_len: int | None = None,
    key_len: int | None = None,
    num_buckets: int | None = None,
    max_distance: int = 512,
    beyond: str = "transformers",
    scale: float = 1.0,
    query_positions: Any = None,
    key_positions: Any = None,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
) -> Any:
    """Return DeBERTa's relative terms as an array: what `add_disentangled_bias` adds to scores of zeros.

    Parameters
    ----------
    c2p, p2c, num_buckets, max_distance, beyond, scale, query_positions, key_positions
        As in `add_disentangled_bias`.
    query_len, key_len : int, optional
        Where c2p or p2c does not say it.
    dtype : float32, float64, float16 or bfloat16
        Of a new array.
    out : array, optional
        Where to write, of the shape below.

    Returns
    -------
    array, shape (..., query_len, key_len)
        With the leading axes that c2p and p2c share by broadcasting.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `add_disentangled_bias`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import disentangled_bias
    >>> disentangled_bias(p2c=np.arange(8.0).reshape(2, 4), query_len=2)
    array([[2., 5.],
           [3., 6.]], dtype=float32)
    """
    found = [(_scores.shape_of(a) or (0, 0))[-2] if a is not None else None for a in (c2p, p2c)]
    queries, keys = _relative.lengths("c2p or p2c", query_len, key_len, (found[0], found[1]))
    shape = (*_relative.leading(c2p, p2c), queries, keys)
    where = _scores.where_of(shape, query_positions, key_positions)
    term = entries_of(shape, where, c2p, p2c, (num_buckets, max_distance, beyond), scale)
    return _scores.dense(shape, dtype, out, where, _scores.mask_of(False, None, 0), term)
