"""Which base and which scaling make given frequencies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import scaling as scalings
from posenc._frequencies import unscaled
from posenc.scaling._ramp import correction_range

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_ROUNDING = 4e-7  # two units of float32, relative, and what reading them off float32 outputs adds
#: bases that models have, to recognise those that a scaling has enlarged
BASES = (1e4, 5e5, 1e6, 1e5, 1.5e5, 1.6e5, 2e6, 5e6, 1e7, 5e4, 2.5e4, 8e6, 1e3, 1e2)


@dataclass(frozen=True)
class Fit:
    """A base and a scaling that make the frequencies, and how well.

    Attributes
    ----------
    name : str
        "default", "linear", "ntk", "llama3", "yarn", "proportional", ..
    base : float
    scaling : scaling of `posenc.scaling`, or None
    error : float
        The largest |fitted - measured| in units of what measuring and float32 may cost; up to 1 it is a fit.
    note : str
        What else gives the same frequencies.
    """

    name: str
    base: float
    scaling: Any
    error: float
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether it explains every frequency."""
        return self.error <= 1


def fit(theta: Floats, uncertainty: Floats, width: int) -> list[Fit]:
    """Return what could make the frequencies of the pairs 0, 1, .. of a rotary width, the best first.

    Parameters
    ----------
    theta : ndarray, shape (width/2,)
        Not negative; 0 where a pair does not turn.
    uncertainty : ndarray, shape (width/2,)
        How well they were measured.
    """
    found = []
    for name, base, scaling, note in _candidates(theta, uncertainty, width):
        made = frequencies(base, scaling, width) if base > 1 else None  # slower pairs come later, in every convention
        if made is not None:
            gap = np.abs(made - theta)
            error = float(np.max(gap / (_ROUNDING * theta + 2 * uncertainty + 1e-14)))
            found.append(Fit(name, base, scaling, error, note))
    # the simplest that fits, else the nearest: candidates come in the order of their number of parameters
    return sorted(found, key=lambda each: 0.0 if each.fits else each.error)


def frequencies(base: float, scaling: Any, width: int) -> Floats | None:
    """Return exact frequencies, or None where base and scaling make none."""
    try:
        return unscaled(width, base) if scaling is None else scaling.frequencies(width, base, None, "exact")[0]
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        return None


def nice(value: float, tolerance: float) -> float:
    """Return the number of the fewest digits within a relative tolerance, or the value itself."""
    if not math.isfinite(value) or value <= 0:
        return value
    for digits in range(1, 9):
        rounded = float(f"{value:.{digits - 1}e}")
        if abs(rounded / value - 1) <= tolerance:
            return rounded
    return value


def _candidates(theta: Floats, uncertainty: Floats, width: int) -> Iterator[tuple[str, float, Any, str]]:
    turning = np.flatnonzero(theta > 4 * uncertainty)
    if not len(turning):
        return
    count = int(turning[-1]) + 1
    if len(turning) == count == len(theta):
        yield from _whole(theta, uncertainty, width)
    elif len(turning) == count:  # the last ones do not turn
        base, factor = _line(theta[:count], uncertainty[:count], width)
        share = 2 * count / width
        yield "proportional", _nice_base(base), scalings.Proportional(share), ""
        yield "proportional", _nice_base(base), scalings.Proportional(share, nice(factor, 1e-4)), ""


def _whole(theta: Floats, uncertainty: Floats, width: int) -> Iterator[tuple[str, float, Any, str]]:
    if len(theta) == 1:
        yield "default", 10000.0, None, "one pair turns by its position whatever the base"
        yield "linear", 10000.0, scalings.Linear(nice(1 / theta[0], 1e-6)), "one pair says nothing of the base"
        return
    base = _through_one(theta, uncertainty, width)
    yield "default", _nice_base(base), None, _enlarged(base, width)
    yield "default", base, None, _enlarged(base, width)
    yield from _banded(theta, uncertainty, width)
    base, factor = _line(theta, uncertainty, width)
    if base > 0 and math.isfinite(factor):
        yield "linear", _nice_base(base), scalings.Linear(nice(factor, 1e-4)), _lookalike(base, factor, width)
        yield "linear", base, scalings.Linear(factor), _lookalike(base, factor, width)


