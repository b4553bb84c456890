"""Pairs whose two elements turn by different angles: no rotation, and usually why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.axes import UnequalRope
from posenc.checks._faults import Finding
from posenc.checks._judging import distance
from posenc.checks._naming import name_frequencies
from posenc.checks._variants import _columns_of_the_other_form
from posenc.checks.identification import Identification
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks._pairs import Layout, Structure
    from posenc.checks._rotation import Probes

    Floats = npt.NDArray[np.float64]


def name_unequal(
    probes: Probes, layout: Layout, structure: Structure, which: tuple[Any, Any], place: slice
) -> Identification:
    """Return what makes the two rows of each pair's block differ."""
    first, second, blocks = structure.first[place], structure.second[place], structure.blocks[place]
    if np.allclose(second, first.conj(), atol=1e-5):
        return _finding(layout, "missing_minus", "both elements of a pair get the same sign", first, second.conj())
    c, s = first.real, first.imag
    if np.allclose(blocks[:, :, 1, 0], c * s, atol=1e-5) and np.allclose(blocks[:, :, 1, 1], c - s * s, atol=1e-5):
        return _finding(
            layout, "overwritten_in_place", "the second element is made of the first one's result", first, first
        )
    return _two_angles(probes, layout, which, first, second)


def _finding(layout: Layout, fault: str, detail: str, one: Any, other: Any) -> Identification:
    gap = float(np.abs(one - other).max())
    name = f"no rotation: {layout.name} pairs, {detail}"
    return Identification(
        False, "rotation", name, None, {"layout": layout.name}, gap, faults=(Finding(fault, detail, gap),)
    )


def _two_angles(probes: Probes, layout: Layout, which: tuple[Any, Any], first: Any, second: Any) -> Identification:
    from posenc.checks._reproducing import gap_of, random_answer
    from posenc.checks._rotation import measure

    one, two = (measure(probes, layout, which, turns) for turns in (first, second))
    name = f"no rotation: the elements of {layout.name} pairs turn by different angles"
    facts = {"layout": layout.name, "rotary_dim": layout.rotary_dim, "rotary_offset": layout.rotary_offset}
    nothing = Identification(False, "rotation", f"unknown: {name}", None, facts, float("nan"))
    if not (one.consistent and two.consistent) or layout.name not in ("half", "interleaved"):
        return nothing
    ropes = [_rope(probes, layout, m.theta, m.axis_of) for m in (one, two)]
    rope = UnequalRope(*ropes)
    x, where, actual = random_answer(probes, long=len(first) == probes.long[0].shape[-1])
    gap = gap_of(rope, x, where, actual, False)
    if gap > 0.05:
        return replace(nothing, residual=gap)
    found = Identification(False, "rotation", name, rope, facts, gap)
    if one.axis_of is not None and two.axis_of is not None and not np.array_equal(one.axis_of, two.axis_of):
        return replace(found, faults=(Finding("axes_within_pairs", "", gap),))
    table = _one_table(layout, one.theta, two.theta)
    if table is None:
        return found
    words = name_frequencies(table, np.maximum(one.uncertainty.max(), 1e-12) + 0 * table, None).words
    form = "repeated (c0 c0 c1 c1)" if layout.name == "half" else "doubled (c0 c1 c0 c1)"
    detail = f"{layout.name} pairs, {form} table of {words}"
    return replace(found, name=f"no rotation: {detail}", faults=(Finding("tables_of_other_layout", detail, gap),))


def _rope(probes: Probes, layout: Layout, theta: Floats, axis_of: Any) -> Rope:
    if axis_of is not None and axis_of.max() < probes.axes - 1:
        axis_of = np.append(axis_of, 0)[: len(theta)]
    given = InverseFrequencies(tuple(theta.tolist()))
    where = {"rotary_dim": layout.rotary_dim, "rotary_offset": layout.rotary_offset, "axis_of_freq": axis_of}
    return Rope(probes.head_dim, layout=layout.name, scaling=given, **where)


def _one_table(layout: Layout, one: Floats, two: Floats) -> Floats | None:
    """Return the frequencies whose table has the form of the other layout, or None."""
    first, second = _columns_of_the_other_form(layout.name, 2 * len(one))
    table = np.full(len(one), np.nan)
    table[first], table[second] = one, two
    right = np.allclose(table[first], one, rtol=1e-4, atol=1e-7) and np.allclose(
        table[second], two, rtol=1e-4, atol=1e-7
    )
    return table if right and np.isfinite(table).all() and distance(one, two) > 1e-6 else None
