"""Rotations whose elements grow or shrink with the position: xPos, measured and reproduced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks import _pairs
from posenc.checks._naming import name_frequencies, rope_of
from posenc.checks._reproducing import random_answer
from posenc.checks._rotation import _ROUNDING, Measured, Probes, measure, origin_of, unknown
from posenc.checks._spectrum import nice
from posenc.checks._words import direction_of, facts_of, words_of
from posenc.checks.identification import Identification
from posenc.rotary import Rope
from posenc.xpos import XPos

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LEAST, _MOST = 1e-30, 1e30  # of scales that float32 holds with all of its digits


@dataclass(frozen=True)
class Growth:
    """The scale of every pair, zeta ** ((position - centre) / scale_base); scale_base is negative for keys."""

    scale_base: float
    centre: float


def name_growing(probes: Probes, layout: _pairs.Layout, turns: Any, split: int, stable: bool) -> Identification:
    """Name what multiplies pairs by powers of their position; `turns` of the short call come first."""
    if layout.name == "blocks" or probes.axes != 1:
        return unknown("the norm changes with the position")
    which = probes.long if stable else probes.short
    where, turns = _within(which[0], turns[split:] if stable else turns[:split])
    growth = _growth(where, np.abs(turns), layout) if len(where) > 4 else None
    if growth is None:
        return unknown("the norm changes with the position")
    measured = measure(probes, layout, (where, which[1]), turns / np.abs(turns))
    origin, swapped = origin_of(measured)
    if not measured.consistent or origin is None or swapped:
        return unknown("the norm changes exponentially with the position, and phases follow no offset")
    found = _reproduced(probes, layout, measured, growth, origin, stable)
    return found if stable else _moving(found, probes, layout)


def _within(where: npt.NDArray[np.int64], turns: Any) -> tuple[npt.NDArray[np.int64], Any]:
    """Return the positions whose every scale is an ordinary float32."""
    size = np.abs(turns)
    with np.errstate(invalid="ignore"):
        kept = (np.isfinite(size) & (size > _LEAST) & (size < _MOST)).all(axis=1)
    return where[kept], turns[kept]


def _growth(where: npt.NDArray[np.int64], size: Floats, layout: _pairs.Layout) -> Growth | None:
    """Fit ln(scale) = rate * position + start, and look whether rate and start are those of one base and centre."""
    logarithm = np.log(size)
    rate, start = np.polyfit(where, logarithm, 1)
    if np.any(np.abs(logarithm - (np.outer(where, rate) + start)) > 2e-5 * (1 + np.abs(logarithm))):
        return None
    pairs, width = np.array(layout.pairs), layout.rotary_dim
    slope = np.log((2 * pairs + 0.4 * width) / (1.4 * width))
    base = float(np.median(slope / rate))
    if not np.allclose(rate * base, slope, rtol=1e-3, atol=1e-6):
        return None
    centre = -float(np.median(start / rate))
    if not np.allclose(start, -centre * rate, rtol=1e-3, atol=1e-4):
        return None
    half = round(2 * centre) / 2
    return Growth(np.copysign(nice(abs(base), 1e-4), base), half if abs(centre - half) < 0.05 else centre)


def _reproduced(
    probes: Probes, layout: _pairs.Layout, measured: Measured, growth: Growth, origin: float, stable: bool
) -> Identification:
    named = name_frequencies(measured.theta, measured.uncertainty, None)
    best: tuple[float, XPos] | None = None
    other = float("inf")
    for precision in ("float32", "exact"):
        rope = rope_of(named, layout, probes.head_dim, None, 1.0, precision)
        assert isinstance(rope, Rope)
        xpos = XPos(rope, abs(growth.scale_base), growth.centre + origin)
        gap = max(gap_of(probes, xpos, growth, origin, long) for long in ((False, True) if stable else (False,)))
        if best is None or gap < best[0]:
            best, other = (gap, xpos), other if best is None else best[0]
        else:
            other = gap
    assert best is not None
    gap, xpos = best
    side = "query" if growth.scale_base > 0 else "key"
    where = (1.0, origin, direction_of(named), other, gap, xpos.rope.precision)
    facts = facts_of(layout, named, xpos.rope, *where)
    words = words_of(layout, named, probes.head_dim, 1.0, origin, facts)
    facts.update(scale_base=xpos.scale_base, centre=growth.centre, side=side)
    name = f"xPos as a {side}: {words}, scale_base {xpos.scale_base:g}, centre {growth.centre:g}"
    apply = xpos.queries if side == "query" else xpos.keys
    return Identification(
        named.known and gap < 2 * _ROUNDING,
        "rotation",
        name if named.known else f"{name} (frequencies as measured)",
        xpos,
        facts,
        gap,
        None,
        (),
        named.notes,
        lambda x, positions: apply(x, positions=np.asarray(positions) + origin),
    )


def gap_of(probes: Probes, xpos: XPos, growth: Growth, origin: float, long: bool) -> float:
    """Return the largest difference, relative to each token's largest element, where float32 holds the scales."""
    x, where, actual = random_answer(probes, long)
    size = np.abs((where - growth.centre) / growth.scale_base * np.log(xpos.zeta[0]))
    kept = size < np.log(_MOST)
    ours = (xpos.queries if growth.scale_base > 0 else xpos.keys)(x[:, :, kept], positions=where[kept] + origin)
    off, largest = (np.abs(y).max(axis=(0, 1, 3)) for y in (actual[:, :, kept] - ours, ours))
    return float((off / largest).max()) if np.isfinite(off).all() else float("inf")


def _moving(found: Identification, probes: Probes, layout: _pairs.Layout) -> Identification:
    """Say what a long call changes: the centre, in code that takes it from the length."""
    structure = _pairs.structure(probes.long[1])
    where, turns = _within(probes.long[0], structure.first)
    growth = _growth(where, np.abs(turns), layout) if len(where) > 4 and turns.shape[1] == len(layout.pairs) else None
    longest = int(probes.long[0].max())
    note = f"a call up to position {longest} gives other numbers at small ones"
    if growth is not None and isinstance(found.rope, XPos) and growth.centre != found.facts["centre"]:
        short, centre = int(probes.short[0].max()), found.facts["centre"]
        note = (
            f"the centre moves with the length: {growth.centre:g} in a call up to position {longest}, {centre:g} in "
            f"one up to {short}; keys cached under one do not fit the other"
        )
    return replace(found, ok=False, notes=(*found.notes, note))
