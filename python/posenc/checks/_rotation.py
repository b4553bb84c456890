"""Identification of a rotation: measured, named, and compared with the function again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks import _angles, _pairs, _probing, _spectrum
from posenc.checks._faults import Finding
from posenc.checks._judging import distance
from posenc.checks._naming import Named, name_frequencies, rope_of, system_of
from posenc.checks._reproducing import applied, as_float32, gap_of, random_answer
from posenc.checks._spectrum import nice
from posenc.checks._words import direction_of, facts_of, words_of
from posenc.checks.identification import Identification
from posenc.rotary import Rope

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
    most = most if answer is None else max(most, short[-1])
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
    if expected is None:
        return found
    from posenc.checks._explaining import against

    return against(found, probes, expected)


# ---- without knowing what it should be


def _recognise(probes: Probes) -> Identification:
    matrices = probes.short[1]
    if not np.isfinite(matrices).any():
        return unknown("no output is a finite number")
    longer = _with_long(probes)
    structure = _pairs.structure(np.concatenate([matrices, longer[1]]) if longer else matrices)
    if structure.mixed:
        return unknown(
            "outputs depend on more than two inputs: no rotation of pairs",
            f"first of them: output {structure.mixed[0]}",
        )
    if not structure.inputs:
        return _no_pairs(structure, matrices)
    layout = _pairs.lay_out(structure, probes.head_dim)
    if layout is None:
        shown = ", ".join(f"{a}-{b}" for a, b in structure.inputs[:6])
        return unknown("pairs of no known layout", f"they are {shown}, ..")
    return _of_pairs(probes, structure, layout, longer is not None)


def _with_long(probes: Probes) -> tuple[Ints, Floats] | None:
    """Return the long call, unless the length of a call changes what it does at small positions."""
    positions, matrices = probes.long
    index = [
        np.flatnonzero((p == positions.T).reshape(positions.shape[-1], -1).all(axis=1))[0] for p in probes.short[0].T
    ]
    return (positions, matrices) if distance(matrices[index], probes.short[1]) < 1e-5 else None


def unknown(reason: str, detail: str = "", residual: float = float("nan")) -> Identification:
    return Identification(False, "rotation", f"unknown: {reason}", None, {}, residual, notes=(detail,) * bool(detail))


def _no_pairs(structure: _pairs.Structure, matrices: Floats) -> Identification:
    if not np.any(matrices):
        return unknown("everything becomes zero")
    if structure.lone:
        found = unknown("elements are scaled by their position, and no two of them turn together")
        return replace(found, faults=(Finding("cosine_only", "", float("nan")),))
    gap = distance(matrices, np.broadcast_to(np.eye(matrices.shape[1]), matrices.shape))
    found = unknown("nothing is rotated", residual=gap)
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


def measure(
    probes: Probes, layout: _pairs.Layout, which: tuple[Ints, Floats], turns: Any, count: bool = False
) -> Measured:
    """Unwrap the phases of every axis; `count` takes the place in the call for the position."""
    pairs = sum(w for _, w in layout.blocks) // 2 if layout.name == "blocks" else layout.rotary_dim // 2
    theta, start, uncertainty = (np.zeros((probes.axes, pairs)) for _ in range(3))
    consistent = True
    for axis in range(probes.axes):
        where, place = probes.of_axis(which, axis)
        found = _angles.unwrap(np.arange(len(where)) if count else where, turns[place])
        index = list(layout.pairs)
        theta[axis, index], start[axis, index], uncertainty[axis, index] = (
            found.frequency,
            found.start,
            found.uncertainty,
        )
        consistent = consistent and found.consistent
        if layout.rotary_dim > probes.head_dim and 2 < pairs == len(index) + 1:
            _continue(theta[axis], uncertainty[axis], index)
    moving = np.abs(theta) > np.maximum(8 * uncertainty, 1e-9 * np.max(np.abs(theta), initial=0.0))
    if probes.axes == 1:
        return Measured(theta[0], uncertainty[0], start[0], None, consistent, False)
    axis_of = np.argmax(np.abs(theta), axis=0)
    pick = (axis_of, np.arange(pairs))
    return Measured(
        theta[pick], uncertainty[pick], start[pick], axis_of, consistent, bool((moving.sum(axis=0) > 1).any())
    )


def _continue(theta: Floats, uncertainty: Floats, known: list[int]) -> None:
    """Set the frequency of an odd head's last pair as the two before it say; reproducing the function then decides."""
    missing = next(i for i in range(len(theta)) if i not in known)
    if missing >= 2 and theta[missing - 2] != 0:
        ratio = theta[missing - 1] / theta[missing - 2]
        theta[missing] = theta[missing - 1] * ratio
        uncertainty[missing] = 2 * uncertainty[missing - 1] + uncertainty[missing - 2] * abs(ratio)


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
        from posenc.checks._growing import name_growing

        return name_growing(probes, layout, first, split, stable)
    which, place = calls["short"]
    measured = measure(probes, layout, which, first[:split])
    if not measured.consistent:
        ignoring = measure(probes, layout, which, first[:split], count=True)
        if ignoring.consistent and probes.axes == 1:
            named = name_frequencies(ignoring.theta, ignoring.uncertainty, None)
            rope = rope_of(named, layout, probes.head_dim, None, nice(factor, 1e-6), "exact")
            fault = Finding("positions_ignored", "tokens count from 0 whatever the positions", 0.0)
            return Identification(
                False,
                "rotation",
                f"positions are ignored; {layout.name}, {named.words}",
                rope,
                {},
                0.0,
                faults=(fault,),
            )
        return unknown("phases do not grow with the position")
    if stable:
        longer = measure(probes, layout, probes.long, first[split:])
        measured = longer if longer.consistent else measured
    return _named(probes, layout, measured, factor, stable)


