"""Which pairs turn how often within a context, and the ramp between two of them: shared by NTK by parts and YaRN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact

if TYPE_CHECKING:
    import numpy.typing as npt


def correction_range(
    fast: float, slow: float, rotary_dim: int, base: float, length: int, truncate: bool = True
) -> tuple[float, float]:
    """Return the pair numbers (low, high) that turn `fast` and `slow` times within `length` tokens.

    d(n) = r * ln(length / (2 pi n)) / (2 ln base) (Peng et al., arXiv:2309.00071, section 3.2; the clamping and the
    rounding of jquesnelle/yarn and transformers: down and up where `truncate`, within 0 .. r-1).

    Raises
    ------
    ValueError
        If the range is empty: then the ramp would run backwards, and interpolate the pairs that it should keep.
    """
    if base <= 1:
        raise ValueError(f"a ramp over the pairs needs a base above 1, got {base}")
    low, high = (
        rotary_dim * _exact.log(length / (turns * _exact.TWO_PI)) / (2 * _exact.log(base)) for turns in (fast, slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    if low > high:
        raise ValueError(
            f"no pair of {rotary_dim // 2} turns between {slow:g} and {fast:g} times within {length} tokens at base "
            f"{base:g}: the ramp would run from {low:g} to {high:g}"
        )
    return low, high


def ramp(low: float, high: float, pairs: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return 0 up to pair `low`, 1 from pair `high` on, linear between; a step where they are the same."""
    width = high - low if high != low else 0.001
    return np.clip((np.arange(pairs, dtype=dtype) - low) / width, 0, 1).astype(dtype)
