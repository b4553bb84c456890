"""`rotary_decay`: what an encoding by itself does to q.k, or to a score, as the distance grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import _series, scaling
from posenc.bias import Bias
from posenc.checks._report import Line, Report
from posenc.rotary import Rope, as_rope
from posenc.tables import rotary_table
from posenc.xpos import XPos

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_ROWS = 4096  # distances whose cosines are at hand at a time


@dataclass(frozen=True, eq=False)  # of arrays
class Curve:
    """One encoding by distance.

    Attributes
    ----------
    name : str
    kind : {"rotary", "bias"}
    values : ndarray of float64, shape (distances,) or (heads, distances)
        Rotary: the expectation of q.k over that at distance 0 before rotation, so the square of the attention factor at
        distance 0. Bias: what is added to the score, per head.
    bound : ndarray of float64, shape (distances,), or None
        Rotary: Su's relative upper bound, the mean of the sizes of S_j.
    unturned : tuple of int
        Pairs whose wavelength is longer than the context: they never complete a turn.
    longest : float
        The longest wavelength, in tokens; NaN for a bias.
    half : int or None
        The first distance at which the value is at most half of that at distance 0; of a bias, at which it has cut the
        weight by half (ln 2 below) in half of the heads.
    """

    name: str
    kind: str
    values: Floats
    bound: Floats | None
    unturned: tuple[int, ...]
    longest: float
    half: int | None

    @property
    def falls(self) -> bool:
        """Whether it is lower at the farthest distance than at the nearest: the bound, or the bias of most heads."""
        if self.bound is not None:
            return bool(self.bound[-1] < self.bound[0])
        return bool(np.mean(self.values[:, -1] < self.values[:, 0]) > 0.5)


@dataclass(frozen=True, eq=False)
class DecayReport(Report):
    """Curves side by side; `ok` where every one of them falls.

    Attributes
    ----------
    distances : ndarray of float64, shape (n,)
    context : int
        The length that wavelengths are compared with, and that scalings by length are taken at.
    curves : tuple of Curve
    """

    distances: Floats
    context: int
    curves: tuple[Curve, ...]

    @property
    def ok(self) -> bool:  # type: ignore[override]
        """Whether every curve is lower at the farthest distance than at the nearest."""
        return all(curve.falls for curve in self.curves)

    def __getitem__(self, name: str) -> Curve:
        for curve in self.curves:
            if curve.name == name:
                return curve
        raise KeyError(name)

    def title(self) -> str:
        """Return the range."""
        return f"decay by the encoding alone, distances {self.distances[0]:g} to {self.distances[-1]:,g} tokens"

    def lines(self) -> list[Line]:
        """Return a line for each curve."""
        return [Line(curve.name, _words(curve, self.distances, self.context), curve.falls) for curve in self.curves]

    def svg(self) -> str | None:
        """Return the curves: expectations of rotary encodings, or else weights under the biases."""
        from posenc.checks._svg import curves_svg

        rotary = [(c.name, self.distances + 1, c.bound / c.bound[0]) for c in self.curves if c.bound is not None]
        if rotary:
            return curves_svg(rotary[:3], "distance + 1 (tokens)", "upper bound, relative")
        curves = [(curve.name, self.distances + 1, _weight(curve)) for curve in self.curves[:3]]
        return curves_svg(curves, "distance + 1 (tokens)", "weight by the bias alone")


def rotary_decay(
    encoding: Any, distances: Any = 4096, *, weights: Any = None, context: int | None = None
) -> DecayReport:
    """Return the expectation of q.k and Su's upper bound by distance, for one encoding or several side by side.

    For a key like the query, pair by pair and up to noise, the expectation of q.k at distance d over that at 0 is the
    mean over pairs of cos(d * inv_freq[i]), weighted by E(q_i.k_i); elements that are not rotated count as pairs that
    do not turn. It may well go below zero and come back. What falls is the bound:
    |q.k| <= max |h_i+1 - h_i| * sum of |S_j|, with S_j = the sum over the first j pairs of exp(i d inv_freq)
    (Su et al., "RoFormer", arXiv:2104.09864, section 3.4.3, equations 35 to 37). Its relative size, the mean of |S_j|,
    is (pairs + 1) / 2 at distance 0.

    Parameters
    ----------
    encoding : Rope, XPos, Bias, array_like of ALiBi slopes, or mapping of names to them
        A bias (`posenc.bias.Alibi`, `posenc.bias.T5`) adds to scores instead; xPos multiplies each pair by
        zeta ** (d / scale_base) too. See `extensions` for the ways to stretch one rope.
    distances : int or array_like of float, shape (n,)
        An int n means 0 .. n-1. Ascending, not negative, in tokens.
    weights : array_like of float, shape (rotary_dim/2,), optional
        Of the pairs, for rotary encodings: as a model uses them. Default: all alike.
    context : int, optional
        Tokens; default the largest distance plus one.

    Returns
    -------
    DecayReport

    Raises
    ------
    TypeError, ValueError
        For another encoding, several position axes, and numbers that do not fit.

    Examples
    --------
    >>> import posenc
    >>> from posenc.checks import rotary_decay
    >>> rope = posenc.Rope(128, layout="half")
    >>> report = rotary_decay(rope, [0, 1, 100, 1000], context=4096)
    >>> report.curves[0].values.round(3).tolist()
    [1.0, 0.97, 0.477, 0.159]
    >>> report.curves[0].bound.round(2).tolist()
    [32.5, 31.54, 10.23, 4.47]
    >>> report.curves[0].unturned
    (46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63)
    """
    where = _distances(distances)
    length = math.floor(where[-1]) + 1 if context is None else check.integer("context", context, 1)
    named = encoding if isinstance(encoding, Mapping) else {_name(encoding): encoding}
    if not named:
        raise ValueError("encoding must name at least one encoding, got an empty mapping")
    return DecayReport(where, length, tuple(_curve(str(n), e, where, weights, length) for n, e in named.items()))


def extensions(rope: Rope, factor: float, trained: int, longrope: Any = None) -> dict[str, Rope]:
    """Return one rope stretched by a factor in every way that has a formula, for `rotary_decay` and plots.

    Parameters
    ----------
    rope : Rope
        With a base and no scaling.
    factor : float
        At least 1.
    trained : int
        The length it was trained for, in tokens.
    longrope : LongRope, optional
        Its factors are searched for, model by model, so there is no formula.

    Returns
    -------
    dict of str to Rope
        "none", "linear" (PI), "ntk", "yarn", "llama3", and "longrope" where given.

    Examples
    --------
    >>> list(extensions(posenc.Rope(64, layout="half"), 4.0, 2048))
    ['none', 'linear', 'ntk', 'yarn', 'llama3']
    """
    as_rope(rope)
    if rope.scaling is not None or rope.base is None:
        raise ValueError(f"rope must have a base and no scaling of its own, got {rope!r}")
    factor, trained = check.at_least_one("factor", factor), check.integer("trained", trained, 1)
    ways: dict[str, Any] = {
        "linear": scaling.Linear(factor),
        "ntk": scaling.NTK(factor),
        "yarn": scaling.Yarn(factor, trained),
        "llama3": scaling.Llama3(factor, original_max_position_embeddings=trained),
    }
    if longrope is not None:
        ways["longrope"] = longrope
    same = {
        "layout": rope.layout,
        "base": rope.base,
        "rotary_dim": rope.rotary_dim,
        "rotary_offset": rope.rotary_offset,
    }
    return {"none": rope, **{name: Rope(rope.head_dim, **same, scaling=way) for name, way in ways.items()}}  # type: ignore[arg-type]


# ---- numbers ----


def _distances(distances: Any) -> Floats:
    if isinstance(distances, int) and not isinstance(distances, bool):
        return np.arange(check.integer("distances", distances, 1), dtype=np.float64)
    array = check.plain_array("distances", distances)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iuf":
        raise ValueError(f"distances must be a number or have shape (n,), got {check.shown(array)}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all() or array[0] < 0 or (np.diff(array) <= 0).any():
        raise ValueError("distances must be finite, not negative, and ascending")
    return array


def _name(encoding: Any) -> str:
    return type(encoding).__name__.lower() if isinstance(encoding, (Rope, XPos, Bias)) else "alibi"


def _curve(name: str, encoding: Any, distances: Floats, weights: Any, context: int) -> Curve:
    if isinstance(encoding, (Rope, XPos)):
        return _rotary(name, encoding, distances, weights, context)
    if not isinstance(encoding, Bias):
        from posenc.bias import Alibi

        try:
            encoding = Alibi(encoding)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} must be a Rope, an XPos, a Bias or ALiBi slopes: {error}") from None
    origin = math.ceil(distances[-1])
    rows = np.asarray(encoding(np.array([origin]), origin - distances.astype(np.int64)), np.float64)
    values = rows.reshape(-1, len(distances))
    cut = np.flatnonzero(np.mean(values <= values[:, :1] - _series.LN2, axis=0) >= 0.5)
    return Curve(name, "bias", values, None, (), math.nan, int(distances[cut[0]]) if len(cut) else None)


def _rotary(name: str, encoding: Rope | XPos, distances: Floats, weights: Any, context: int) -> Curve:
    rope = encoding.rope if isinstance(encoding, XPos) else encoding.at(context)
    if rope.axes != 1:
        raise ValueError(f"{name} must have one position axis, got {rope.axes}: decay is by one distance")
    share, still = _pair_weights(rope, weights)
    values, bound = np.empty(len(distances)), np.empty(len(distances))
    for start in range(0, len(distances), _ROWS):
        rows = slice(start, start + _ROWS)
        cos, sin = rotary_table(distances[rows], rope.inv_freq, dtype=np.float64)
        if isinstance(encoding, XPos):
            fall = _series.exp(np.outer(distances[rows] / encoding.scale_base, _series.log(encoding.zeta)))
            cos, sin = cos * fall, sin * fall
        values[rows] = cos @ share * rope.attention_factor**2 + still
        real, imaginary = cos.cumsum(1), sin.cumsum(1)
        bound[rows] = np.sqrt(real * real + imaginary * imaginary).mean(1)
    below = np.flatnonzero(values <= 0.5 * (share.sum() * rope.attention_factor**2 + still))
    unturned = tuple(np.flatnonzero(rope.wavelengths > context).tolist())
    half = int(distances[below[0]]) if len(below) else None
    return Curve(name, "rotary", values, bound, unturned, float(rope.wavelengths.max()), half)


def _pair_weights(rope: Rope, weights: Any) -> tuple[Floats, float]:
    """Return the share of each pair, and of all elements that are not rotated."""
    pairs = len(rope.inv_freq)
    rotated = min(1.0, 2 * pairs / rope.head_dim)
    if weights is None:
        return np.full(pairs, rotated / pairs), 1 - rotated
    array = check.plain_array("weights", weights).astype(np.float64)
    if array.shape != (pairs,):
        raise ValueError(f"weights must have shape ({pairs},), one for each pair, got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise ValueError("weights must be finite, not negative, and not all zero")
    return array / array.sum() * rotated, 1 - rotated


def _weight(curve: Curve) -> Floats:
    """Return what a bias alone makes of the weight, by distance: its geometric mean over the heads, 1 at distance 0."""
    return _series.exp(np.clip((curve.values - curve.values[:, :1]).mean(0), -700, 700))


def _words(curve: Curve, distances: Floats, context: int) -> str:
    half = f"half at {curve.half:,}" if curve.half is not None else "never half"
    if curve.bound is None:
        last = curve.values[:, -1] - curve.values[:, 0]
        return f"bias {last.min():.3g} to {last.max():.3g} at {distances[-1]:,g} over that at {distances[0]:g}; {half}"
    unturned = (
        f"{len(curve.unturned)} of its pairs never turn within {context:,}, the slowest turns in {curve.longest:,.0f}"
    )
    fall = curve.bound[-1] / curve.bound[0]
    return f"expectation {curve.values[-1]:+.3f} at {distances[-1]:,g}, {half}; bound down to {fall:.0%}; {unturned}"
