"""What sums by distance say of a law of decay.

Rows see different numbers of distances, and each row's weights sum to one over what it sees. So a mean by distance
falls even where attention is even: row i gives 1 / (i + 1) to each key, and only long rows see far. Everything here is
conditional on the row: a row that sees distances 0 .. n-1 is a draw from a law g cut off at n,

    weight(i, d) = g(d) / G(n_i),    G(n) = g(0) + .. + g(n-1)

which is the setting of truncated data. Without a form for g its maximum likelihood estimate has a closed form
(Lynden-Bell, MNRAS 155, 1971, 95; Woodroofe, Ann. Statist. 13, 1985, 163), exact on maps that follow the model, even
ones included. With a form of one rate, the likelihood is concave in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posenc.checks._sums import GROUPS, HeadSums, Plan, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

#: profiles closer than this, relatively, have the same rank: float32 alone makes uniform maps differ by 1e-7
_SAME = 1e-5
#: steps of a safeguarded Newton iteration, and the relative change at which it has arrived
_STEPS, _ARRIVED = 60, 1e-9
_NATS_PER_BIT = math.log(2)
_TINY = 1e-300


@dataclass(frozen=True)
class Fit:
    """A law fitted to one head.

    Attributes
    ----------
    rate : float
        Exponential: weight falls as exp(-rate * distance), per token. Power: as (1 + distance) ** -rate. Linear: logits
        fall by rate a token, the slope of ALiBi. Negative where attention grows. NaN where there is nothing to fit.
    error : float
        Its standard error, from groups of rows.
    gain : float
        What the law explains over uniform attention, in bits a row; 0 for "linear", which is fitted by least squares.
    """

    rate: float
    error: float
    gain: float = 0.0


def support(side: Side) -> int:
    """Return the number of distances up to the farthest one that has any weight."""
    used = np.flatnonzero(side.sums.any(0))
    return int(used[-1]) + 1 if len(used) else 0


def seen(side: Side, n: int) -> tuple[Floats, Floats]:
    """Return mass by visible distances (groups, n + 1), and how many rows see each of n distances."""
    mass = side.mass[:, : n + 1].copy()
    mass[:, n] += side.mass[:, n + 1 :].sum(1)
    rows_beyond = side.counts[::-1].cumsum()[::-1]  # rows that see at least as many
    return mass, rows_beyond[1 : n + 1]


def log_profile(side: Side) -> Floats:
    """Return ln g by distance, g summing to 1 over the distances that have weight; -inf where one has none.

    G(d) / G(d + 1) = 1 - S(d) / R(d): S is the weight at distance d, R the weight at distances up to d of the rows that
    see d.
    """
    n = support(side)
    mass, _ = seen(side, n)
    s = side.sums[:, :n].sum(0)
    risk = np.maximum(s.cumsum() - np.concatenate([[0.0], mass.sum(0)[1:n].cumsum()]), s)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(risk > 0, np.minimum(s / risk, 1.0), 0.0)
        below = np.log1p(-share[1:])
        log_sum = np.concatenate([below[::-1].cumsum()[::-1], [0.0]])  # ln G(d + 1)
        return np.asarray(np.log(share) + log_sum)


def rank_correlation(values: Floats, weights: Floats) -> float:
    """Return Spearman's rank correlation of values with their index, each counted by its weight; 0 without ranks."""
    if len(values) < 3:
        return 0.0
    with np.errstate(invalid="ignore"):
        rounded = np.where(np.isfinite(values), np.rint(values / _SAME), -np.inf)
    _, which = np.unique(rounded, return_inverse=True)
    by_value = np.bincount(which, weights)
    rank = (by_value.cumsum() - by_value / 2)[which]
    place = weights.cumsum() - weights / 2
    total = weights.sum()
    if total <= 0:
        return 0.0
    rank = rank - (weights @ rank) / total
    place = place - (weights @ place) / total
    size = math.sqrt(float(weights @ rank**2) * float(weights @ place**2))
    return float(weights @ (rank * place)) / size if size > 1e-12 * total**3 else 0.0


