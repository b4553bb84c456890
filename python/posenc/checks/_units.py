"""How far two arrays are apart: in units of the last place, and where first."""

from __future__ import annotations

from typing import Any

import numpy as np

from posenc.checks._calling import as_float64, dtype_name

#: dtype -> (bits of the significand, exponent of the smallest normal number)
_FORMATS = {"float64": (53, -1022), "float32": (24, -126), "float16": (11, -14), "bfloat16": (8, -126)}


def units(actual: Any, expected: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return |actual - expected| in units of the last place of actual's dtype at expected; NaN beside NaN is 0."""
    bits, least = _FORMATS.get(dtype_name(actual), _FORMATS["float32"])
    a, e = as_float64(actual), as_float64(expected)
    with np.errstate(all="ignore"):
        exponent = np.frexp(np.abs(e))[1] - 1
        unit = np.ldexp(1.0, np.maximum(exponent, least) - (bits - 1))
        apart = np.abs(a - e) / unit
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def first_bad(actual: Any, expected: Any, tolerance: float) -> tuple[int, ...] | None:
    """Return the first index, in C order, where the two differ by more than an absolute tolerance, or None."""
    a, e = as_float64(actual), as_float64(expected)
    with np.errstate(invalid="ignore"):
        bad = ~((np.abs(a - e) <= tolerance) | (a == e) | (np.isnan(a) & np.isnan(e)))
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None
