"""Rotation, tables and additions as numba loops: what one writes by hand for one layout and one order of axes."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

Kernel = Callable[..., None]


@numba.njit(inline="always")
def half_row(x: Any, cos: Any, sin: Any) -> None:
    """Rotate one head, pairs being i and i + dim/2."""
    half = cos.shape[0]
    for i in range(half):
        a, b = x[i], x[i + half]
        x[i] = a * cos[i] - b * sin[i]
        x[i + half] = b * cos[i] + a * sin[i]


@numba.njit(inline="always")
def interleaved_row(x: Any, cos: Any, sin: Any) -> None:
    """Rotate one head, pairs being 2i and 2i + 1."""
    for i in range(cos.shape[0]):
        a, b = x[2 * i], x[2 * i + 1]
        x[2 * i] = a * cos[i] - b * sin[i]
        x[2 * i + 1] = b * cos[i] + a * sin[i]


def tokens_first(row: Kernel, parallel: bool) -> Kernel:
    """Return the loop over x (tokens, heads, dim), cos and sin (positions, dim/2)."""

    @numba.njit(parallel=parallel)
    def rotate(x: Any, cos: Any, sin: Any, positions: Any) -> None:
        for token in numba.prange(x.shape[0]):
            c, s = cos[positions[token]], sin[positions[token]]
            for head in range(x.shape[1]):
                row(x[token, head], c, s)

    return rotate


def heads_first(row: Kernel, parallel: bool) -> Kernel:
    """Return the loop over x (heads, tokens, dim), head by head."""

    @numba.njit(parallel=parallel)
    def rotate(x: Any, cos: Any, sin: Any, positions: Any) -> None:
        for head in numba.prange(x.shape[0]):
            for token in range(x.shape[1]):
                row(x[head, token], cos[positions[token]], sin[positions[token]])

    return rotate


def heads_first_blocked(row: Kernel, parallel: bool, block: int = 32) -> Kernel:
    """Return the same loop over tokens in blocks whose cosines and sines stay in cache."""

    @numba.njit(parallel=parallel)
    def rotate(x: Any, cos: Any, sin: Any, positions: Any) -> None:
        heads, tokens, _ = x.shape
        for part in numba.prange((tokens + block - 1) // block):
            for head in range(heads):
                for token in range(part * block, min(tokens, (part + 1) * block)):
                    row(x[head, token], cos[positions[token]], sin[positions[token]])

    return rotate


ROWS: dict[str, Kernel] = {"half": half_row, "interleaved": interleaved_row}


def table() -> Kernel:
    """Return the loop that fills cos and sin (positions, dim/2) in float32."""

    @numba.njit(parallel=True)
    def fill(positions: Any, inv_freq: Any, cos: Any, sin: Any) -> None:
        for row in numba.prange(positions.shape[0]):
            position = np.float32(positions[row])
            for i in range(inv_freq.shape[0]):
                angle = position * inv_freq[i]
                cos[row, i], sin[row, i] = np.cos(angle), np.sin(angle)

    return fill


def sinusoidal(interleaved: bool) -> Kernel:
    """Return the loop that fills a sinusoidal table (positions, dim) in float32."""

    @numba.njit(parallel=True)
    def fill(inv_freq: Any, out: Any) -> None:
        half = inv_freq.shape[0]
        for row in numba.prange(out.shape[0]):
            position = np.float32(row)
            for i in range(half):
                angle = position * inv_freq[i]
                if interleaved:
                    out[row, 2 * i], out[row, 2 * i + 1] = np.sin(angle), np.cos(angle)
                else:
                    out[row, i], out[row, half + i] = np.sin(angle), np.cos(angle)

    return fill


def addition() -> Kernel:
    """Return the loop over x (batch, tokens, dim), batch row by batch row."""

    @numba.njit(parallel=True)
    def add(x: Any, table: Any) -> None:
        batch, tokens, dim = x.shape
        for i in numba.prange(batch * tokens):
            for k in range(dim):
                x[i // tokens, i % tokens, k] += table[i % tokens, k]

    return add


def addition_blocked(block: int = 8) -> Kernel:
    """Return the loop over tokens in blocks whose rows of the table stay in cache for the whole batch."""

    @numba.njit(parallel=True)
    def add(x: Any, table: Any) -> None:
        batch, tokens, dim = x.shape
        for part in numba.prange((tokens + block - 1) // block):
            for row in range(batch):
                for token in range(part * block, min(tokens, (part + 1) * block)):
                    for k in range(dim):
                        x[row, token, k] += table[token, k]

    return add
