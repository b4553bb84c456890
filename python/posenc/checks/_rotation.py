"""Identification of a rotation: measured, named, and compared with the function again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.axes import UnequalRope
from posenc.checks import _angles, _pairs, _probing
from posenc.checks._faults import Finding
from posenc.checks._judging import distance, judge
from posenc.checks._naming import Named, name_frequencies, rope_of, system_of
from posenc.checks._rounding import HALVES, held_by
from posenc.checks._spectrum import nice
from posenc.checks._variants import Sample
from posenc.checks.identification import Identification
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks._calling import Caller

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_ROUNDING = 5e-6  # of a float32 function at small positions, relative to its input


@dataclass(frozen=True)
class Probes:
    """A function's matrices at positions of a short and of a long call, one axis after the other.

    Attributes
    ----------
    short, long : (ndarray of int64, ndarray of float64)
        Positions (seq,) or (axes, seq), and matrices (seq, head_dim, head_dim).
    again : ndarray
        Matrices of the short call, made again after the long one.
    """

    call: Caller
    head_dim: int
    axes: int
    short: tuple[Ints, Floats]
    long: tuple[Ints, Floats]
    again: Floats

    def of_axis(self, which: tuple[Ints, Floats], axis: int) -> tuple[Ints, slice]:
        """Return the positions on one axis, and their place in a call."""
        positions, _ = which
        count = positions.shape[-1] // self.axes
        place = slice(axis * count, (axis + 1) * count)
        return (positions[place] if self.axes == 1 else positions[axis, place]), place


def probe(call: Caller, head_dim: int, axes: int, most: int) -> tuple[Probes, str]:
    """Call the function: short first, before a long call can change what it remembers; then long, and short again.

    Returns the answers, and what the function said of positions that it refused.
    """

    def asked(positions: Any) -> tuple[Ints, Floats]:
        where = np.concatenate([_probing.on_axis(positions, a, axes) for a in range(axes)], axis=-1)
        return where, _probing.matrices(call, where, head_dim)

    short, answer = [p for p in _probing.SHORT if p <= most], None
    try:
        answer = asked(short)
    except Exception:  # it may know few positions only, which the next lines find out
        answer = None
    most, said = _probing.furthest(call, head_dim, axes, most)
    short = [p for p in short if p <= most]
    first = asked(short) if answer is None else answer
    long = sorted({*short, *(p for p in (*_probing.LADDER, *_probing.ODD, most) if p <= most)})
    return Probes(call, head_dim, axes, first, asked(long), asked(short)[1]), said


def identify_rotation(call: Caller, head_dim: int, axes: int, most: int, expected: Any = None) -> Identification:
    """Return what `posenc.checks.identify` does for a rotation."""
    probes, said = probe(call, head_dim, axes, most)
    notes = [f"larger positions than {int(probes.long[0].max())} are refused: {said}"] if said else []
    found = _recognise(probes)
    found = replace(found, notes=(*notes, *found.notes))
    if not np.array_equal(probes.short[1], probes.again, equal_nan=True):
        gap = distance(probes.again, probes.short[1])
        fault = Finding("state", f"the same short call differs by {gap:.2g} after a long one", gap)
        found = replace(found, ok=False, faults=(*found.faults, fault))
    return found if expected is None else _against(found, probes, expected)


# ---- without knowing what it should be


def _recognise(probes: Probes) -> Identification:
    positions, matrices = probes.short
    longer = _with_long(probes)
    structure = _pairs.structure(np.concatenate([matrices, longer[1]]) if longer else matrices)
    if structure.mixed:
        return _unknown("outputs depend on more than two inputs: no rotation of pairs", f"first of them: output {structure.mixed[0]}")
    if not structure.inputs:
        return _no_pairs(structure, matrices)
    layout = _pairs.lay_out(structure, probes.head_dim)
    if layout is None:
        shown = ", ".join(f"{a}-{b}" for a, b in structure.inputs[:6])
        return _unknown("pairs of no known layout", f"they are {shown}, ..")
    return _of_pairs(probes, structure, layout, longer is not None)


def _with_long(probes: Probes) -> tuple[Ints, Floats] | None:
    """Return the long call, unless the length of a call changes what it does at small positions."""
    positions, matrices = probes.long
    index = [np.flatnonzero((positions.T == p).reshape(positions.shape[-1], -1).all(axis=1))[0] for p in probes.short[0].T]
    return (positions, matrices) if distance(matrices[index], probes.short[1]) < 1e-5 else None


def _unknown(reason: str, detail: str = "", residual: float = float("nan")) -> Identification:
    return Identification(False, "rotation", f"unknown: {reason}", None, {}, residual, notes=(detail,) * bool(detail))


def _no_pairs(structure: _pairs.Structure, matrices: Floats) -> Identification:
    if not np.any(matrices):
        return _unknown("everything becomes zero")
    if structure.lone:
        found = _unknown("elements are scaled by their position, and no two of them turn together")
        return replace(found, faults=(Finding("cosine_only", "", float("nan")),))
    gap = distance(matrices, np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape))
    found = _unknown("nothing is rotated", residual=gap)
    return replace(found, faults=(Finding("not_rotated", "the input comes back", gap),)) if gap < _ROUNDING else found


@dataclass(frozen=True)
class Measured:
    """Frequencies and phases of all pairs of a layout."""

    theta: Floats
    uncertainty: Floats
    start: Floats
    axis_of: npt.NDArray[np.int64] | None
    consistent: bool
    several: bool  # pairs that more than one axis turns


def _measure(probes: Probes, layout: _pairs.Layout, which: tuple[Ints, Floats], turns: Any, count: bool = False) -> Measured:
    """Unwrap the phases of every axis; `count` takes the place in the call for the position."""
    pairs = sum(w for _, w in layout.blocks) // 2 if layout.name == "blocks" else layout.rotary_dim // 2
    theta, start, uncertainty = (np.zeros((probes.axes, pairs)) for _ in range(3))
    consistent = True
    for axis in range(probes.axes):
        where, place = probes.of_axis(which, axis)
        found = _angles.unwrap(np.arange(len(where)) if count else where, turns[place])
        index = list(layout.pairs)
        theta[axis, index], start[axis, index], uncertainty[axis, index] = found.frequency, found.start, found.uncertainty
        consistent = consistent and found.consistent
    moving = np.abs(theta) > np.maximum(8 * uncertainty, 1e-9 * np.max(np.abs(theta), initial=0.0))
    if probes.axes == 1:
        return Measured(theta[0], uncertainty[0], start[0], None, consistent, False)
    axis_of = np.argmax(np.abs(theta), axis=0)
    pick = (axis_of, np.arange(pairs))
    return Measured(theta[pick], uncertainty[pick], start[pick], axis_of, consistent, bool((moving.sum(axis=0) > 1).any()))


def _of_pairs(probes: Probes, structure: _pairs.Structure, layout: _pairs.Layout, stable: bool) -> Identification:
    """Name what turns pairs, from the long call where it agrees with the short one."""
    split = probes.short[0].shape[-1]
    calls = {"short": (probes.short, slice(0, split)), "long": (probes.long, slice(split, None))}
    first, second = structure.first, structure.second
    unequal = distance(_parts(first[:split]), _parts(second[:split])) > 1e-4 * float(np.abs(first[:split]).max())
    if unequal:
        from posenc.checks._unequal import name_unequal

        which, place = calls["long" if stable else "short"]
        return name_unequal(probes, layout, structure, which, place)
    size = np.abs(first[:split])
    factor = float(np.median(size))
    if np.max(np.abs(size / factor - 1)) > 0.02:
        return _growing(probes, layout, first[:split])
    which, place = calls["short"]
    measured = _measure(probes, layout, which, first[:split])
    if not measured.consistent:
        ignoring = _measure(probes, layout, which, first[:split], count=True)
        if ignoring.consistent and probes.axes == 1:
            named = name_frequencies(ignoring.theta, ignoring.uncertainty, None)
            rope = rope_of(named, layout, probes.head_dim, None, nice(factor, 1e-6), "exact")
            fault = Finding("positions_ignored", "tokens count from 0 whatever the positions", 0.0)
            return Identification(False, "rotation", f"positions are ignored; {layout.name}, {named.words}", rope, {}, 0.0, faults=(fault,))
        return _unknown("phases do not grow with the position")
    if stable:
        longer = _measure(probes, layout, probes.long, first[split:])
        measured = longer if longer.consistent else measured
    return _named(probes, layout, measured, factor, stable)


def _parts(turns: Any) -> Floats:
    return np.stack([turns.real, turns.imag])


def _growing(probes: Probes, layout: _pairs.Layout, turns: Any) -> Identification:
    """Elements that grow or shrink: by a power of the position in xPos."""
    where, place = probes.of_axis(probes.short, 0)
    size = np.abs(turns[place])
    rate = np.log(size[where == 8][0] / size[where == 0][0]) / 8
    exponential = np.allclose(np.log(size / size[0]), np.outer(where, rate), atol=1e-5)
    if not exponential or layout.name == "blocks":
        return _unknown("the norm changes with the position")
    pairs, width = np.array(layout.pairs), layout.rotary_dim
    slope = np.log((2 * pairs + 0.4 * width) / (1.4 * width))
    scale_base = float(np.median(slope / rate))
    found = _unknown(f"xPos: the norm grows with the position, scale_base {abs(scale_base):.6g}")
    side = "query" if scale_base > 0 else "key"
    ok = bool(np.allclose(rate * scale_base, slope, rtol=1e-3, atol=1e-6))
    return replace(found, faults=(Finding("xpos", f"as a {side}", 0.0),) if ok else ())


def _origin(measured: Measured) -> tuple[float | None, bool]:
    """Return (position of the first token, whether cosine and sine are exchanged); None where no offset explains the start."""
    start, theta = measured.start, measured.theta
    moving = np.abs(theta) > 8 * measured.uncertainty
    if np.max(np.abs(start), where=moving, initial=0.0) < 5e-3 * 0 + 1e-5 + 0.02 * _coarse(measured):
        return 0.0, False
    if np.allclose(start[moving], np.pi / 2, atol=1e-2):
        return 0.0, True
    turn, freq = np.exp(1j * start[moving]), theta[moving]
    tries = np.concatenate([np.arange(-256, 257) / 2, np.arange(-4096, 4097)])
    cost = np.abs(np.exp(1j * tries[:, None] * freq) - turn).max(axis=1)
    best = int(np.argmin(cost))
    if cost[best] < 1e-3 + 0.02 * _coarse(measured):
        return float(tries[best]), False
    slow = int(np.argmin(np.where(np.abs(start[moving]) > 1e-3, np.abs(freq), np.inf)))
    guess = float(start[moving][slow] / freq[slow])
    return (guess, False) if np.abs(np.exp(1j * guess * freq) - turn).max() < 1e-2 else (None, False)


def _coarse(measured: Measured) -> float:
    return float(np.max(measured.uncertainty) > 1e-4)


def _named(probes: Probes, layout: _pairs.Layout, measured: Measured, factor: float, stable: bool) -> Identification:
    """Put name, Rope and residual together."""
    if measured.several:
        return _unknown("pairs are turned by several position axes at once (posenc.axes.MixedRope does so)")
    origin, swapped = _origin(measured)
    if origin is None:
        return _unknown("the phases at position 0 follow no offset")
    theta = -measured.theta if swapped else measured.theta
    named = name_frequencies(theta, measured.uncertainty, measured.axis_of)
    rough = nice(factor, 1e-6)
    found = _reproduced(probes, layout, measured, named, rough, origin, swapped, stable)
    return found


def _reproduced(
    probes: Probes, layout: _pairs.Layout, measured: Measured, named: Named, factor: float, origin: float, swapped: bool, stable: bool
) -> Identification:
    head_dim, axis_of = probes.head_dim, measured.axis_of
    if layout.name == "half_to_interleaved":
        return _unknown("reads halves and writes pairs: the inverse of interleaved_to_half")
    x, where, actual = _random_answer(probes, long=stable)
    system = None if axis_of is None else system_of(rope_of(named, layout, head_dim, axis_of, factor, "exact"))
    best: tuple[float, Any] | None = None
    other = float("inf")
    for precision in ("float32", "exact"):
        rope = rope_of(named, layout, head_dim, axis_of, factor, precision)
        if system is not None and factor == 1:
            rope = system[1]._replace(precision=precision)
        gap = _gap(rope, x, where + origin, actual, swapped)
        if best is None or gap < best[0]:
            best, other = (gap, rope), best[0] if best else other
        else:
            other = gap
    assert best is not None
    gap, rope = best
    precision = rope.precision if isinstance(rope, Rope) else rope.ropes[0].precision
    facts = _facts(layout, named, rope, factor, origin, theta_sign(named), other, gap, precision)
    words = _words(layout, named, head_dim, factor, origin, facts)
    notes = (*named.notes, *((f"the rotation of {system[0]} in posenc.axes.SYSTEMS",) if system else ()))
    fits = named.known and (gap < _ROUNDING or _as_float32(rope, x, where + origin, actual, swapped))
    if fits and gap >= _ROUNDING:
        facts["angles"] = "float32, by other steps than transformers'"
    runner_up = None if named.runner_up is None else (f"{named.runner_up.name}, base {named.runner_up.base:.6g}", named.runner_up.relative)
    found = Identification(
        fits, "rotation", words if named.known else f"{words} (frequencies as measured)", rope, facts, gap,
        runner_up, (), notes, lambda x, positions: _apply(rope, x, np.asarray(positions) + origin, swapped),
    )  # fmt: skip
    if swapped:
        found = replace(found, ok=False, faults=(Finding("swapped_cos_sin", "", gap),), name=f"cos and sin exchanged; {words}")
        return found
    if fits:
        return found if stable else _by_length(found, probes, layout)
    return _explained(found, probes, rope, x, where + origin, actual, stable, layout, measured, factor)


def theta_sign(named: Named) -> int:
    """Return -1 for a clockwise rotation, 1 for the usual one, 0 where pairs differ."""
    signs = set(np.sign(named.inv_freq[named.inv_freq != 0]).tolist())
    return int(signs.pop()) if len(signs) == 1 else 0


def _random_answer(probes: Probes, long: bool) -> tuple[Floats, Floats, Floats]:
    positions = (probes.long if long else probes.short)[0]
    rng = np.random.default_rng(1)
    heads = min(4, probes.call.heads or 4)
    x = rng.standard_normal((1, heads, positions.shape[-1], probes.head_dim)).astype(np.float32)
    with np.errstate(all="ignore"):
        return x.astype(np.float64), positions.astype(np.float64), probes.call(x, positions)


def rows_of(rope: Any, positions: Floats) -> Floats:
    """Return the rows of positions that a Rope reads, where it turns by fewer axes than there are."""
    if positions.ndim == 1 or rope.axes == len(positions):
        return positions
    return positions[0] if rope.axes == 1 else positions[: rope.axes]


def _apply(rope: Any, x: Floats, positions: Floats, swapped: bool = False) -> Floats:
    positions = rows_of(rope, positions)
    if not swapped:
        return np.asarray(rope(x, positions=positions))
    cos, sin = rope.table(positions, dtype=np.float64)
    sample = Sample(x, positions, rope)
    from posenc.checks._variants import pairs_of

    return sample.by_pairs(*pairs_of(rope), (sin, cos), (sin, cos))


def _gap(rope: Any, x: Floats, positions: Floats, actual: Floats, swapped: bool) -> float:
    try:
        return distance(actual, _apply(rope, x, positions, swapped)) / float(np.abs(x).max())
    except ValueError:  # an angle beyond 2**31
        return float("inf")


def _as_float32(rope: Any, x: Floats, positions: Floats, actual: Floats, swapped: bool) -> bool:
    """Return whether the difference is what float32 frequencies and angles may cost, at every position."""
    try:
        off = np.abs(actual - _apply(rope, x, positions, swapped))
    except ValueError:
        return False
    positions = rows_of(rope, positions)
    far = np.abs(positions) if rope.axes == 1 else np.abs(positions).max(axis=0)
    fastest = float(np.max(np.abs(rope.inv_freq)))
    return bool(np.isfinite(off).all() and (off <= np.abs(x).max() * (4e-6 + 3e-7 * far * fastest)[:, None]).all())


def _facts(
    layout: _pairs.Layout, named: Named, rope: Any, factor: float, origin: float, sign: int, other: float, gap: float, precision: str
) -> dict[str, Any]:
    distinct = gap < 0.2 * other
    return {
        "layout": layout.name,
        "rotary_dim": layout.rotary_dim,
        "rotary_offset": layout.rotary_offset,
        "direction": {1: "counterclockwise", -1: "clockwise", 0: "both"}[sign],
        "base": named.base,
        "scaling": None if named.scaling is None else repr(named.scaling),
        "attention_factor": factor,
        "position_offset": origin,
        "axes": rope.axes,
        "sections": named.sections,
        "axes_order": named.order,
        "axis_of_freq": None if getattr(rope, "axis_of_freq", None) is None else rope.axis_of_freq.tolist(),
        "angles": precision if distinct else "exact or float32: no probe tells them apart",
        "table_precision": None,
    }


def _words(layout: _pairs.Layout, named: Named, head_dim: int, factor: float, origin: float, facts: dict[str, Any]) -> str:
    parts = [layout.name]
    if layout.rotary_dim != head_dim:
        at = f" from element {layout.rotary_offset}" if layout.rotary_offset else ""
        parts.append(f"{layout.rotary_dim} of {head_dim} elements{at}")
    parts.append(named.words)
    if facts["direction"] != "counterclockwise":
        parts.append(facts["direction"])
    if factor != 1:
        parts.append(f"attention factor {factor:.8g}")
    if origin:
        parts.append(f"positions {origin:+g}")
    return ", ".join(parts)


# ---- what a nearly right rotation has


def _explained(
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
        least = (verdict.finding or verdict.nearest).residual if verdict.finding or verdict.nearest else verdict.residual
        if best is None or least < best[0]:
            best = (least, verdict, sample.rope)
    assert best is not None
    least, verdict, rope = best
    if verdict.finding is None:
        reason = f"unknown: near {found.name}" if found.residual < 0.5 else f"unknown: {found.name}"
        return replace(found, ok=False, name=reason)
    return _with_fault(found, rope, verdict, table, layout, probes)


def _with_fault(found: Identification, rope: Rope, verdict: Any, table: str | None, layout: _pairs.Layout, probes: Probes) -> Identification:
    from posenc.checks._naming import _short

    finding = verdict.finding
    scaling = "" if rope.scaling is None or isinstance(rope.scaling, InverseFrequencies) else f", {_short(rope.scaling)}"
    base = "" if rope.base is None else f"base {rope.base:.10g}"
    words = ", ".join(filter(None, [layout.name, f"{rope.rotary_dim} of {rope.head_dim} elements" * (rope.rotary_dim != rope.head_dim), base + scaling]))
    harmless = finding.fault in ("half_tables", "half_arithmetic", "float32_angles")
    facts = {**found.facts, "base": rope.base, "attention_factor": rope.attention_factor, "angles": rope.precision}
    facts["table_precision"] = finding.detail if harmless else None
    runner_up = None if verdict.runner_up is None else (str(verdict.runner_up.fault), verdict.runner_up.residual)
    return replace(
        found, ok=harmless, name=f"{words}, {finding.detail}" if harmless else f"{words}, but {finding.fault}: {finding.detail}",
        rope=rope, facts=facts, residual=finding.residual, runner_up=runner_up, faults=() if harmless else (finding,), reproduce=None,
    )  # fmt: skip


def _rounded_rule(measured: Measured, layout: _pairs.Layout, probes: Probes, factor: float) -> Rope | None:
    """Return the Rope of the base whose frequencies, rounded to 16 bits, were measured."""
    from posenc._frequencies import unscaled
    from posenc.checks._spectrum import _through_one

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


# ---- scalings that depend on the length


def _by_length(found: Identification, probes: Probes, layout: _pairs.Layout) -> Identification:
    from posenc.checks._lengths import name_by_length

    return name_by_length(found, probes, layout)


# ---- knowing what it should be


def _against(found: Identification, probes: Probes, expected: Any) -> Identification:
    """Name the difference to the rotation that it should be."""
    if not isinstance(expected, Rope):
        return found
    if expected.head_dim != probes.head_dim:
        raise ValueError(f"expected must have head_dim {probes.head_dim}, got {expected.head_dim}")
    faults = [f for f in found.faults if f.fault == "state"]
    verdicts = []
    for long in (False, True):
        x, where, actual = _random_answer(probes, long)
        rope = expected.at(int(where.max()) + 1)
        family = expected if rope is not expected else None
        verdicts.append(judge(Sample(x, where, rope, family), actual))
    worst = max((v.residual for v in verdicts), default=0.0)
    named = [v.finding for v in (verdicts[1], verdicts[0]) if v.finding is not None]
    if all(v.agrees for v in verdicts):
        return replace(found, ok=not faults, faults=tuple(faults))
    if named:
        faults.append(named[0])
    elif found.faults:
        faults += [f for f in found.faults if f.fault != "state"]
    notes = found.notes if faults else (*found.notes, f"differs from the expected {expected!r} by {worst:.2g}, for no known reason")
    second = next((v.runner_up for v in (verdicts[1], verdicts[0]) if v.runner_up is not None), None)
    runner_up = found.runner_up if second is None else (f"{second.fault} {second.detail}".strip(), second.residual)
    return replace(found, ok=False, faults=tuple(faults), notes=notes, runner_up=runner_up)
