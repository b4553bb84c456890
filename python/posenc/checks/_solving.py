"""Faults with a number in them, the number read from the data: a factor, an offset, a length, a base."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from posenc.checks import _angles, _spectrum
from posenc.checks._naming import short
from posenc.checks._ropes import given
from posenc.checks._sample import Sample, Variant, pairs_of
from posenc.scaling import DynamicNTK

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Complex = npt.NDArray[np.complex128]

_FURTHEST = 1 << 17  # offsets and lengths that are looked through


def solved(sample: Sample, actual: Floats) -> Iterator[Variant]:
    """Yield faults whose numbers fit the data best."""
    yield from _factor(sample, actual)
    rope = sample.rope
    if sample.positions.ndim != 1 or rope.axes > 1 or rope.rotary_dim % 2:
        return
    turns = _turns_of(sample, actual)
    if turns is not None:
        yield from _offset(sample, turns)
        yield from _length(sample, actual, turns)
        yield from _frequencies(sample, turns)


def _factor(sample: Sample, actual: Floats) -> Iterator[Variant]:
    right, known = sample.turned(), np.isfinite(actual)
    norm = float(np.sum(right**2, where=known))
    if norm > 0:
        factor = float(np.sum(right * actual, where=known)) / norm * sample.rope.attention_factor
        if factor > 0:
            detail = f"{factor:.7g}, expected {sample.rope.attention_factor:.7g}"
            yield Variant(
                "attention_factor", detail, partial(sample.by, given, sample.rope, sample.rope.inv_freq, factor)
            )


def _turns_of(sample: Sample, actual: Floats) -> Complex | None:
    """Return what each token's pairs were multiplied by, as complex numbers of shape (seq, pairs), over all heads."""
    ins, outs = (np.array(pairs) for pairs in pairs_of(sample.rope))
    if not np.isfinite(actual).all():
        return None
    x, y = (t.reshape(-1, *t.shape[-2:]) for t in (sample.x, actual))
    before, after = x[..., ins[:, 0]] + 1j * x[..., ins[:, 1]], y[..., outs[:, 0]] + 1j * y[..., outs[:, 1]]
    norm = np.sum(np.abs(before) ** 2, axis=0)
    if not (norm > 0).all():
        return None
    return np.asarray(np.sum(before.conj() * after, axis=0) / norm)


def _nearest(turn: Complex, candidates: Floats, inv_freq: Floats) -> float:
    """Return the position among candidates whose turns are nearest."""
    best, least = float(candidates[0]), np.inf
    for first in range(0, len(candidates), 8192):
        some = candidates[first : first + 8192]
        cost = np.abs(np.exp(1j * some[:, None] * inv_freq) - turn).sum(axis=1)
        k = int(np.argmin(cost))
        if cost[k] < least:
            best, least = float(some[k]), float(cost[k])
    return best


def _offset(sample: Sample, turns: Complex) -> Iterator[Variant]:
    """By the token whose position is least."""
    j, reach = int(np.argmin(np.abs(sample.positions))), 4096
    here = float(sample.positions[j])
    found = _nearest(
        turns[j] / np.abs(turns[j]).clip(1e-9), here + np.arange(-reach, reach + 1.0), sample.rope.inv_freq
    )
    k = found - here
    if k:
        yield Variant("offset", f"positions {k:+g}", partial(sample.turned, None, sample.positions + k))


def _length(sample: Sample, actual: Floats, turns: Complex) -> Iterator[Variant]:
    """By the first token that is wrong: the length of a table lies between the last right one and it."""
    off = np.abs(turns / sample.rope.attention_factor - np.exp(1j * sample.positions[:, None] * sample.rope.inv_freq))
    order = np.argsort(sample.positions, kind="stable")
    wrong = off.max(axis=1)[order] > 0.05
    if not wrong.any() or wrong[0] or not wrong[int(np.argmax(wrong)) :].all():
        return
    first = int(np.argmax(wrong))
    right, bad = (int(sample.positions[order[i]]) for i in (first - 1, first))
    if bad - right > _FURTHEST:
        return
    turn = turns[order[first]] / np.abs(turns[order[first]]).clip(1e-9)
    lengths = np.arange(right + 1, bad + 1, dtype=np.float64)
    at = _nearest(turn, lengths - 1, sample.rope.inv_freq)
    yield Variant("clamped_positions", f"at {at:g}", partial(sample.turned, None, np.minimum(sample.positions, at)))
    residues = bad % lengths
    n = float(lengths[np.flatnonzero(residues == _nearest(turn, residues, sample.rope.inv_freq))[0]])
    yield Variant("wrapped_positions", f"modulo {n:g}", partial(sample.turned, None, sample.positions % n))

    def masked() -> Floats:
        return np.where(sample.spread((sample.positions < bad)[..., None]), sample.turned(), sample.x)

    where = f"{bad}" if bad == right + 1 else f"one between {right + 1} and {bad}"
    yield Variant("unrotated_beyond", f"from position {where} on", masked)


def _frequencies(sample: Sample, turns: Complex) -> Iterator[Variant]:
    """By unwrapping, where the tokens hold 0, 1, 2, 4, .. behind the first."""
    rope, relative = sample.rope, sample.positions - sample.positions.min()
    if not np.array_equal(relative, np.round(relative)) or not {0.0, 1.0, 2.0, 4.0} <= set(relative.tolist()):
        return
    found = _angles.unwrap(relative.astype(np.int64), turns)
    if not found.consistent or np.abs(found.frequency).max() < 1e-12:
        return
    if (found.frequency < 0).any():
        return
    for each in _spectrum.fit(found.frequency, found.uncertainty, 2 * len(rope.inv_freq)):
        if each.fits:
            made = _spectrum.frequencies(each.base, each.scaling, 2 * len(rope.inv_freq))
            if made is None:
                continue
            tokens = _tokens_of(sample, each.base)
            if tokens and sample.family is not None:
                yield Variant("length", f"of {tokens} tokens", partial(sample.by, sample.family.at, tokens))
            same_base = rope.base is not None and abs(each.base / rope.base - 1) < 1e-3
            unscaled = each.scaling is None and (not same_base or rope.scaling is None)
            kind = "base" if unscaled else "scaling"
            what = f"{each.base:.8g}" if kind == "base" else f"{short(each.scaling)} of base {each.base:.8g}"
            wanted = f"{rope.base:.8g}" if rope.base is not None and kind == "base" else short(rope.scaling)
            yield Variant(kind, f"{what}, expected {wanted}", partial(sample.by, given, rope, made))
            return


def _tokens_of(sample: Sample, base: float) -> int:
    """Return the length for which dynamic NTK has a base, or 0."""
    family = sample.family
    if family is None or not isinstance(family.scaling, DynamicNTK):
        return 0
    width, scaling = 2 * len(family.inv_freq), family.scaling
    alpha = (base / (family.base or base)) ** ((width - 2) / width) if width > 2 else 1.0
    return max(0, round((alpha + scaling.factor - 1) * scaling.original_max_position_embeddings / scaling.factor))
