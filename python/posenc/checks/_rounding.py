"""Values as 16-bit floats hold them, in NumPy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def bfloat16(values: Any) -> Floats:
    """Return float64 of the values rounded to bfloat16, to nearest even; NaN and infinities stay."""
    single = np.asarray(values, np.float64).astype(np.float32)
    words = single.view(np.uint32)
    rounded = ((words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)) << np.uint32(
        16
    )
    return np.where(np.isfinite(single), rounded.astype(np.uint32).view(np.float32), single).astype(np.float64)


def float16(values: Any) -> Floats:
    """Return float64 of the values rounded to float16; beyond 65504 an infinity."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float64).astype(np.float16).astype(np.float64)


HALVES: dict[str, Callable[[Any], Floats]] = {"bfloat16": bfloat16, "float16": float16}


def held_by(values: Any) -> str | None:
    """Return the narrowest of "bfloat16" and "float16" that holds every value exactly, or None."""
    for name, rounded in HALVES.items():
        if np.array_equal(rounded(values), np.asarray(values, np.float64)):
            return name
    return None
