"""Angles to cosines and sines, and back, with the same bits on every machine.

NumPy's cos, sin and arctan2 take their last bit from the processor and the C library. The way there is posenc's own
table, of position 1 and the angles as frequencies; the way back is made with + - * / alone.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from posenc.tables import rotary_table

Array = npt.NDArray[Any]

# Cephes, atan.c (Moshier, 1984 to 2000): atan(t) = t + t**3 * P(t**2) / Q(t**2), relative error 2e-16 for |t| <= 0.66
_P = (-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1, -1.228866684490136173410e2,
      -6.485021904942025371773e1)  # fmt: skip
_Q = (1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2, 4.853903996359136964868e2,
      1.945506571482613964425e2)  # fmt: skip
_PI = 3.141592653589793
_BENT = 0.66  # beyond, atan(t) = pi/4 + atan((t - 1) / (t + 1))


def cos_sin(angles: Array) -> tuple[Array, Array]:
    """Return the cosines and sines of float32 or float64 angles in radians, below 2**31, in their dtype and shape."""
    if angles.size == 0:
        return np.empty_like(angles), np.empty_like(angles)
    cos, sin = rotary_table([1.0], angles.ravel(), dtype=angles.dtype)
    return cos.reshape(angles.shape), sin.reshape(angles.shape)


def angle(cos: Array, sin: Array) -> Array:
    """Return the angles of points (cos, sin), not both 0, in [-pi, pi], in float64."""
    cos, sin = np.asarray(cos, np.float64), np.asarray(sin, np.float64)
    flat = np.abs(sin) <= np.abs(cos)
    t = np.where(flat, np.abs(sin), np.abs(cos)) / np.where(flat, np.abs(cos), np.abs(sin))
    result = _atan(t)
    result = np.where(flat, result, _PI / 2 - result)
    result = np.where(cos < 0, _PI - result, result)
    return np.copysign(result, sin)


def _atan(t: Array) -> Array:
    """Return the arcus tangent of 0 <= t <= 1."""
    bent = t > _BENT
    t = np.where(bent, (t - 1) / (t + 1), t)
    square = t * t
    result = t + t * (square * _polynomial(_P, square) / _polynomial(_Q, square))
    return np.where(bent, _PI / 4 + result, result)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    result = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result
