"""Names of measured frequencies: base and scaling, sections or a system of several axes, and a Rope that has them."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import axes as axis_ropes
from posenc.axes.text import _ORDERS
from posenc.checks import _spectrum
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks._pairs import Layout

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Named:
    """Frequencies by their rule.

    Attributes
    ----------
    words : str
        "base 10000", "base 500000, Llama3(..)", ..
    inv_freq : ndarray
        As the rule has them, signs included; as measured where there is no rule.
    known : bool
        Whether there is a rule.
    base, scaling, sections, order : the rule's parameters, or None
    runner_up : Fit or None
    notes : tuple of str
    """

    words: str
    inv_freq: Floats
    known: bool
    base: float | None = None
    scaling: Any = None
    sections: tuple[int, ...] | None = None
    order: str | None = None
    runner_up: Any = None
    notes: tuple[str, ...] = ()


def name_frequencies(theta: Floats, uncertainty: Floats, axis_of: npt.NDArray[np.int64] | None) -> Named:
    """Return the rule of signed frequencies, one a pair, in the order of a layout's pairs."""
    width, speed = 2 * len(theta), np.abs(theta)
    turning = speed > 4 * uncertainty
    signs = np.where(theta < 0, -1.0, 1.0)
    one_way = not (turning.any() and len(set(signs[turning].tolist())) > 1)
    if not turning.any():
        return Named("nothing turns", np.zeros(len(theta)), True)
    sign = signs[np.argmax(speed)] if one_way else 1.0
    fits = _spectrum.fit(speed, uncertainty, width) if one_way else []
    if fits and fits[0].fits:
        made = _spectrum.frequencies(fits[0].base, fits[0].scaling, width)
        assert made is not None
        other = next((f for f in fits[1:] if f.name != fits[0].name and not _same_numbers(f, made)), None)
        notes = (fits[0].note,) if fits[0].note else ()
        found = Named(_words(fits[0]), sign * made, True, fits[0].base, fits[0].scaling, None, None, other, notes)
        return found if axis_of is None else _with_sections(found, axis_of)
    if axis_of is not None and one_way:
        axial = _by_axis(speed, uncertainty, axis_of)
        if axial is not None:
            return Named(axial[0], sign * axial[1], True, axial[2], notes=axial[3])
    nearest = fits[0] if fits else None
    return Named("frequencies of no known rule", theta, False, runner_up=nearest)


def _same_numbers(fit: _spectrum.Fit, made: Floats) -> bool:
    """Return whether a rule is the winner under another name, as Linear(1) is no scaling: no runner-up."""
    its = _spectrum.frequencies(fit.base, fit.scaling, 2 * len(made))
    return its is not None and bool(np.allclose(its, made, rtol=1e-6, atol=0))


def _words(fit: _spectrum.Fit) -> str:
    scaling = "" if fit.scaling is None else f", {short(fit.scaling)}"
    return f"base {fit.base:.10g}{scaling}"


def short(scaling: Any) -> str:
    """Return a scaling's repr without what is as it would be by default, and without long lists."""
    if scaling is None:
        return "none"
    given = [
        f"{f.name}={check.shown(getattr(scaling, f.name))}"
        for f in fields(scaling)
        if f.default is MISSING or getattr(scaling, f.name) != f.default
    ]
    return f"{type(scaling).__name__}({', '.join(given)})"


def _with_sections(found: Named, axis_of: npt.NDArray[np.int64]) -> Named:
    """Return it with the sections and the order of `posenc.axes.mrope` that make these axes."""
    count = int(axis_of.max()) + 1
    if len(set(axis_of.tolist())) == 1:
        return replace(found, words=f"{found.words}, every pair by axis {count - 1}")
    sections = np.bincount(axis_of, minlength=count).tolist()
    for order, build in _ORDERS.items():
        given = sections[1:] + sections[:1] if order == "hw_then_t" else sections
        try:
            made = build(given, len(axis_of))
        except ValueError:
            continue
        if np.array_equal(made, axis_of):
            words = f"{found.words}, sections {given} {order}"
            return replace(found, words=words, sections=tuple(given), order=order)
    return replace(found, words=f"{found.words}, pairs of each axis {sections}", sections=tuple(sections))