def fit_law(head: HeadSums, feature: str) -> Fit:
    """Return the maximum likelihood rate of exp(-rate * f(distance)): f is the distance, or ln(1 + distance).

    Each row's likelihood is normalised over what that row sees, each side of the query by itself. The error is the
    sandwich estimate over groups of rows.
    """
    parts = [_Part(side, start, feature) for side, start in ((head.past, 0), (head.future, 1)) if support(side) > 1]
    if not parts:
        return Fit(math.nan, math.nan)
    lo, hi, rate = -np.inf, np.inf, max(part.guess() for part in parts)
    for _ in range(_STEPS):
        each = [part.derivatives(rate) for part in parts]
        score, information = sum(d[0] for d in each), sum(d[1] for d in each)
        lo, hi = (rate, hi) if score > 0 else (lo, rate)
        step = score / information if information > 0 else 0.0
        new = rate + step
        if not lo < new < hi:
            new = (lo + hi) / 2 if math.isfinite(lo + hi) else rate + math.copysign(1 + abs(rate), score)
        if abs(new - rate) <= _ARRIVED * max(abs(new), 1e-6):
            rate = new
            break
        rate = new
    found = [part.derivatives(rate) for part in parts]
    information = sum(d[1] for d in found)
    scores = np.sum([d[2] for d in found], axis=0)
    spread = float(np.sum(scores**2)) * GROUPS / (GROUPS - 1)
    rows = sum(float(part.mass.sum()) for part in parts)
    gain = sum(part.log_likelihood(rate) - part.log_likelihood(0.0) for part in parts) / max(rows, _TINY)
    error = math.sqrt(spread) / information if information > 0 else math.nan
    return Fit(float(rate), error, max(0.0, gain / _NATS_PER_BIT))


class _Part:
    """One side's share of the likelihood."""

    def __init__(self, side: Side, start: int, feature: str) -> None:
        n = support(side)
        mass, _ = seen(side, n)
        distance = np.arange(start, start + n, dtype=np.float64)
        self.f = distance if feature == "distance" else np.log1p(distance)
        self.mass = mass[:, 1:]  # by rows that see 1 .. n
        self.sums = np.ascontiguousarray(side.sums[:, :n])
        self.moments = self.sums @ self.f  # by group
        self.start = start

    def guess(self) -> float:
        mean = self.moments.sum() / max(self.sums.sum(), _TINY)
        return float(1 / max(mean - self.f[0], 1e-3 * self.f[-1]))

    def cumulated(self, rate: float) -> tuple[Floats, Floats, Floats, float]:
        exponent = -rate * self.f
        top = float(exponent.max())
        g = np.exp(exponent - top)
        return g.cumsum(), (g * self.f).cumsum(), (g * self.f * self.f).cumsum(), top

    def derivatives(self, rate: float) -> tuple[float, float, Floats]:
        """Return score and information, and the score of each group."""
        total, first, second, _ = self.cumulated(rate)
        total = np.maximum(total, _TINY)
        mean = first / total
        variance = np.maximum(second / total - mean * mean, 0.0)
        scores = self.mass @ mean - self.moments
        return float(scores.sum()), float(self.mass.sum(0) @ variance), np.asarray(scores)

    def log_likelihood(self, rate: float) -> float:
        total, _, _, top = self.cumulated(rate)
        log_total = np.log(np.maximum(total, _TINY)) + top
        return float(-rate * self.moments.sum() - self.mass.sum(0) @ log_total)


