"""Checks of parameters: what was expected, what came."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import numpy.typing as npt

MAX_AXES = 8
FLOATS = ("float32", "float64", "float16", "bfloat16")
_LARGEST = (1 << 63) - 1  # of int64
_MOST = 1 << 62  # of any count: NumPy makes an empty array of 2**63 numbers
_LONGEST_SHOWN = 100  # characters of a value in a message


def shown(value: Any) -> str:
    """Return a value as a message shows it: never the numbers of an array, and no more of others than fits a line."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)} and dtype {getattr(value, 'dtype', None)}"
    if isinstance(value, int) and value.bit_length() > _LONGEST_SHOWN:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}.."


def is_boolean(value: Any) -> bool:
    """Return whether a value is a boolean of Python, NumPy or torch, which would count as the number 0 or 1."""
    return isinstance(value, (bool, np.bool_)) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def integer(name: str, value: Any, least: int, most: int = _MOST) -> int:
    """Return value as an int of at least `least`, and at most `most`."""
    number = value if type(value) is int else _integral(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if number > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(number)}")
    return number


def _integral(name: str, value: Any) -> int:
    """Return what is no int by itself as one; apart, since to look so far takes half as long as a decode step."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or is_boolean(value):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    return number


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return value if it is one of the names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def finite(name: str, value: Any, what: str = "finite") -> float:
    """Return a number as a finite float."""
    no_number = isinstance(value, str) or getattr(value, "requires_grad", False)  # whose gradient would be lost
    try:
        number = None if no_number else float(value)
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several elements
        number = None
    except OverflowError:
        number = math.inf
    if number is None or is_boolean(value):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """Return a number as a positive, finite float."""
    number = finite(name, value, "positive and finite")
    if number <= 0:
        raise ValueError(f"{name} must be positive and finite, got {shown(value)}")
    return number


def fraction(name: str, value: Any) -> float:
    """Return a number between 0 and 1."""
    number = finite(name, value, "between 0 and 1")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {shown(value)}")
    return number


def not_negative(name: str, value: Any) -> float:
    """Return a number as a finite float of at least 0."""
    number = finite(name, value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {shown(value)}")
    return number


def at_least_one(name: str, value: Any) -> float:
    """Return a number as a finite float of at least 1."""
    number = finite(name, value)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {shown(value)}")
    return number


def optional(checked: Callable[[str, Any], float], name: str, value: Any) -> float | None:
    """Return None, or what a check makes of a value."""
    return None if value is None else checked(name, value)


def flag(name: str, value: Any) -> bool:
    """Return a boolean."""
    if value is True or value is False:
        return value
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def sequence(name: str, values: Any, what: str = "integers") -> list[Any]:
    """Return the elements of a list, a tuple or an array; sets have no order, and text is no list of numbers."""
    unordered = isinstance(values, (str, bytes, bytearray, set, frozenset, dict))
    if unordered or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a sequence of {what}, got {shown(values)}")
    return list(values)


def numbers(name: str, values: Any, checked: Callable[[str, Any], float]) -> tuple[float, ...]:
    """Return a tuple of checked floats from a sequence or an array; a message names the index."""
    result = tuple(checked(f"{name}[{i}]", value) for i, value in enumerate(sequence(name, values, "numbers")))
    if not result:
        raise ValueError(f"{name} must not be empty")
    return result


def base(value: Any, name: str = "base") -> float:
    """Return a base of frequencies; beyond these bounds parts of their low words would underflow."""
    number = positive(name, value)
    if not 1e-300 <= number <= 1e300:
        raise ValueError(f"{name} must lie between 1e-300 and 1e300, got {shown(value)}")
    return number


def scaling(value: Any) -> Any:
    """Return a frequency scaling, or None."""
    named = ["frequencies", "depends_on_length"] + ["effective_length"] * bool(getattr(value, "depends_on_length", 0))
    if value is None or (not isinstance(value, type) and all(hasattr(value, name) for name in named)):
        return value
    raise TypeError(f"scaling must be None or a scaling of posenc.scaling, got {shown(value)}")


def plain_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return a copy as an array, from NumPy, torch or a list."""
    if hasattr(value, "detach"):  # a torch buffer or parameter
        try:
            value = value.detach().cpu().resolve_conj().resolve_neg().numpy()
        except (RuntimeError, TypeError) as error:
            raise TypeError(f"{name} is a tensor that NumPy cannot read: {error}") from None
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored; pass {name}.data or {name}.filled()")
    try:
        return np.array(value)
    except (TypeError, ValueError) as error:  # rows of different lengths
        raise type(error)(f"{name} must be an array, or what NumPy can make one of: {error}") from None


