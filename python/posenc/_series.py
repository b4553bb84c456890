"""Logarithms and powers of whole arrays, the same bits on every processor.

NumPy's own log, exp and power call code whose last bit depends on the processor and the C library. These are + - * /
and exact scaling by powers of two alone, within a few units in the last place; `posenc._exact` is correctly rounded but
takes one number at a time.
"""

from __future__ import annotations

from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LN2 = 0.6931471805599453  # the float64 nearest to ln 2
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # 33 bits of it: times an exponent this is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")  # the rest
_ROOT_HALF = 0.7071067811865476
_ATANH = tuple(1 / k for k in range(23, 1, -2))  # s + s^3/3 + ..; |s| <= 0.1716 leaves s^25/25 < 3e-21
_EXP = tuple(1 / factorial(k) for k in range(14, -1, -1))  # |r| <= 0.347 leaves r^15/15! < 1e-19


def log(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the natural logarithm of positive float64 numbers, within 2 units in the last place.

    x = m * 2**e with m between sqrt(1/2) and sqrt(2), and ln m = 2 artanh((m - 1) / (m + 1)) as a power series.
    """
    mantissa, exponent = np.frexp(np.asarray(x, np.float64))
    small = mantissa < _ROOT_HALF
    mantissa = np.where(small, mantissa + mantissa, mantissa)
    exponent = (exponent - small).astype(np.float64)
    s = (mantissa - 1) / (mantissa + 1)
    rest = s * _horner(_ATANH, s * s) * (s * s)
    return np.asarray(exponent * _LN2_HIGH + (exponent * _LN2_LOW + 2 * rest + 2 * s))


def exp(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return e to the power of float64 numbers of at most 700 either way, within 2 units in the last place.

    x = n * ln 2 + r with |r| <= ln(2)/2; e**r as a power series, times 2**n exactly.
    """
    x = np.asarray(x, np.float64)
    n = np.rint(x / LN2)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    return np.asarray(np.ldexp(_horner(_EXP, r), n.astype(np.int32)))


def _horner(coefficients: tuple[float, ...], x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
