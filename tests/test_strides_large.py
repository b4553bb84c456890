"""Strides, rows and shapes that do not fit in 32 bits: bytes beyond 2 GiB, and more elements than 2^31."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import posenc
from conftest import assert_refused, assert_same_bits
from test_strides import FLOATS, noise

GIB = 2**30


@pytest.fixture(scope="module")
def vast() -> np.ndarray:
    """Return 12 GiB of address space, of which only touched pages exist."""
    return np.empty(12 * GIB, np.uint8)


def far_apart(vast: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    view = as_strided(vast[: values.itemsize].view(values.dtype), shape, strides)
    view[...] = values
    return view


@pytest.mark.parametrize("far", [0, 1, 2])
@pytest.mark.parametrize("dtype", FLOATS)
def test_strides_beyond_two_gib(far: int, dtype: Any, vast: np.ndarray, rng: np.random.Generator) -> None:
    """One axis whose rows lie 5 GiB apart, in place and into a new array."""
    values = noise(rng, (2, 2, 2, 8), dtype)
    strides = [4096, 1024, 256]
    strides[far] = 5 * GIB
    rope = posenc.Rope(8, layout="interleaved")
    view = far_apart(vast, values.shape, (*strides, values.itemsize), values)
    expected = rope(values, offset=[3, 4])
    assert_same_bits(rope(view, offset=[3, 4]), expected)
    assert_same_bits(rope(view, offset=[3, 4], out=view), expected)
    back = view[::-1, ::-1, ::-1]
    assert_same_bits(rope(back, out=back), rope(expected[::-1, ::-1, ::-1]))


def test_rows_beyond_two_gib(vast: np.ndarray) -> None:
    """The last row of a table of more than 2^31 rows, of which only that one exists."""
    rows, x = 2**31 + 7, np.ones((1, 4), np.float32)
    table = as_strided(vast[:4].view(np.float32), (rows, 2), (4, 4))
    table[-1] = 0.5, 0.25

    def turned(**which: Any) -> np.ndarray:
        return posenc.apply_rotary_emb(x, table, table, layout="half", **which)

    assert turned(offset=rows - 1).tolist() == [[0.0, 0.0, 1.0, 0.5]]
    assert turned(positions=np.array([rows - 1])).tolist() == [[0.0, 0.0, 1.0, 0.5]]
    text = f"position {rows} is outside the table, which has rows 0 to {rows - 1}"
    assert_refused(IndexError, text, lambda: turned(offset=rows), x)


def test_rows_of_a_broadcast_table() -> None:
    """2^33 rows that are one row."""
    table, x = np.broadcast_to(np.float32(1), (2**33, 4)), np.ones((3, 8), np.float32)
    found = posenc.apply_rotary_emb(x, table, table, layout="half", offset=2**33 - 3)
    assert np.array_equal(found, [[0.0] * 4 + [2.0] * 4] * 3)


@pytest.mark.parametrize("shape", [(2**31 + 8, 4, 8), (4, 2**31 + 8, 8), (2**29 + 1, 2, 2, 8), (2**40, 3, 8)])
def test_more_elements_than_fit_in_32_bits(shape: tuple[int, ...]) -> None:
    """Inputs of more than 2^31 elements that are one number: refused for what is wrong, before a byte is written."""
    rope, small = posenc.Rope(8, layout="half"), np.zeros((4, 8), np.float32)
    x = np.broadcast_to(np.float32(1), shape)
    same = as_strided(small, shape, x.strides)
    how = {"seq_axis": int(np.argmin(shape[:-1]))}
    assert_refused(ValueError, "out must have the shape of x, (", lambda: rope(x, out=small, **how), small)
    assert_refused(ValueError, "stores several elements", lambda: rope(x, out=same, **how), small)
    assert_refused(ValueError, "positions must be finite", lambda: rope(x, offset=2**31, **how), small)


def test_a_sequence_of_more_than_two_to_the_31() -> None:
    """Its last positions are too large, so it is refused before anything of that size is made."""
    x = np.broadcast_to(np.float32(1), (2**31 + 1, 8))
    assert_refused(ValueError, "positions must be finite", lambda: posenc.Rope(8, layout="half")(x))