def _nice_base(base: float) -> float:
    return nice(base, 2e-5)


def _through_one(theta: Floats, uncertainty: Floats, width: int) -> float:
    """Return the base whose line of logarithms passes through frequency 1 at pair 0."""
    i = np.arange(1, len(theta))
    weight = (theta[1:] / (uncertainty[1:] + _ROUNDING * theta[1:])) ** 2
    slope = -float(np.sum(weight * i * np.log(theta[1:])) / np.sum(weight * i * i))
    return _exp(slope * width / 2)


def _line(theta: Floats, uncertainty: Floats, width: int) -> tuple[float, float]:
    """Return (base, factor) of base ** (-2i/width) / factor nearest to the frequencies."""
    if len(theta) < 2:
        return 10000.0, 1 / float(theta[0])
    i, weight = np.arange(len(theta)), theta / (uncertainty + _ROUNDING * theta)
    slope, start = np.polynomial.polynomial.polyfit(i, np.log(theta), 1, w=weight)[::-1]
    return _exp(-float(slope) * width / 2), _exp(-float(start))


def _exp(value: float) -> float:
    return math.exp(value) if abs(value) < 600 else math.inf


def _enlarged(base: float, width: int) -> str:
    """Return how NTK-aware scaling would make a base that nobody would choose."""
    if width <= 2 or not math.isfinite(base) or base <= 0 or len(f"{_nice_base(base):.8g}".strip("0").rstrip(".")) <= 3:
        return ""
    for usual in BASES:
        factor = (base / usual) ** ((width - 2) / width)
        near = nice(factor, 1e-4)
        if factor > 1.05 and abs(near / factor - 1) <= 1e-4 and len(f"{near:.8g}".rstrip("0").rstrip(".")) <= 4:
            return f"the same as base {usual:g} with scaling NTK({near:g})"
    return ""


def _lookalike(base: float, factor: float, width: int) -> str:
    """Return vLLM's "ntk" where base * s and division by s ** (2/r) give the line."""
    s = _exp(math.log(factor) * width / 2) if factor > 0 else math.inf
    near, usual = nice(s, 1e-3), nice(base / s, 1e-3)
    if 1.05 < s <= 64 and usual in BASES and usual >= 1e3 and abs(near / s - 1) < 1e-3 and len(f"{near:.8g}") <= 4:
        return f'the same as base {usual:g} with scaling VllmNTK({near:g}), which vLLM calls "ntk"'
    return ""


# ---- fast pairs kept, slow ones interpolated


def _banded(theta: Floats, uncertainty: Floats, width: int) -> Iterator[tuple[str, float, Any, str]]:
    """Yield Llama 3's scaling and YaRN, whose first pairs are those of the base."""
    kept = _kept(theta, uncertainty, width)
    if kept is None:
        return
    base, run = kept
    plain = unscaled(width, base)
    ratio = theta / plain
    if ratio[-1] >= 1 - 1e-5 or run >= len(theta):
        return
    factor = nice(float(1 / ratio[-1]), 1e-5)
    t = (ratio - 1 / factor) / (1 - 1 / factor)
    ramp = np.flatnonzero((t > 1e-4) & (t < 1 - 1e-4))
    yield from _llama3(base, factor, plain, t, ramp)
    yield from _yarn(base, factor, width, t, ramp)
    for length in (2**k for k in range(8, 22)):
        yield "ntk_by_parts", base, scalings.NTKByParts(factor, length), ""


def _kept(theta: Floats, uncertainty: Floats, width: int) -> tuple[float, int] | None:
    """Return (base, how many of the first pairs it makes), or None."""
    if abs(theta[0] - 1) > 1e-5 + 2 * uncertainty[0] or len(theta) < 4:
        return None
    best = None
    for run in range(2, len(theta)):
        base = _nice_base(_through_one(theta[:run], uncertainty[:run], width))
        if not (1 < base < 1e30):
            return best
        made = unscaled(width, base)[:run]
        if np.any(np.abs(made - theta[:run]) > 4 * uncertainty[:run] + 4 * _ROUNDING * theta[:run]):
            return best
        best = base, run
    return best