def _parts(turns: Any) -> Floats:
    return np.stack([turns.real, turns.imag])


def origin_of(measured: Measured) -> tuple[float | None, bool]:
    """Return (offset of the positions, whether cosine and sine are exchanged); None where no offset explains it."""
    start, theta = measured.start, measured.theta
    moving = np.abs(theta) > 8 * measured.uncertainty
    if np.max(np.abs(start), where=moving, initial=0.0) < 1e-5 + 0.02 * _coarse(measured):
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
        return unknown("pairs are turned by several position axes at once (posenc.axes.MixedRope does so)")
    origin, swapped = origin_of(measured)
    if origin is None:
        return unknown("the phases at position 0 follow no offset")
    theta = -measured.theta if swapped else measured.theta
    named = name_frequencies(theta, measured.uncertainty, measured.axis_of)
    rough = nice(factor, 1e-6)
    found = _reproduced(probes, layout, measured, named, rough, origin, swapped, stable)
    return found


def _rival(named: Named) -> Named | None:
    """Return the next best rule in the place of the best one, to be compared with the function in the same way."""
    fit = named.runner_up
    made = None if fit is None else _spectrum.frequencies(fit.base, fit.scaling, 2 * len(named.inv_freq))
    if made is None:
        return None
    return replace(
        named, inv_freq=np.where(named.inv_freq < 0, -made, made), known=True, base=fit.base, scaling=fit.scaling
    )


def _reproduced(
    probes: Probes,
    layout: _pairs.Layout,
    measured: Measured,
    named: Named,
    factor: float,
    origin: float,
    swapped: bool,
    stable: bool,
) -> Identification:
    head_dim, axis_of = probes.head_dim, measured.axis_of
    if layout.name == "half_to_interleaved":
        return unknown("reads halves and writes pairs: the inverse of interleaved_to_half")
    x, where, actual = random_answer(probes, long=stable)
    system = None if axis_of is None else system_of(rope_of(named, layout, head_dim, axis_of, factor, "exact"))
    best: tuple[float, Any] | None = None
    other = float("inf")
    for precision in ("float32", "exact"):
        rope = rope_of(named, layout, head_dim, axis_of, factor, precision)
        if system is not None and factor == 1:
            rope = system[1]._replace(precision=precision)
        gap = gap_of(rope, x, where + origin, actual, swapped)
        if best is None or gap < best[0]:
            best, other = (gap, rope), best[0] if best else other
        else:
            other = gap
    assert best is not None
    gap, rope = best
    precision = rope.precision if isinstance(rope, Rope) else rope.ropes[0].precision
    facts = facts_of(layout, named, rope, factor, origin, direction_of(named), other, gap, precision)
    words = words_of(layout, named, head_dim, factor, origin, facts)
    notes = (*named.notes, *((f"the rotation of {system[0]} in posenc.axes.SYSTEMS",) if system else ()))
    fits = named.known and (gap < _ROUNDING or as_float32(rope, x, where + origin, actual, swapped))
    if fits and gap >= _ROUNDING:
        facts["angles"] = "float32, by other steps than transformers'"
    runner_up = None
    if (rival := _rival(named)) is not None:
        ropes = [rope_of(rival, layout, head_dim, axis_of, factor, p) for p in ("float32", "exact")]
        distance_left = min(gap_of(r, x, where + origin, actual, swapped) for r in ropes)
        runner_up = (f"{named.runner_up.name}, base {named.runner_up.base:.6g}", distance_left)
    found = Identification(
        fits, "rotation", words if named.known else f"{words} (frequencies as measured)", rope, facts, gap,
        runner_up, (), notes, lambda x, positions: applied(rope, x, np.asarray(positions) + origin, swapped),
    )  # fmt: skip
    if swapped:
        found = replace(
            found, ok=False, faults=(Finding("swapped_cos_sin", "", gap),), name=f"cos and sin exchanged; {words}"
        )
        return found
    if fits or (not stable and gap < _ROUNDING):
        return found if stable else _by_length(found, probes, layout)
    from posenc.checks._explaining import explained

    return explained(found, probes, rope, x, where + origin, actual, stable, layout, measured, factor)


# ---- scalings that depend on the length


def _by_length(found: Identification, probes: Probes, layout: _pairs.Layout) -> Identification:
    from posenc.checks._lengths import name_by_length

    return name_by_length(found, probes, layout)
