"""Checks of parameters: what was expected, what came."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

MAX_AXES = 8


def integer(name: str, value: Any, least: int) -> int:
    """Return value as an int of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    number = int(value.__index__())
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return value if it is one of the names."""
    names = list(choices)
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, names))}, got {value!r}")
    return str(value)


def positive(name: str, value: Any) -> float:
    """Return value as a positive, finite float."""
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return number


def frequencies(inv_freq: Any) -> npt.NDArray[np.float64]:
    """Return a float64 copy of inverse frequencies, from NumPy, torch or a list."""
    if hasattr(inv_freq, "detach"):  # a torch buffer or parameter
        inv_freq = inv_freq.detach().cpu().numpy()
    array = np.array(inv_freq)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"inv_freq must have shape (rotary_dim/2,), got {array.shape}")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize < 4:
        raise TypeError(f"inv_freq must be float32 or float64, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"inv_freq must be finite, got {array[~np.isfinite(array)][0]}")
    return array.astype(np.float64)


def rounded(inv_freq: npt.NDArray[np.float64], precision: str) -> npt.NDArray[np.float64]:
    """Return the frequencies as a precision uses them."""
    return inv_freq.astype(np.float32).astype(np.float64) if precision == "float32" else inv_freq


def axes_of(axis_of_freq: Any, pairs: int) -> npt.NDArray[np.int64] | None:
    """Return a checked int64 copy, or None."""
    if axis_of_freq is None:
        return None
    array = np.array(axis_of_freq)
    if array.shape != (pairs,):
        raise ValueError(f"axis_of_freq must have shape ({pairs},), got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"axis_of_freq must be integers, got {array.dtype}")
    if array.min() < 0 or array.max() >= MAX_AXES:
        raise ValueError(f"axis_of_freq must lie between 0 and {MAX_AXES - 1}, got {array.min()} to {array.max()}")
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array


def count_axes(axis_of_freq: npt.NDArray[np.int64] | None) -> int:
    """Return the number of position axes that the frequencies name."""
    return 1 if axis_of_freq is None else int(axis_of_freq.max()) + 1


def rotary_width(head_dim: int, rotary_dim: Any, rotary_offset: int, pairs: int | None) -> int:
    """Return rotary_dim as frequencies see it: even, and head_dim + 1 for a whole odd head.

    `pairs` is the length of frequencies that were given, or None.
    """
    if rotary_dim is not None:
        width = integer("rotary_dim", rotary_dim, 1)
    elif pairs is None:
        width = head_dim - rotary_offset
    else:
        width = head_dim if (2 * pairs, rotary_offset) == (head_dim + 1, 0) else 2 * pairs
    if width % 2 and width != head_dim:
        raise ValueError(f"rotary_dim must be even or equal to head_dim ({head_dim}), got {width}")
    if width < 1 or rotary_offset + width > head_dim:
        raise ValueError(
            f"rotary_offset + rotary_dim must be at most head_dim ({head_dim}), got {rotary_offset} + {width}"
        )
    width += width % 2
    if pairs is not None and pairs != width // 2:
        raise ValueError(f"inv_freq must have {width // 2} frequencies for rotary_dim {width}, got {pairs}")
    return width


def is_float64(dtype: npt.DTypeLike) -> bool:
    """Return whether a table dtype is float64; float32 is the other one there is."""
    kind = np.dtype(dtype)
    if kind not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {kind}")
    return bool(kind == np.dtype(np.float64))


def sequence_length(seq_len: Any, positions: Any, offset: Any, seq: int) -> int:
    """Return seq_len, or the largest position of a call plus one."""
    if seq_len is not None:
        return integer("seq_len", seq_len, 1)
    largest = np.max(np.asarray(offset)) + seq - 1 if positions is None else np.max(np.asarray(positions), initial=0)
    return max(1, math.floor(float(largest)) + 1)