_LONGEST = 2.0**60  # of the lengths that a line through a few pairs may come to


def _llama3(base: float, factor: float, plain: Floats, t: Floats, ramp: Any) -> Iterator[tuple[str, float, Any, str]]:
    """Yield scalings with t = (L / wavelength - low) / (high - low); L, low and high share an unknown factor."""
    usual = [(8.0, 1.0, 4.0, 8192), (factor, 1.0, 4.0, 8192)]
    if len(ramp) >= 2:
        slope, start = np.polynomial.polynomial.polyfit(plain[ramp] / (2 * np.pi), t[ramp], 1)[::-1]
        if slope > 0 and start < 0:
            high = nice(float((1 - start) / -start), 1e-3)  # over low = 1
            length = min(float(slope * (high - 1)), _LONGEST)
            usual.append((factor, 1.0, high, max(1, round(length))))
            usual.append((factor, 1.0, float((1 - start) / -start), max(1, round(length))))
    if not len(ramp):  # a step: some length between the wavelengths beside it
        step = int(np.flatnonzero(t < 0.5)[0])
        shortest, longest = 2 * np.pi / plain[step - 1], 2 * np.pi / plain[step]
        usual += [(factor, 1.0, 1.0, n) for n in (2**k for k in range(8, 22)) if shortest <= n < longest][:1]
    note = "original_max_position_embeddings, low_freq_factor and high_freq_factor are known up to a common factor"
    for s, low, high, length in dict.fromkeys(usual):
        yield "llama3", base, scalings.Llama3(s, low, high, length), note


def _yarn(base: float, factor: float, width: int, t: Floats, ramp: Any) -> Iterator[tuple[str, float, Any, str]]:
    """T falls in a line over the pair's number, from 1 at `low` to 0 at `high`."""
    if len(ramp) >= 2:
        slope, start = np.polynomial.polynomial.polyfit(ramp, t[ramp], 1)[::-1]
        if slope >= 0:
            return
        low, high = (1 - start) / slope, -start / slope
    elif len(ramp) == 1:
        low, high = ramp[0] - 1, ramp[0] + 1
    else:
        low = high = float(np.flatnonzero(t < 0.5)[0]) - 1
    if factor < 1:
        return
    lengths = [2**k for k in range(8, 22)] + [1000 * 2**k for k in range(12)]
    for truncate in (True, False):
        for length in lengths:
            ends = _ends(32.0, 1.0, width, base, length, truncate)
            if ends is not None and max(abs(ends[0] - low), abs(ends[1] - high)) <= (0.25 if truncate else 0.02):
                note = "every original_max_position_embeddings with the same ends of the ramp gives the same" * truncate
                yield "yarn", base, scalings.Yarn(factor, length, truncate=truncate), note
                break
    if abs(low - round(low)) > 0.02 or abs(high - round(high)) > 0.02:  # not whole pairs: the ends say the length
        length = min(2 * np.pi * base ** (2 * high / width), _LONGEST)
        turns = length / (2 * np.pi * base ** (2 * low / width))
        yield "yarn", base, scalings.Yarn(factor, max(1, round(length)), nice(float(turns), 1e-3), truncate=False), ""
    else:
        yield from _other_betas(base, factor, width, (round(low), round(high)))


def _ends(fast: float, slow: float, width: int, base: float, length: int, truncate: bool) -> tuple[float, float] | None:
    """Return the ends of a ramp, or None where no pair would lie on it."""
    try:
        return correction_range(fast, slow, width, base, length, truncate)
    except ValueError:
        return None


def _other_betas(
    base: float, factor: float, width: int, ends: tuple[int, int]
) -> Iterator[tuple[str, float, Any, str]]:
    """Yield YaRN of usual lengths and other betas whose ramp has these ends, the first that there is."""
    for length in (4096, 8192, 2048, 32768, 16384, 65536, 131072):
        for fast in (32.0, 16.0, 64.0, 128.0):
            for slow in (1.0, 2.0, 4.0, 0.5):
                if _ends(fast, slow, width, base, length, True) == ends:
                    note = "other lengths and betas with the same ends of the ramp give the same"
                    yield "yarn", base, scalings.Yarn(factor, length, fast, slow), note
                    return
