"""Transformer-XL's relative attention, and XLNet's and Conformer's (Dai et al., arXiv:1901.02860, section 3.3).

The term BD of a score is (q_i + v) . R of the distance i - j. `add_transformer_xl_bias` takes queries and rows R and
needs no product of all of them; shift.py has what models do instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core
from posenc import _parameters as check
from posenc.bias import _relative, _scores
from posenc.tables import rotary_table

if TYPE_CHECKING:
    import numpy.typing as npt

#: how the rows of distances lie: the first belongs to the largest distance
CONVENTIONS = ("transformer_xl", "xlnet", "conformer")


def relative_position_table(
    key_len: int,
    dim: int,
    *,
    query_len: int | None = None,
    convention: str = "transformer_xl",
    clamp_len: int | None = None,
    base: float = 10000.0,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Return the sinusoidal rows R of relative distances (query - key), the largest first.

    ================  ==================================  ==========================  =============
    convention        distances                           columns                     row of 0
    ================  ==================================  ==========================  =============
    transformer_xl    key_len - 1 .. 0                    sines, then cosines         the last
    xlnet             key_len .. -(query_len - 1)         sines, then cosines         key_len
    conformer         key_len - 1 .. -(query_len - 1)     sine and cosine in turn     key_len - 1
    ================  ==================================  ==========================  =============

    Parameters
    ----------
    key_len : int
        Keys, those of a memory among them.
    dim : int
        Even.
    query_len : int, optional
        Default: key_len.
    convention : {"transformer_xl", "xlnet", "conformer"}
    clamp_len : int, optional
        Distances beyond it, either way, count as it (XLNet); without negative ones that is Transformer-XL's clamp too.
    base : float
    dtype : float32 or float64

    Returns
    -------
    ndarray, shape (distances, dim)
        Exact as the tables of `posenc.rotary_table` are.

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    mem_transformer.py of kimiyoung/transformer-xl, modeling_xlnet.py (attn_type "bi") and
    modeling_wav2vec2_conformer.py of transformers, whose own rows are float32 products and off by their rounding.

    Examples
    --------
    >>> from posenc.bias import relative_position_table
    >>> relative_position_table(3, 2).round(2)
    array([[ 0.91, -0.42],
           [ 0.84,  0.54],
           [ 0.  ,  1.  ]], dtype=float32)
    """
    keys = check.integer("key_len", key_len, 1, _scores.LARGEST_POSITION)
    queries = keys if query_len is None else check.integer("query_len", query_len, 1, _scores.LARGEST_POSITION)
    dim = check.integer("dim", dim, 2, 1 << 20)
    if dim % 2:
        raise ValueError(f"dim must be even, got {dim}")
    first = keys if check.choice("convention", convention, CONVENTIONS) == "xlnet" else keys - 1
    last = 0 if convention == "transformer_xl" else 1 - queries
    distances = np.arange(first, last - 1, -1)
    if clamp_len is not None:
        limit = check.integer("clamp_len", clamp_len, 1, _scores.LARGEST_POSITION)
        distances = np.clip(distances, -limit, limit)
    cos, sin = rotary_table(distances, _core.inv_freq(check.base(base), dim), dtype=dtype)
    if convention == "conformer":
        return np.stack([sin, cos], -1).reshape(len(distances), dim)
    return np.concatenate([sin, cos], -1)


def origin_of(rows: int, queries: int, keys: int, convention: str, name: str) -> int:
    """Return the row of distance 0 among rows of distances that a convention lays out, the number of rows checked."""
    wanted = {"transformer_xl": (keys,), "xlnet": (keys + queries, keys + 1), "conformer": (keys + queries - 1,)}
    possible = wanted[check.choice("convention", convention, CONVENTIONS)]
    if rows not in possible:
        raise ValueError(
            f"{name} must have {' or '.join(map(str, possible))} distances for convention {convention!r} with "
            f"{queries} queries and {keys} keys, got {rows}"
        )
    return keys if convention == "xlnet" else keys - 1


def causal_of(causal: Any, rows: int, origin: int, shape: tuple[int, ...], name: str) -> Any:
    """Return causal or its default; refuse keys after the query where there is no row for them."""
    complete = shape[-2] < 2 or rows >= origin + shape[-2]
    if causal is None:
        return False if complete else "skip"
    if not complete and _scores.mask_of(causal, None, 0)[0] == 0:
        raise ValueError(f"{name} has no rows for keys after the query: causal must be True or 'skip', got False")
    return causal


