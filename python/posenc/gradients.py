"""The backward pass of rotations: gradients of x, of tables, of frequencies and of positions.

For NumPy arrays and torch CPU tensors, in the caller's memory; `posenc.torch` puts these into autograd. With a pair
(a, b), its angle t, attention factor m and the gradient (u, v) of what came out::

    of a, b:   m (u cos t + v sin t),  m (v cos t - u sin t)       the rotation transposed: m stays, where the inverse
                                                                   has 1/m
    of cos:    a u + b v          of sin:   a v - b u
    of t:      m (cos t (a v - b u) - sin t (a u + b v))
    of inv_freq[i]:  the sum over tokens, heads and batch of position * that
    of a position:   the sum over pairs and heads of inv_freq[i] * that

Sums are float64, over heads and batch in the order in which elements lie, over tokens in blocks whose size depends on
the shape alone: the same bits for any number of threads and on any processor. No temporary is larger than a table of
the call's tokens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, _views, runtime
from posenc import _parameters as check
from posenc.rotary import as_rope
from posenc.tables import LAYOUTS

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.rotary import Rope

__all__ = ["of_frequencies", "of_positions", "of_tables", "of_x", "of_x_by_tables"]


def of_x(
    rope: Rope,
    grad: Any,
    grad_k: Any = None,
    *,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    seq_len: int | None = None,
    out: Any = None,
    accumulate: bool = False,
) -> Any:
    """Return the gradient of what a Rope rotated, from that of its result: the transposed rotation.

    Parameters
    ----------
    rope : Rope
    grad, grad_k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        Gradients of the rotated q and k.
    positions, offset, seq_axis, seq_len
        Those of the forward call.
    out : array, or (array, array), optional
        Where to write; may be grad itself.
    accumulate : bool
        Whether to add to what `out` holds: each element's sum is formed in float32 (float64 for float64) and rounded
        once.

    Returns
    -------
    array, or (array, array) with grad_k
        `out` where given, else new arrays like grad.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `posenc.Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import gradients
    >>> rope = posenc.Rope(8, layout="half", scaling=posenc.scaling.Yarn(4.0, 32))
    >>> x = np.ones((4, 8), np.float32)
    >>> back = gradients.of_x(rope, rope(x))
    >>> round(float(back[3, 0]), 4) == round(rope.attention_factor**2, 4)      # the inverse would give 1
    True
    """
    core = _core.rotate_onto if check.flag("accumulate", accumulate) else _core.rotate
    if as_rope(rope)._varies:
        core(rope._spec, grad, grad_k, out, positions, offset, seq_axis, 0, False)  # checks, and defers all work
        rope = _fixed(rope, grad, positions, offset, seq_axis, seq_len)
    elif seq_len is not None:
        check.integer("seq_len", seq_len, 1)
    spec = _transposed(rope)
    return runtime.call(core, spec, grad, grad_k, out, positions, offset, seq_axis)


def of_x_by_tables(
    grad: Any,
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
    accumulate: bool = False,
) -> Any:
    """Return the gradient of what `posenc.apply_rotary_emb` rotated, from that of its result.

    Parameters
    ----------
    grad : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
    cos, sin, layout, rotary_offset, positions, offset, seq_axis, conjugate
        Those of the forward call.
    out : array, optional
        Where to write; may be grad itself.
    accumulate : bool
        Whether to add to what `out` holds: each element's sum is formed in float32 (float64 for float64) and rounded
        once.

    Returns
    -------
    array
        `out` where given, else a new array like grad.

    Raises
    ------
    TypeError, ValueError, IndexError, BufferError
        As in `posenc.apply_rotary_emb`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import gradients
    >>> cos, sin = posenc.Rope(8, layout="half").table(4)
    >>> x = np.ones((4, 8), np.float32)
    >>> y = posenc.apply_rotary_emb(x, cos, sin, layout="half")
    >>> bool(np.allclose(gradients.of_x_by_tables(y, cos, sin, layout="half"), x, atol=1e-6))
    True
    """
    code = LAYOUTS[check.choice("layout", layout, LAYOUTS)][1]
    first = check.integer("rotary_offset", rotary_offset, 0, most=(1 << 63) - 1)
    how = (code, first, not check.flag("conjugate", conjugate))
    core = _core.apply_onto if check.flag("accumulate", accumulate) else _core.apply
    return runtime.call(core, grad, cos, sin, out, positions, offset, seq_axis, *how)


def of_tables(
    x: Any,
    grad: Any,
    pairs: int,
    *,
    layout: str,
    rotary_offset: int = 0,
    seq_axis: int = -2,
    conjugate: bool = False,
    per_batch: bool = False,
    dtype: npt.DTypeLike = np.float64,
    out: Any = None,
) -> tuple[Any, Any]:
    """Return the gradients of the rows of cos and sin that turned x.

    Parameters
    ----------
    x, grad : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        What was rotated, and the gradient of the result.
    pairs : int
        Width of the tables.
    layout, rotary_offset, seq_axis, conjugate
        Those of the forward call.
    per_batch : bool
        Whether the tables have a row of their own for each row of x's first axis.
    dtype : float32 or float64
        Of new arrays; each element is rounded once.
    out : (array, array), optional
        float32 or float64, of the shape below, to which the gradients are added; of a batch of 1, or of x's.

    Returns
    -------
    cos, sin : arrays of shape (seq, pairs), or (batch, seq, pairs) with per_batch
        `out` where given, else new NumPy arrays. Row j is that of token j: where positions chose rows of a longer
        table, add them up by position.

    Raises
    ------
    TypeError, ValueError, BufferError
        For arrays that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import gradients
    >>> x, grad = np.ones((2, 4, 8), np.float32), np.ones((2, 4, 8), np.float32)
    >>> cos, sin = gradients.of_tables(x, grad, 4, layout="half")
    >>> cos[0].tolist(), sin[0].tolist()
    ([4.0, 4.0, 4.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    """
    code = LAYOUTS[check.choice("layout", layout, LAYOUTS)][0]
    how = (
        code,
        check.integer("rotary_offset", rotary_offset, 0, most=(1 << 63) - 1),
        check.flag("conjugate", conjugate),
    )
    pairs, per_batch = check.integer("pairs", pairs, 1), check.flag("per_batch", per_batch)
    if out is None:
        shape = _shape_of(x)
        seq = check.integer("seq_axis", seq_axis, -len(shape), most=len(shape) - 1)
        lead = (shape[0],) if per_batch else ()
        kind = np.float64 if check.is_float64(dtype) else np.float32
        out = np.zeros((*lead, shape[seq], pairs), kind), np.zeros((*lead, shape[seq], pairs), kind)
    elif not isinstance(out, (tuple, list)) or len(out) != 2:
        got = f"{len(out)} of them" if isinstance(out, (tuple, list)) else type(out)
        raise TypeError(f"out must be a pair of arrays, one for cos and one for sin, got {got}")
    cos, sin = out
    _check_tables(cos, pairs, per_batch)
    runtime.call(_core.table_gradient, x, grad, cos, sin, seq_axis, *how)
    return cos, sin


def of_frequencies(
    rope: Rope,
    x: Any,
    grad: Any,
    *,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    seq_len: int | None = None,
    out: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the gradient of a Rope's frequencies.

    Parameters
    ----------
    rope : Rope
    x, grad : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        What was rotated, and the gradient of the result.
    positions, offset, seq_axis, seq_len
        Those of the forward call.
    out : ndarray of float64, shape (rotary_dim/2,), optional
        To which the gradient is added.

    Returns
    -------
    ndarray of float64, shape (rotary_dim/2,)
        `out` where given.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import gradients
    >>> rope = posenc.Rope(2, layout="half", inv_freq=[0.5])
    >>> x = np.array([[1.0, 0.0]])                                 # at position 3 it becomes cos 1.5, sin 1.5
    >>> grad = np.array([[1.0, 0.0]])                              # of the first, the loss
    >>> bool(np.isclose(gradients.of_frequencies(rope, x, grad, offset=3)[0], -3 * np.sin(1.5)))
    True
    """
    total = np.zeros(len(as_rope(rope).inv_freq)) if out is None else out
    _of_numbers(rope, x, grad, positions, offset, seq_axis, seq_len, total, None)
    return total


def of_positions(
    rope: Rope,
    x: Any,
    grad: Any,
    *,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    seq_len: int | None = None,
) -> npt.NDArray[np.float64]:
    """Return the gradient of the positions of a rotation.

    Parameters
    ----------
    rope : Rope
    x, grad : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        What was rotated, and the gradient of the result.
    positions, offset, seq_axis, seq_len
        Those of the forward call.

    Returns
    -------
    ndarray of float64
        Of the shape of `positions`; (seq,), or (batch, seq) for an offset per row. With n axes (n, ..).

    Raises
    ------
    TypeError, ValueError
        As in `posenc.Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import gradients
    >>> rope = posenc.Rope(2, layout="half", inv_freq=[0.5])
    >>> x, grad = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])
    >>> bool(np.isclose(gradients.of_positions(rope, x, grad, positions=[3.0])[0], -0.5 * np.sin(1.5)))
    True
    """
    spec = as_rope(rope)._spec
    _core.rotate_gradient(spec, x, grad, positions, offset, seq_axis, None, None, 0, 1)  # checks, does nothing
    shape = _shape_of(x)
    given = (*np.shape(offset), 1) if positions is None else np.shape(positions)[rope.axes > 1 :]
    rows = given[0] if len(given) == 2 else 1
    total = np.zeros((rope.axes, rows, shape[seq_axis]))
    _of_numbers(rope, x, grad, positions, offset, seq_axis, seq_len, None, total)
    result = total if len(given) == 2 else total[:, 0]
    return result if rope.axes > 1 else result[0]


def _of_numbers(
    rope: Rope,
    x: Any,
    grad: Any,
    positions: Any,
    offset: Any,
    seq_axis: int,
    seq_len: int | None,
    inv_freq: Any,
    position_gradient: Any,
) -> None:
    wanted = inv_freq, position_gradient
    if as_rope(rope)._varies:
        _core.rotate_gradient(rope._spec, x, grad, positions, offset, seq_axis, *wanted, 0, 1)  # checks, does nothing
        rope = _fixed(rope, x, positions, offset, seq_axis, seq_len)
    elif seq_len is not None:
        check.integer("seq_len", seq_len, 1)
    arguments = (rope._spec, x, grad, positions, offset, seq_axis, *wanted)
    runtime.call(_core.rotate_gradient, *arguments)


def _shape_of(x: Any) -> tuple[int, ...]:
    if not hasattr(x, "ndim") and not hasattr(x, "__dlpack__"):
        raise TypeError(f"x must be a NumPy array or a torch CPU tensor, got {check.shown(x)}")
    return tuple(_views.sliceable(x).shape)


def _check_tables(cos: Any, pairs: int, per_batch: bool) -> None:
    """The tables that are added to are those that the other arguments describe; C compares them with x."""
    shape = getattr(cos, "shape", None)
    if shape is None:
        return  # C says what it is instead
    if len(shape) > 0 and shape[-1] != pairs:
        raise ValueError(f"out must have {pairs} columns, one for each of `pairs`, got shape {tuple(shape)}")
    if per_batch and len(shape) == 2:
        raise ValueError(f"with per_batch, out must have shape (batch, seq, pairs), got {tuple(shape)}")


def _fixed(rope: Rope, x: Any, positions: Any, offset: Any, seq_axis: int, seq_len: int | None) -> Rope:
    """Return the Rope of a call's length."""
    return rope.at(check.sequence_length(seq_len, positions, offset, _shape_of(x)[seq_axis]))


@lru_cache(maxsize=64)
def _transposed(rope: Rope) -> Any:
    """Return C's numbers of the transposed rotation: the other way round, with the attention factor as it is."""
    return _core.spec(
        -rope._inv_freq,
        rope._axis_of_freq,
        LAYOUTS[rope.layout][1],
        rope.head_dim,
        rope.rotary_offset,
        rope.attention_factor,
        rope.precision == "float32",
    )
