"""The geometric series of frequencies that every rotation starts from, in the two precisions there are.

"exact" is float64 arithmetic on the nearest float64 numbers. "float32" repeats the float32 steps of transformers, in
their order, on correctly rounded powers (torch's own pow misses those by an ulp in about one of a hundred).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core
from posenc import _parameters as check

if TYPE_CHECKING:
    import numpy.typing as npt

PRECISIONS = ("exact", "float32")


def unscaled(rotary_dim: int, base: float, precision: str = "exact") -> npt.NDArray[Any]:
    """Return base ** (-2i/rotary_dim): the nearest float64, or as float32 what transformers computes.

    That is 1.0 / (base ** (arange(0, rotary_dim, 2) / rotary_dim)) in float32, the power correctly rounded.
    """
    if check.choice("precision", precision, PRECISIONS) == "exact":
        return _core.inv_freq(check.base(base), _even(rotary_dim))
    with np.errstate(divide="ignore", over="ignore"):  # whoever uses them looks for infinite ones
        return 1 / _powers(rotary_dim, base)


def stretched(rotary_dim: int, base: float, precision: str, by: float | npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the unscaled frequencies divided by `by`; in float32 as 1 / (by * power), which transformers rounds."""
    if precision == "exact":
        return unscaled(rotary_dim, base, precision) / by
    by = np.asarray(by, np.float32) if isinstance(by, np.ndarray) else by
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / (by * _powers(rotary_dim, base))


def divide(number: float, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return number / array; in float32 as torch does it, which multiplies by the reciprocal."""
    if array.dtype == np.float32:
        return (1 / array) * number
    return number / array


def _powers(rotary_dim: int, base: float) -> npt.NDArray[np.float32]:
    return _core.float32_powers(check.base(base), _even(rotary_dim)).astype(np.float32)


def _even(rotary_dim: int) -> int:
    width = check.integer("rotary_dim", rotary_dim, 2, most=1 << 48)
    if width % 2:
        raise ValueError(f"rotary_dim must be even, got {width}")
    return width
