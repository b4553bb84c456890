"""What the property tests draw from, and how they compare. Examples are the same in every run (derandomize)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import posenc
from posenc import testing

Array = np.ndarray
reproducible = settings(derandomize=True, deadline=None, max_examples=200)


# ---- what is drawn ----

LAYOUTS = testing.LAYOUTS
KINDS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
ROUNDING = {np.float32: 2.0**-24, np.float64: 2.0**-53, np.float16: 2.0**-11, ml_dtypes.bfloat16: 2.0**-8}
SMALLEST = {np.float32: 2.0**-149, np.float64: 2.0**-1074, np.float16: 2.0**-24, ml_dtypes.bfloat16: 2.0**-133}
FAR = 2**31 - 2**12
layouts = st.sampled_from(LAYOUTS)
kinds = st.sampled_from(KINDS)
seeds = st.integers(0, 2**32 - 1)
bases = st.sampled_from(testing.BASES)
offsets = st.one_of(st.integers(0, 300), st.integers(-(2**20), 2**20), st.integers(-FAR, FAR))


def ropes(layout: str | None = None) -> st.SearchStrategy[posenc.Rope]:
    """Even widths, inner ranges, odd heads, both precisions."""
    return testing.ropes(layout=layout)


def normal(seed: int, shape: tuple[int, ...], kind: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(kind)


# ---- comparisons ----


def assert_same(found: Array, wanted: Array) -> None:
    """The same bits."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    word = f"u{found.itemsize}"
    assert np.array_equal(np.ascontiguousarray(found).view(word), np.ascontiguousarray(wanted).view(word))


def assert_close(found: Array, wanted: Array, tolerance: float | Array) -> None:
    difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    assert np.all(difference <= tolerance), f"{difference.max()} exceeds {np.max(tolerance)}"


def wide(x: Array) -> Array:
    return x.astype(np.float64)
