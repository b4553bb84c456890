"""Around the rule that small positions follow: rounding, what happens at large ones, and what should have been."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc._frequencies import unscaled
from posenc.checks._faults import Finding
from posenc.checks._judging import judge
from posenc.checks._naming import short
from posenc.checks._reproducing import random_answer, rows_of
from posenc.checks._rotation import Measured, Probes
from posenc.checks._rounding import HALVES, held_by
from posenc.checks._sample import Sample
from posenc.checks._spectrum import _through_one, nice
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies
from posenc.xpos import XPos

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks import _pairs
    from posenc.checks.identification import Identification

    Floats = npt.NDArray[np.float64]


def explained(
    found: Identification, probes: Probes, rope: Any, x: Floats, where: Floats, actual: Floats, stable: bool,
    layout: _pairs.Layout, measured: Measured, factor: float,
) -> Identification:  # fmt: skip
    """Look for rounding to 16 bits and for what happens at large positions, around the rule that small ones follow."""
    table = held_by(probes.short[1])
    if table is not None and len(np.unique(probes.short[1])) < 16:
        table = None
    if isinstance(rope, Rope) and not found.facts["base"]:
        rope = _rounded_rule(measured, layout, probes, factor) or rope
    if table is not None and isinstance(rope, Rope):
        rope = _sharper(rope, probes, layout, measured, factor) or rope
    if not isinstance(rope, Rope):
        return replace(found, name=f"unknown: {found.name}") if found.residual > 0.05 else found
    best = None
    for precision in ("float32", "exact"):
        sample = Sample(x, rows_of(rope, where), rope._replace(precision=precision))
        verdict = judge(sample, actual, noise=0.0)
        closest = verdict.finding or verdict.nearest
        least = verdict.residual if closest is None else closest.residual
        if best is None or least < best[0]:
            best = (least, verdict, sample.rope)
    assert best is not None
    least, verdict, rope = best
    if verdict.finding is None:
        reason = f"unknown: near {found.name}" if found.residual < 0.5 else f"unknown: {found.name}"
        return replace(found, ok=False, name=reason)
    return _with_fault(found, rope, verdict, table, layout, probes)


def _with_fault(
    found: Identification, rope: Rope, verdict: Any, table: str | None, layout: _pairs.Layout, probes: Probes
) -> Identification:
    finding = verdict.finding
    scaling = "" if rope.scaling is None or isinstance(rope.scaling, InverseFrequencies) else f", {short(rope.scaling)}"
    base = "" if rope.base is None else f"base {rope.base:.10g}"
    words = ", ".join(
        filter(
            None,
            [
                layout.name,
                f"{rope.rotary_dim} of {rope.head_dim} elements" * (rope.rotary_dim != rope.head_dim),
                base + scaling,
            ],
        )
    )
    harmless = finding.fault in ("half_tables", "half_arithmetic", "float32_angles")
    facts = {**found.facts, "base": rope.base, "attention_factor": rope.attention_factor, "angles": rope.precision}
    facts["table_precision"] = finding.detail if harmless else None
    says = finding.detail if harmless else f"but {finding.fault}: {finding.detail}"
    runner_up = None if verdict.runner_up is None else (str(verdict.runner_up.fault), verdict.runner_up.residual)
    return replace(
        found, ok=harmless, name=f"{words}, {says}",
        rope=rope, facts=facts, residual=finding.residual, runner_up=runner_up,
        faults=() if harmless else (finding,), reproduce=None,
    )  # fmt: skip


def _rounded_rule(measured: Measured, layout: _pairs.Layout, probes: Probes, factor: float) -> Rope | None:
    """Return the Rope of the base whose frequencies, rounded to 16 bits, were measured."""
    width, speed = layout.rotary_dim, np.abs(measured.theta)
    if len(speed) < 4 or measured.axis_of is not None or layout.name == "blocks" or (speed == 0).any():
        return None
    rough = _through_one(speed, np.maximum(measured.uncertainty, 2.0**-9 * speed), width)
    for digits in (1, 2, 3):
        base = float(f"{rough:.{digits - 1}e}")
        for rounded in HALVES.values():
            made = rounded(unscaled(width, base))
            if np.all(np.abs(made - speed) <= 4 * measured.uncertainty + 1e-6 * speed):
                return Rope(
                    probes.head_dim, layout=layout.name, base=base, rotary_dim=width, rotary_offset=layout.rotary_offset
                )
    return None


def _sharper(rope: Rope, probes: Probes, layout: _pairs.Layout, measured: Measured, factor: float) -> Rope | None:
    """Return the Rope of a rounder base and factor, within what tables of 16 bits allow."""
    if rope.base is None or measured.axis_of is not None:
        return None
    base, near = nice(rope.base, 2e-3), nice(factor, 4e-3)
    if abs(near - 1) < 4e-3 and rope.attention_factor != 1 and rope.scaling is None:
        near = 1.0
    return rope._replace(base=base)


# ---- knowing what it should be


def against(found: Identification, probes: Probes, expected: Any) -> Identification:
    """Name the difference to the rotation that it should be."""
    if not isinstance(expected, Rope):
        if found.rope == expected:
            return found
        note = f"differs from the expected {type(expected).__name__}, and faults are known of a Rope alone"
        return replace(found, ok=False, notes=(*found.notes, note))
    if expected.head_dim != probes.head_dim:
        raise ValueError(f"expected must have head_dim {probes.head_dim}, got {expected.head_dim}")
    faults = [f for f in found.faults if f.fault == "state"]
    verdicts = []
    for long in (False, True):
        x, where, actual = random_answer(probes, long)
        rope = expected.at(int(where.max()) + 1)
        family = expected if rope is not expected else None
        verdicts.append(judge(Sample(x, where, rope, family), actual))
    worst = max((v.residual for v in verdicts), default=0.0)
    named = [v.finding for v in (verdicts[1], verdicts[0]) if v.finding is not None]
    if isinstance(found.rope, XPos):
        faults.append(Finding("xpos", f"as a {found.facts['side']}, scale_base {found.rope.scale_base:g}", worst))
        return replace(found, ok=False, faults=tuple(faults))
    if all(v.agrees for v in verdicts):
        return replace(found, ok=not faults, faults=tuple(faults))
    if named:
        faults.append(named[0])
    elif found.faults:
        faults += [f for f in found.faults if f.fault != "state"]
    notes = (
        found.notes
        if faults
        else (*found.notes, f"differs from the expected {expected!r} by {worst:.2g}, for no known reason")
    )
    second = next((v.runner_up for v in (verdicts[1], verdicts[0]) if v.runner_up is not None), None)
    runner_up = found.runner_up if second is None else (f"{second.fault} {second.detail}".strip(), second.residual)
    return replace(found, ok=False, faults=tuple(faults), notes=notes, runner_up=runner_up)
