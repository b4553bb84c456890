"""Arrays of any library as something that knows its shape and can be sliced."""

from typing import Any

import numpy as np


def sliceable(array: Any) -> Any:
    """Return what can be sliced: the array, or NumPy's view of one that only has __dlpack__."""
    return array if hasattr(array, "ndim") else np.from_dlpack(array)


def as_array(values: Any) -> Any:
    """Return an array or a tensor as it is, and anything else as an array; what is none stays, C says what it lacks."""
    try:
        return values if hasattr(values, "ndim") else np.asarray(values)
    except (TypeError, ValueError):  # rows of different lengths
        return values


def batch_rows(*arrays: Any) -> int | None:
    """Return how many batch rows arguments have, or None where none has such an axis."""
    rows = [len(a) for a in map(as_array, arrays) if getattr(a, "ndim", 0) == 2]
    return max(rows) if rows else None