def products_of(
    shape: tuple[int, ...], q: Any, r: Any, v: Any, convention: str, scale: float, causal: Any
) -> tuple[tuple[Any, ...], Any]:
    """Return what C adds, and causal or its default."""
    rows = _scores.shape_of(r)
    if len(shape) < 2 or len(rows) < 2:
        raise ValueError(f"r must have shape (.., distances, head_dim), got {rows or check.shown(r)}")
    if q is None:
        raise TypeError("q must be a NumPy array or a torch CPU tensor, got None")
    origin = origin_of(rows[-2], shape[-2], shape[-1], convention, "r")
    causal = causal_of(causal, rows[-2], origin, shape, "r")
    return _relative.products_term(q, v, r, origin, check.finite("scale", scale)), causal


def add_transformer_xl_bias(
    scores: Any,
    q: Any,
    r: Any,
    v: Any = None,
    *,
    convention: str = "transformer_xl",
    scale: float = 1.0,
    causal: bool | str | None = None,
    window: Any = None,
    sinks: int = 0,
    out: Any = None,
) -> Any:
    """Add Transformer-XL's term BD to scores in its direct form: y[i, j] = x[i, j] + scale * (q_i + v) . R of i - j.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
    q : array, shape (..., heads, queries, head_dim)
    r : array, shape (..., heads, distances, head_dim)
        The projected rows of `relative_position_table`; leading axes fit by broadcasting.
    v : array, shape (..., heads, 1, head_dim), optional
        The learned bias (`r_r_bias`, `pos_bias_v`), added to the queries.
    convention, causal, window, sinks, out
        As in `add_relative_shift`.
    scale : float
        head_dim ** -0.5 where the scores are scaled already.

    Returns
    -------
    array
        `out` where given, else a new array like scores. q + v is rounded, and the products are summed in the order of
        the dimensions, in float32 (float64 for float64 scores): the same bits on every processor.

    Raises
    ------
    TypeError, ValueError, BufferError

    Notes
    -----
    Dai et al., equation of section 3.3, terms (b) and (d). No (queries, distances) product is built.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_transformer_xl_bias
    >>> r = np.array([[3.0], [2.0], [1.0]], np.float32)
    >>> add_transformer_xl_bias(np.zeros((2, 3), np.float32), np.ones((2, 1), np.float32), r)
    array([[2., 1., 0.],
           [3., 2., 1.]], dtype=float32)
    """
    shape = _scores.shape_of(scores)
    term, causal = products_of(shape, q, r, v, convention, scale, causal)
    mask = _scores.mask_of(causal, window, sinks)
    return _scores.add(scores, out, _scores.where_of(shape, None, None), mask, term)


def transformer_xl_bias(
    q: Any,
    r: Any,
    v: Any = None,
    *,
    key_len: int | None = None,
    convention: str = "transformer_xl",
    scale: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
    out: Any = None,
) -> Any:
    """Return Transformer-XL's term BD as an array, zero where a convention has no row for a key after the query.

    Parameters
    ----------
    q, r, v, convention, scale
        As in `add_transformer_xl_bias`.
    key_len : int, optional
        Default: what the convention's number of rows says.
    dtype : float32, float64, float16 or bfloat16
        Of a new array.
    out : array, optional
        Where to write, of the shape below.

    Returns
    -------
    array, shape (..., queries, key_len)

    Raises
    ------
    TypeError, ValueError, BufferError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import transformer_xl_bias
    >>> transformer_xl_bias(np.ones((2, 1)), np.array([[2.0], [1.0], [5.0]]), convention="conformer")
    array([[1., 5.],
           [2., 1.]], dtype=float32)
    """
    rows, own = _scores.shape_of(r), _scores.shape_of(q)
    if len(own) < 2 or len(rows) < 2:
        raise ValueError(f"q and r must have two axes at least, got shapes {own} and {rows}")
    check.choice("convention", convention, CONVENTIONS)
    implied = {"transformer_xl": 0, "xlnet": own[-2], "conformer": own[-2] - 1}[convention]
    keys = check.integer("key_len", rows[-2] - implied if key_len is None else key_len, 0, _scores.LARGEST_POSITION)
    shape = (*_relative.leading(q, r, v), own[-2], keys)
    term, causal = products_of(shape, q, r, v, convention, scale, None)
    mask = _scores.mask_of(causal, None, 0)
    return _scores.dense(shape, dtype, out, _scores.where_of(shape, None, None), mask, term)
