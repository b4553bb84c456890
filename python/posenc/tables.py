"""Tables of cosines and sines, and rotation by ready tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, runtime
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS

if TYPE_CHECKING:
    import numpy.typing as npt

#: layout -> the code of its forward rotation in C, and of its inverse
LAYOUTS = {"half": (0, 0), "interleaved": (1, 1), "interleaved_to_half": (2, 3)}


def rotary_table(
    positions: Any,
    inv_freq: npt.ArrayLike,
    *,
    axis_of_freq: npt.ArrayLike | None = None,
    scale: float = 1.0,
    dtype: npt.DTypeLike = np.float32,
    precision: str = "exact",
    out: Any = None,
) -> tuple[Any, Any]:
    """Return scale * cos(positions * inv_freq) and scale * sin(positions * inv_freq).

    Parameters
    ----------
    positions : int or array_like
        Tokens; an int n means 0 .. n-1. Shape (seq,) or (batch, seq); with n axes (n, seq) or (n, batch, seq).
    inv_freq : array_like, shape (pairs,)
        Radians per token.
    axis_of_freq : array_like of int, shape (pairs,), optional
        Which position axis turns each frequency.
    scale : float
        Attention factor.
    dtype : float32 or float64
    precision : {"exact", "float32"}
        As in `Rope`. Exact float32 tables are within 0.501 ulp for every |position * inv_freq| < 2**31, float64 ones
        within 1 ulp (at scale 1); tests/test_exactness.py holds them to that against mpmath.
    out : (array, array), optional
        Where to write.

    Returns
    -------
    cos, sin : arrays of shape (seq, pairs) or (batch, seq, pairs)
        `out` where given; torch tensors where positions is one; else NumPy arrays.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `Rope.__call__`.

    Examples
    --------
    >>> import posenc
    >>> cos, sin = posenc.rotary_table([0, 1, 2.5], [1.0, 0.1])
    >>> cos.shape
    (3, 2)
    """
    inv_freq = check.rounded(check.frequencies(inv_freq), check.choice("precision", precision, PRECISIONS))
    axes_of = check.axes_of(axis_of_freq, len(inv_freq))
    spec = _core.spec(inv_freq, axes_of, 0, 2 * len(inv_freq), 0, check.finite("scale", scale), precision == "float32")
    return make_table(spec, positions, dtype, out)


def make_table(spec: Any, positions: Any, dtype: npt.DTypeLike, out: Any) -> tuple[Any, Any]:
    """Return (cos, sin) of a spec, in the kind of the positions."""
    wide = check.is_float64(dtype)
    if isinstance(positions, np.integer):
        positions = int(positions)
    result = runtime.call(_core.table, spec, positions, wide, out)
    cos, sin = result
    torch = sys.modules.get("torch")
    if out is None and torch is not None and isinstance(positions, torch.Tensor):
        return torch.from_numpy(cos), torch.from_numpy(sin)
    return cos, sin


def apply_rotary_emb(
    x: Any,
    cos: Any,
    sin: Any,
    *,
    layout: str,
    rotary_offset: int = 0,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    conjugate: bool = False,
    out: Any = None,
) -> Any:
    """Rotate x by ready tables.

    Row j of the tables turns token j of the sequence, or row positions[j], or row offset + j: a table may be longer
    than the sequence, and any row may be asked for, but a position outside it is an error.

    Parameters
    ----------
    x : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        float32, float64, float16 or bfloat16; any strides.
    cos, sin : arrays of shape (rows, rotary_dim/2) or (batch, rows, rotary_dim/2)
        Half width, one column per pair: float32, or float64 for float64 x. batch is 1 or x's first axis.
    layout : {"half", "interleaved", "interleaved_to_half"}
        Which elements form a pair, see `Rope`.
    rotary_offset : int
        The first rotated element of a head; the others pass through.
    positions : array_like of int, shape (seq,) or (batch, seq), optional
        Which rows to use.
    offset : int or array_like of int, shape (batch,)
        The first row to use; excludes `positions`.
    seq_axis : int
        Which axis of x is the sequence.
    conjugate : bool
        Negate the sine, and nothing else (FlashAttention's word).
    out : array, optional
        Where to write; may be x itself.

    Returns
    -------
    array
        `out` where given, else a new array like x.

    Raises
    ------
    IndexError
        For a position outside the tables.
    TypeError, ValueError, BufferError
        As in `Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> rope = posenc.Rope(4, layout="interleaved")
    >>> cos, sin = rope.table(16)
    >>> x = np.ones((3, 4), np.float32)
    >>> bool((posenc.apply_rotary_emb(x, cos, sin, layout="interleaved") == rope(x)).all())
    True
    """
    code = LAYOUTS[check.choice("layout", layout, LAYOUTS)][0]
    first = check.integer("rotary_offset", rotary_offset, 0, most=(1 << 63) - 1)
    conjugate = check.flag("conjugate", conjugate)
    how = (positions, offset, seq_axis, code, first, conjugate)
    return runtime.call(_core.apply, x, cos, sin, out, *how)
