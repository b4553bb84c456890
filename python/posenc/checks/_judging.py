"""Which fault explains a rotation that is not what it should be: all of them are tried, and the nearest is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks._faults import Finding
from posenc.checks._sample import Sample, Variant
from posenc.checks._solving import solved
from posenc.checks._variants import variants

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LOOK_ALIKE = 1.5  # residuals this near to the least, or below rounding, are as good: the earlier hypothesis is kept


@dataclass(frozen=True)
class Verdict:
    """What the comparison came to.

    Attributes
    ----------
    agrees : bool
        Within rounding.
    residual : float
        Of the right rotation, relative to the largest input.
    finding : Finding or None
        The fault, or None where it agrees or none explains it.
    runner_up : Finding or None
        The next best fault of another name.
    nearest : Finding or None
        The best fault where none explains it.
    """

    agrees: bool
    residual: float
    finding: Finding | None
    runner_up: Finding | None
    nearest: Finding | None


def judge(sample: Sample, actual: Floats, *, noise: float = 0.0) -> Verdict:
    """Return whether `actual` is what the rotation makes of the input, and if not, why.

    Parameters
    ----------
    sample : Sample
    actual : ndarray of float64, of x's shape
    noise : float
        What the rounding of a 16-bit result may add, relative to the largest input.
    """
    scale = float(np.max(np.abs(sample.x), initial=0.0)) or 1.0
    allowed = scale * (4e-6 + noise + 2.4e-7 * _turns(sample))
    right = sample.turned()
    off = distance(actual, right) / scale
    if off <= 2e-6 + noise:
        return Verdict(True, off, None, None, None)
    tried: list[tuple[float, Variant, Floats]] = []
    for variant in _all(sample, actual):
        made = _made(variant)
        if made is not None and made.shape == actual.shape:
            tried.append((distance(actual, made) / scale, variant, made))
    ranked = sorted(tried, key=lambda each: each[0])  # stable: the likelier first
    if not ranked:
        return Verdict(False, off, None, None, None)
    least = ranked[0][0]
    best = next(each for each in tried if each[0] <= max(_LOOK_ALIKE * least, 2e-6 + noise))
    if off <= max(_LOOK_ALIKE * best[0], 2e-6 + noise) and _within(actual, right, allowed, sample):
        single = next((each for each in tried if each[1].fault == "float32_angles"), None)
        if single is not None and typical(actual, single[2], sample) < 0.3 * typical(actual, right, sample):
            return Verdict(False, off, Finding("float32_angles", single[1].detail, single[0]), None, None)
        return Verdict(True, off, None, None, None)
    finding = Finding(best[1].fault, best[1].detail, best[0])
    others = [Finding(v.fault, v.detail, r) for r, v, _ in ranked if v.fault != best[1].fault]
    runner_up = others[0] if others else None
    if best[0] < 0.2 * off and _within(actual, best[2], allowed, sample):
        return Verdict(False, off, finding, runner_up, None)
    return Verdict(False, off, None, runner_up, finding)


def _all(sample: Sample, actual: Floats) -> Iterator[Variant]:
    yield from variants(sample)
    yield from solved(sample, actual)


def _made(variant: Variant) -> Floats | None:
    """Return what a variant makes, or None where these numbers allow none."""
    try:
        with np.errstate(all="ignore"):
            return np.asarray(variant.make(), np.float64)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None


def distance(actual: Floats, wanted: Floats) -> float:
    """Return the largest difference; infinite where one is NaN and the other is not."""
    bad = ~np.isfinite(actual)
    if not np.array_equal(bad, ~np.isfinite(wanted)):
        return float("inf")
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(actual - wanted), where=~bad, initial=0.0))


def typical(actual: Floats, wanted: Floats, sample: Sample) -> float:
    """Return the median difference of the pairs that turn fastest, at the tokens that turn furthest.

    A frequency that is an ulp off, as one of a hundred is in float32, spoils the largest difference and not this one.
    """
    turns = np.broadcast_to(_turns(sample), actual.shape)[..., 0]
    far = turns >= np.quantile(turns, 0.75)
    with np.errstate(invalid="ignore"):
        apart = np.abs(actual - wanted)[far]
    apart = apart[np.isfinite(apart).all(axis=-1)]
    return float(np.quantile(apart, 0.75)) if apart.size else float("inf")


def _turns(sample: Sample) -> Floats:
    """Return the largest |angle| of each token, to broadcast against x."""
    with np.errstate(invalid="ignore"):
        where = np.abs(np.nan_to_num(sample.positions, posinf=0, neginf=0))
    if sample.rope.axes > 1:
        where = where.max(axis=0)
    fastest = float(np.max(np.abs(sample.rope.inv_freq)))
    return np.asarray(sample.spread((where * fastest)[..., None]), np.float64)


def _within(actual: Floats, wanted: Floats, allowed: Any, sample: Sample) -> bool:
    with np.errstate(invalid="ignore"):
        off = np.nan_to_num(np.abs(actual - wanted), nan=0.0, posinf=0.0)
    same = np.array_equal(np.isfinite(actual), np.isfinite(wanted))
    return same and bool((off <= allowed).all())
