"""The oracle: a plain float64 NumPy twin of every C entry, written from the formulas, not from the C.

Slow and obvious. Tests compare with it; nothing else uses it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def inv_freq(base: float, rotary_dim: int) -> Array:
    """Return base ** (-2i / rotary_dim), to NumPy's accuracy."""
    return np.asarray(base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim))


def angles(positions: Array, frequencies: Array, axis_of_freq: Array | None = None) -> Array:
    """Angle of every position and pair: positions (..., seq), or (axes, ..., seq) -> (..., seq, pairs)."""
    positions = np.asarray(positions, np.float64)
    if axis_of_freq is None:
        return np.asarray(positions[..., None] * frequencies)
    return np.asarray(np.moveaxis(positions[np.asarray(axis_of_freq)], 0, -1) * frequencies)


def table(
    positions: Array, frequencies: Array, axis_of_freq: Array | None = None, scale: float = 1.0
) -> tuple[Array, Array]:
    """Return scale * cos and scale * sin of the angles."""
    a = angles(positions, frequencies, axis_of_freq)
    return scale * np.cos(a), scale * np.sin(a)


def split_pairs(x: Array, layout: str) -> tuple[Array, Array]:
    """First and second members of the pairs of the last axis, as a layout reads them."""
    if layout == "half":
        middle = x.shape[-1] // 2
        return x[..., :middle], x[..., middle:]
    return x[..., 0::2], x[..., 1::2]


def join_pairs(first: Array, second: Array, layout: str) -> Array:
    """Put members together, as a layout writes them."""
    if layout == "interleaved":
        return np.stack([first, second], -1).reshape(*first.shape[:-1], -1)
    return np.concatenate([first, second], -1)


def apply(
    x: Array, cos: Array, sin: Array, layout: str, rotary_offset: int = 0, seq_axis: int = -2, inverse: bool = False
) -> Array:
    """Rotate x by tables (seq, pairs) or (batch, seq, pairs); the result is float64.

    With inverse, the layouts of reading and writing change places (the sine is the caller's).
    """
    x = np.asarray(x, np.float64)
    width, head_dim = 2 * cos.shape[-1], x.shape[-1]
    rotated = x[..., rotary_offset : rotary_offset + width]
    if rotated.shape[-1] < width:  # an odd head: append the zero
        rotated = np.concatenate([rotated, np.zeros_like(rotated[..., :1])], -1)
    reads, writes = layout, "half" if layout == "interleaved_to_half" else layout
    if inverse and layout == "interleaved_to_half":
        reads, writes = "half", "interleaved"
    a, b = split_pairs(rotated, reads)
    c, s = (_along(t, x.ndim, seq_axis % x.ndim) for t in (cos, sin))
    turned = join_pairs(a * c - b * s, b * c + a * s, writes)
    y = x.copy()
    y[..., rotary_offset : rotary_offset + width] = turned[..., : head_dim - rotary_offset]
    return y


def _along(t: Array, ndim: int, seq_axis: int) -> Array:
    """Shape a table so that its rows lie along the sequence axis and, if it has them, its batch rows along axis 0."""
    t = np.asarray(t, np.float64)
    shape = [1] * ndim
    shape[seq_axis], shape[-1] = t.shape[-2:]
    if t.ndim == 3:
        shape[0] = t.shape[0]
    return t.reshape(shape)


def rotate(
    x: Array,
    positions: Array,
    frequencies: Array,
    layout: str,
    *,
    axis_of_freq: Array | None = None,
    rotary_offset: int = 0,
    seq_axis: int = -2,
    scale: float = 1.0,
    inverse: bool = False,
) -> Array:
    """Rotate x by positions; with inverse, undo it."""
    cos, sin = table(positions, frequencies, axis_of_freq, 1 / scale if inverse else scale)
    return apply(x, cos, -sin if inverse else sin, layout, rotary_offset, seq_axis, inverse)