def integers(name: str, value: Any) -> npt.NDArray[np.int64]:
    """Return an array of integers as int64."""
    array = plain_array(name, value)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.dtype == np.uint64 and array.max(initial=0) > _LARGEST:
        raise ValueError(f"{name} must be below 2**63, got {array.max()}")
    return array.astype(np.int64)


def frequencies(inv_freq: Any) -> npt.NDArray[np.float64]:
    """Return a float64 copy of inverse frequencies."""
    array = plain_array("inv_freq", inv_freq)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"inv_freq must have shape (rotary_dim/2,), got {array.shape}")
    if array.dtype.kind not in "fiu" or array.dtype.itemsize < 4:
        raise TypeError(f"inv_freq must be float32 or float64, got {array.dtype}")
    return _cast_finite(array, np.float64)


def rounded(inv_freq: npt.NDArray[np.float64], precision: str) -> npt.NDArray[np.float64]:
    """Return the frequencies as a precision uses them."""
    if precision != "float32":
        return inv_freq
    return _cast_finite(inv_freq, np.float32).astype(np.float64)


def _cast_finite(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if not np.isfinite(result).all():
        where = " in float32" if dtype is np.float32 else ""
        raise ValueError(f"inv_freq must be finite{where}, got {array[~np.isfinite(result)][0]}")
    return result


def axes_of(axis_of_freq: Any, pairs: int) -> npt.NDArray[np.int64] | None:
    """Return a checked int64 copy, or None."""
    if axis_of_freq is None:
        return None
    array = plain_array("axis_of_freq", axis_of_freq)
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


def float_dtype(dtype: Any, names: tuple[str, ...] = FLOATS) -> np.dtype[Any]:
    """Return one of the float dtypes, by its name or a dtype of NumPy, ml_dtypes or torch."""
    text = str(dtype).removeprefix("torch.")
    kind: np.dtype[Any] | None = None
    try:
        if text == "bfloat16" and text in names:
            import ml_dtypes

            kind = np.dtype(ml_dtypes.bfloat16)
        elif dtype is not None:  # which NumPy reads as float64
            kind = np.dtype(text if type(dtype).__module__ == "torch" else dtype)
    except (TypeError, ValueError):  # what NumPy takes for no dtype
        pass
    if kind is None or kind.name not in names or not kind.isnative:
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        raise TypeError(f"dtype must be {expected}, got {shown(dtype) if kind is None else kind}")
    return kind


def is_float64(dtype: Any) -> bool:
    """Return whether a table dtype is float64; float32 is the other one there is."""
    return float_dtype(dtype, FLOATS[:2]).name == "float64"


def sequence_length(seq_len: Any, positions: Any, offset: Any, seq: int) -> int:
    """Return seq_len, or the largest position of a call plus one."""
    if seq_len is not None:
        return integer("seq_len", seq_len, 1)
    if positions is None:
        largest = float(np.max(np.asarray(offset, np.float64), initial=1 - seq)) + seq - 1
    else:
        largest = float(np.max(np.asarray(positions, np.float64), initial=0))
    if not math.isfinite(largest):
        raise ValueError(f"positions must be finite, got {largest}")
    return max(1, math.floor(largest) + 1)