def _by_axis(
    speed: Floats, uncertainty: Floats, axis_of: npt.NDArray[np.int64]
) -> tuple[str, Floats, float | None, tuple[str, ...]] | None:
    """Return every axis' own rule, or None."""
    made, words, notes, bases = np.array(speed), [], [], []
    for axis in range(int(axis_of.max()) + 1):
        own = np.flatnonzero(axis_of == axis)
        order = own[np.argsort(-speed[own], kind="stable")] if len(own) else own
        best = _spectrum.fit(speed[order], uncertainty[order], 2 * len(order)) if len(own) else []
        if not best or not best[0].fits:
            return None
        frequencies = _spectrum.frequencies(best[0].base, best[0].scaling, 2 * len(order))
        assert frequencies is not None
        made[order] = frequencies
        words.append(_words(best[0]))
        bases.append(best[0].base if len(order) > 1 else None)
        notes += [best[0].note] * bool(best[0].note)
    same = {b for b in bases if b is not None}
    text = words[0] if len(set(words)) == 1 else "; ".join(f"axis {a}: {w}" for a, w in enumerate(words))
    return (
        f"each axis its own frequencies: {text}",
        made,
        same.pop() if len(same) == 1 else None,
        tuple(dict.fromkeys(notes)),
    )


def rope_of(
    named: Named, layout: Layout, head_dim: int, axis_of: npt.NDArray[np.int64] | None, factor: float, precision: str
) -> Rope | axis_ropes.BlockRope:
    """Return what rotates so: a base and a scaling where the rule has them, else its frequencies."""
    if layout.name == "blocks":
        return _blocks_of(named, layout, head_dim, factor, precision)
    odd = layout.rotary_dim == head_dim + 1
    where: dict[str, Any] = {"layout": layout.name, "axis_of_freq": axis_of, "precision": precision}
    if not odd:
        where.update(rotary_dim=layout.rotary_dim, rotary_offset=layout.rotary_offset)
    if named.known and named.base is not None and (axis_of is None or named.order) and (named.inv_freq >= 0).all():
        rope = _by_rule(named, head_dim, factor, where)
        if rope is not None:
            return rope
    if factor == 1:
        return Rope(head_dim, inv_freq=named.inv_freq, **where)
    return Rope(head_dim, scaling=InverseFrequencies(tuple(named.inv_freq.tolist()), factor), **where)


def _by_rule(named: Named, head_dim: int, factor: float, where: dict[str, Any]) -> Rope | None:
    scaling = named.scaling
    rope = Rope(head_dim, base=named.base or 10000.0, scaling=scaling, **where)
    if abs(rope.attention_factor / factor - 1) < 1e-5:
        return rope
    if hasattr(scaling, "attention_factor"):
        return Rope(head_dim, base=named.base or 10000.0, scaling=replace(scaling, attention_factor=factor), **where)
    return None


def _blocks_of(
    named: Named, layout: Layout, head_dim: int, factor: float, precision: str
) -> Rope | axis_ropes.BlockRope:
    ropes, first = [], 0
    for start, width in layout.blocks:
        given = InverseFrequencies(tuple(named.inv_freq[first : first + width // 2].tolist()), factor)
        ropes.append(
            Rope(head_dim, layout="half", rotary_dim=width, rotary_offset=start, scaling=given, precision=precision)
        )
        first += width // 2
    return axis_ropes.BlockRope(tuple(ropes))


def system_of(rope: Any) -> tuple[str, Rope] | None:
    """Return the name and the Rope of a system of `posenc.axes.SYSTEMS` that rotates so, or None."""
    for name, system in axis_ropes.SYSTEMS.items():
        try:
            other = system.build(rope.head_dim)
        except (ValueError, TypeError):
            continue
        if isinstance(rope, Rope) and isinstance(other, Rope) and _same(rope, other):
            return name, other
    return None


def _same(rope: Rope, other: Rope) -> bool:
    same = (rope.layout, rope.rotary_dim, rope.rotary_offset) == (other.layout, other.rotary_dim, other.rotary_offset)
    return (
        same
        and np.array_equal(_axes(rope), _axes(other))
        and bool(np.allclose(rope.inv_freq, other.inv_freq, rtol=1e-5, atol=0))
    )


def _axes(rope: Rope) -> Any:
    return np.zeros(len(rope.inv_freq), np.int64) if rope.axis_of_freq is None else rope.axis_of_freq
