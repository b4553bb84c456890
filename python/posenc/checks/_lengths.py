"""Scalings that depend on the length of a call: where they set in, and by which rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc._frequencies import unscaled
from posenc.checks import _pairs, _probing
from posenc.checks._judging import distance
from posenc.checks._naming import name_frequencies, short
from posenc.checks._spectrum import _through_one, nice
from posenc.checks.identification import Identification
from posenc.rotary import Rope
from posenc.scaling import DynamicLinear, DynamicNTK, LongRope

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks._rotation import Probes

    Floats = npt.NDArray[np.float64]


def name_by_length(found: Identification, probes: Probes, layout: _pairs.Layout) -> Identification:
    """Return it with the scaling that longer calls show."""
    rope = found.rope
    if not isinstance(rope, Rope) or probes.axes > 1:
        return replace(found, ok=False, name=f"unknown: {found.name} in short calls, something else in long ones")
    notes = found.notes
    if found.facts["base"] is None:
        notes = (*notes, "the base cannot be told from lists of divisors: they are given over base 10000")
    most = int(probes.long[0].max()) + 1
    limit = _switch(probes, most)
    lengths = [n for n in (2 * limit, 3 * limit, most) if limit < n <= most] or [most]
    measured = [_frequencies(probes, layout, n) for n in dict.fromkeys(lengths)]
    for scaling in _candidates(rope, found.facts["base"], limit, dict.fromkeys(lengths), measured):
        whole = _scaled(rope, scaling)
        if whole is None:
            continue
        gaps = [
            np.max(np.abs(np.abs(theta) / whole.at(n).inv_freq - 1))
            for n, (theta, _) in zip(dict.fromkeys(lengths), measured, strict=True)
        ]
        if max(gaps) < 1e-4:
            facts = {**found.facts, "scaling": repr(scaling), "attention_factor": whole.attention_factor}
            return replace(
                found,
                ok=not found.faults,
                name=f"{found.name if found.facts['base'] else whole.layout}, {short(scaling)}",
                rope=whole,
                facts=facts,
                notes=notes,
                reproduce=None,
            )
    note = f"calls of up to {limit} tokens turn so; longer ones otherwise"
    words = name_frequencies(*measured[-1], None).words
    return replace(
        found, ok=False, name=f"unknown: {found.name}; of {lengths[-1]} tokens {words}", notes=(*found.notes, note)
    )


def _call(probes: Probes, n: int) -> tuple[Any, Floats]:
    """Return the matrices of a call of n tokens, made after a short one that lets a module forget."""
    _probing.matrices(probes.call, np.arange(2), probes.head_dim)
    positions = np.array(sorted({p for p in (*_probing.SHORT, *_probing.LADDER) if p < n} | {n - 1}))
    return positions, _probing.matrices(probes.call, positions, probes.head_dim)


def _switch(probes: Probes, most: int) -> int:
    """Return the largest length of a call whose small positions turn as in the short one."""
    short, wanted = probes.short
    low, high = int(short.max()) + 1, most
    while high - low > 1:
        middle = (low + high) // 2
        positions, matrices = _call(probes, middle)
        same = distance(matrices[np.isin(positions, short)], wanted[np.isin(short, positions)]) < 1e-6
        low, high = (middle, high) if same else (low, middle)
    return low


def _frequencies(probes: Probes, layout: _pairs.Layout, n: int) -> tuple[Floats, Floats]:
    from posenc.checks._angles import unwrap

    positions, matrices = _call(probes, n)
    turning = unwrap(positions, _pairs.structure(matrices).first)
    return turning.frequency, turning.uncertainty


def _candidates(rope: Rope, base: float | None, limit: int, lengths: Any, measured: list[tuple[Floats, Floats]]) -> Any:
    """Yield scalings of a base; where short calls follow none, lists of divisors."""
    n, (theta, uncertainty) = max(lengths), measured[-1]
    width = 2 * len(rope.inv_freq)
    if len(theta) != len(rope.inv_freq):
        return
    ratio = rope.inv_freq / np.abs(theta)
    if base is not None:
        grown = _through_one(np.abs(theta), uncertainty, width)
        alpha = (grown / base) ** ((width - 2) / width) if width > 2 else 1.0
        factor = nice((alpha - 1) / (n / limit - 1), 1e-3)
        if factor >= 1:
            yield DynamicNTK(factor, limit)
        if np.allclose(ratio, ratio[0], rtol=1e-5):
            yield DynamicLinear(limit)
            yield DynamicLinear(limit, nice(float(ratio[0]), 1e-4))
    if all(np.allclose(t, theta, rtol=1e-5) for t, _ in measured):
        plain = rope.inv_freq if base is not None else unscaled(width, 10000.0)
        few, many = (tuple(nice(float(r), 1e-5) for r in plain / np.abs(f)) for f in (rope.inv_freq, theta))
        yield LongRope(few, many, limit, attention_factor=rope.attention_factor)


def _scaled(rope: Rope, scaling: Any) -> Rope | None:
    try:
        return rope._replace(scaling=scaling, base=rope.base or 10000.0, inv_freq=None)
    except (ValueError, TypeError):
        return None