def fit_logits(head: HeadSums) -> Fit:
    """Return the slope of the logits: least squares of ln g on the distance, each distance weighted by its rows."""
    xx = xy = 0.0
    slopes = []
    for side in (head.past, head.future):
        n = support(side)
        if n < 3:
            continue
        y = log_profile(side)
        weights = np.where(np.isfinite(y), seen(side, n)[1], 0.0)
        y = np.where(np.isfinite(y), y, 0.0)
        x = np.arange(n) - (weights @ np.arange(n)) / max(weights.sum(), _TINY)
        xx, xy = xx + float(weights @ (x * x)), xy + float(weights @ (x * y))
        slopes.append((x, y, weights))
    if xx == 0:
        return Fit(math.nan, math.nan)
    slope = xy / xx
    rest = sum(float(w @ (y - (w @ y) / w.sum() - slope * x) ** 2) for x, y, w in slopes)
    points = sum(int((w > 0).sum()) for _, _, w in slopes)
    mean_weight = sum(float(w.sum()) for _, _, w in slopes) / max(points, 1)
    error = math.sqrt(rest / max(points - 2, 1) / mean_weight / (xx / mean_weight)) if points > 2 else math.nan
    return Fit(-slope, error)


def locality(head: HeadSums) -> tuple[float, float]:
    """Return the lean towards near keys, and its standard error.

    1 where all weight is on the nearest key, 0 where it is spread evenly or without regard to distance, -1 where it is
    on the farthest: 1 - 2 * the mean relative distance within the row, Somers' D of nearness under the weights. The
    error is from what the profile leaves over. It counts rows near each other as one, and so keys near each other,
    which some heads like wherever they are: variance by groups of rows and by blocks of keys (Cameron, Gelbach and
    Miller, J. Bus. Econ. Stat. 29, 2011, 238).
    """
    total = float(head.tiles.sum())
    if total <= 0 or head.plan is None:
        return 0.0, math.nan
    rest = head.tilt - _expected_tilt(head, head.plan)
    rows, keys, both = (rest.sum(1) ** 2).sum(), (rest.sum(0) ** 2).sum(), (rest**2).sum()
    variance = max(float(rows + keys - both), float(rows), float(keys)) * GROUPS / (GROUPS - 1)
    return head.lean / total, math.sqrt(variance) / total


def _expected_tilt(head: HeadSums, plan: Plan) -> Floats:
    """Return what `tilt` would be if every row followed the profile: by group of rows and block of keys."""
    first, at = plan.first, plan.at[:, None]
    last = np.minimum(first + plan.width, plan.keys)
    expected = np.zeros((GROUPS, len(first)))
    # distances, or distances - 1 ahead, of the keys of each block: start .. stop - 1 among the n that the row sees
    past = at - last + 1, at - first + 1
    future = first - at - 1, last - at - 1
    for side, (start, stop), n in zip((head.past, head.future), (past, future), plan.seen, strict=True):
        if not side.sums.any():
            continue
        sums = np.zeros(len(side.counts))
        profile = np.exp(log_profile(side))
        sums[1 : len(profile) + 1] = profile.cumsum()
        sums[len(profile) + 1 :] = sums[len(profile)]
        within = sums[np.clip(stop, 0, n[:, None])] - sums[np.clip(start, 0, n[:, None])]
        expected += side.mass[:, n] @ (within / np.maximum(sums[n], _TINY)[:, None] * plan.tilt)
    tiles = np.add.reduceat(expected, plan.block_starts, 1)
    return np.pad(tiles, ((0, 0), (0, GROUPS - tiles.shape[1])))


def sureness(value: float, error: float) -> float:
    """Return the probability that a sign is right, by Student's t with GROUPS - 1 degrees (Wallace's formula)."""
    if not math.isfinite(error):
        return 0.5
    if error <= 1e-12 * abs(value):
        return 1.0 if value else 0.5
    t, df = abs(value) / error, GROUPS - 1
    z = math.sqrt(df * math.log1p(t * t / df)) * (1 - 3 / (4 * df))
    return 0.5 * math.erfc(-z / math.sqrt(2))
