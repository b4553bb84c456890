"""Angles per token from phases at a few positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

TURN = 2 * np.pi


@dataclass(frozen=True)
class Turning:
    """How elements turn: phase = start + position * frequency.

    Attributes
    ----------
    frequency, start : ndarray of float64, shape (rows,)
        Radians per token; radians at position 0.
    uncertainty : ndarray of float64, shape (rows,)
        Of the frequency.
    consistent : bool
        Whether one frequency explains all phases.
    """

    frequency: Floats
    start: Floats
    uncertainty: Floats
    consistent: bool


def wrapped(angle: Floats) -> Floats:
    """Return angles between -pi and pi."""
    return angle - TURN * np.round(angle / TURN)


def unwrap(positions: npt.NDArray[np.int64], turns: npt.NDArray[np.complex128]) -> Turning:
    """Return frequencies from unit complex numbers of shape (seq, rows) at positions that hold 0, 1 (or 2), 4, 8, ...

    The phase from 0 to 1 is taken to be less than half a turn; each doubled position then corrects the frequency by
    what its phase is off, divided by the position. So the error falls as the position grows.
    """
    order = {int(p): turns[j] for j, p in enumerate(positions)}
    start = np.angle(order[0])
    at = [p for p in (2**k for k in range(40)) if p in order]
    frequency, worst = np.zeros(len(start)), 0.0
    noise = last = np.zeros(len(start))
    with np.errstate(invalid="ignore"):
        for p in at:
            off = wrapped(np.angle(order[p] * np.exp(-1j * start)) - wrapped(p * frequency))
            frequency = frequency + off / p
            if p > at[0]:
                worst = max(worst, float(np.max(np.abs(off), initial=0.0)))
                noise, last = np.maximum(np.abs(off), last), np.abs(off)
        uncertainty = (2 * noise + 2e-7) / at[-1] + 2e-7 * np.abs(frequency)
    return Turning(frequency, start, uncertainty, bool(worst < 0.25) and bool(np.isfinite(frequency).all()))
