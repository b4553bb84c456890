"""What the sums of one head come to: a verdict, its confidence, and the laws that fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from posenc.checks import _laws
from posenc.checks._sums import HeadSums

#: a lean smaller than this is none, however sure: the mean relative distance is within 0.025 of one half
SMALLEST_LEAN = 0.05
#: a lean is named only where its sign is as sure as this
SUREST = 0.995
#: ranks along the distance that count as falling, or rising
SMALLEST_RANK = 0.2
#: distances that ranks and laws need
FEWEST_DISTANCES = 4


@dataclass(frozen=True)
class HeadDecay:
    """What is said of one head, or of all heads together.

    Attributes
    ----------
    head : tuple of int
        Its index, (layer, head) for instance; () for all together.
    verdict : str
        "decays": it leans to near keys, and weight falls from one distance to the next. "window": it leans to near keys
        by a hard limit, within which weight does not fall. "local": it leans to near keys without falling steadily (a
        head that looks at one offset). "flat": no lean. "grows": the opposite of "decays". "unclear": lean and ranks
        disagree, or rows and keys differ too much to be sure. "empty": no weight, or too few tokens.
    confidence : float
        The probability that the lean has the sign it has, 0.5 to 1.
    locality, locality_error : float
        1 with all weight on the nearest key, 0 for even attention, -1 with all on the farthest; and its standard error.
    rank_correlation : float
        Spearman's, of weight and distance, weighted by rows: -1 where it falls at every step.
    exponential, power, linear : Fit
        Rates of exp(-rate * d), (1 + d) ** -rate, and of the logits by least squares (ALiBi's slope).
    law : {"exponential", "power", "none"}
        Which of the first two explains more.
    reach : int
        The distance beyond which no weight lies, plus one.
    sinks : dict of int to float
        Key (negative: from the end) -> its share of the weight.
    """

    head: tuple[int, ...]
    verdict: str
    confidence: float
    locality: float
    locality_error: float
    rank_correlation: float
    exponential: _laws.Fit
    power: _laws.Fit
    linear: _laws.Fit
    law: str
    reach: int
    sinks: dict[int, float] = field(default_factory=dict)


def judge(head: HeadSums, lengths: int) -> HeadDecay:
    """Return what is said of a head whose rows see up to so many distances."""
    lean, error = _laws.locality(head)
    sure = _laws.sureness(lean, error)
    rank, reach = _ranks(head)
    nothing = _laws.Fit(math.nan, math.nan)
    if reach >= FEWEST_DISTANCES:
        fits = _laws.fit_law(head, "distance"), _laws.fit_law(head, "log"), _laws.fit_logits(head)
    else:
        fits = nothing, nothing, nothing
    exponential, power, linear = fits
    law = (
        "none"
        if max(exponential.gain, power.gain) < 1e-6
        else "power"
        if power.gain > exponential.gain
        else "exponential"
    )
    verdict = _verdict(float(head.tiles.sum()), lean, sure, rank, reach, lengths)
    return HeadDecay(head.label, verdict, sure, lean, error, rank, exponential, power, linear, law, reach, head.sinks)


def _ranks(head: HeadSums) -> tuple[float, int]:
    """Return the rank correlation, both sides by their mass, and the reach."""
    total, weight, reach = 0.0, 0.0, 0
    for start, side in enumerate((head.past, head.future)):
        n, mass = _laws.support(side), float(side.mass.sum())
        if mass > 0:
            total += mass * _laws.rank_correlation(_laws.log_profile(side), _laws.seen(side, n)[1])
            weight, reach = weight + mass, max(reach, n + start)
    return (total / weight if weight else 0.0), reach


def _verdict(mass: float, lean: float, sure: float, rank: float, reach: int, lengths: int) -> str:
    if mass <= 0 or lengths < FEWEST_DISTANCES:
        return "empty"
    if abs(lean) < SMALLEST_LEAN:
        return "flat"
    if sure < SUREST:
        return "unclear"
    if lean > 0:
        if rank <= -SMALLEST_RANK and reach >= FEWEST_DISTANCES:
            return "decays"
        return "window" if reach <= lengths // 2 else "local"
    return "grows" if rank >= SMALLEST_RANK else "unclear"
