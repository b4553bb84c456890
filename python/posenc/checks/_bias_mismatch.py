"""Why two attention biases differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks._bias import Map, name_slopes, name_steps, slopes_of, take_apart
from posenc.checks._faults import Finding
from posenc.checks._rounding import HALVES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_ROUNDING = 2e-6


def explain_bias(actual: Any, expected: Any) -> tuple[bool, Finding | None, float]:
    """Return (whether they agree, the fault, the largest relative difference) of two biases."""
    one, two = take_apart(actual), take_apart(expected)
    if one.values.shape != two.values.shape:
        raise ValueError(f"actual and expected must have one shape, got {one.values.shape} and {two.values.shape}")
    scale = max(float(np.abs(_open(two, two.masked)).max()), float(np.abs(_open(one, one.masked)).max()), 1e-30)
    if np.array_equal(one.masked, two.masked):
        off = _gap(one.values, two.values, one.masked) / scale
        if off <= 1e-7:
            return True, None, off
    else:
        off = float("inf")
    for fault, detail, residual in _tried(one, two, scale):
        if residual <= _ROUNDING:
            return False, Finding(fault, detail, residual), off
    return False, None, off


def _open(found: Map, masked: Any) -> Floats:
    return np.where(masked, 0, found.values)


def _gap(one: Floats, two: Floats, masked: Any) -> float:
    return float(np.where(masked, 0, np.abs(np.where(masked, 0, one) - np.where(masked, 0, two))).max())


def _tried(one: Map, two: Map, scale: float) -> Iterator[tuple[str, str, float]]:
    """Yield (fault, detail, what it leaves), the likelier first."""
    masked = one.masked | two.masked
    a, e = (np.where(masked, 0, found.values) for found in (one, two))
    if not np.array_equal(one.masked, two.masked):
        yield from _transposed(one, two, scale)
        which = "actual" if one.masked.sum() > two.masked.sum() else "expected"
        yield (
            "mask",
            f"{which} masks {abs(int(one.masked.sum()) - int(two.masked.sum()))} entries more",
            _gap(a, e, masked) / scale,
        )
        yield from _aligned(one, two, scale)
        return
    for name, rounded in HALVES.items():
        yield "half_slopes", f"values in {name}", _gap(a, rounded(e), masked) / scale
    yield from _transposed(one, two, scale)
    yield from _slopes(one, two)
    yield "sign", "every entry negated", _gap(a, -e, masked) / scale
    yield from _heads(a, e, masked, scale)
    norm = float((e * e).sum())
    if norm > 0 and (factor := float((a * e).sum()) / norm) > 0:
        yield "factor", f"{factor:.7g}", _gap(a, factor * e, masked) / scale
    yield from _aligned(one, two, scale)
    yield from _constants(one, two, a, e, masked, scale)
    steps = [name_steps(found) for found in (one, two)]
    if steps[0] is not None and steps[1] is not None and steps[0][0] != steps[1][0]:
        yield "buckets", f"{steps[0][0]}, expected {steps[1][0]}", 0.0
    if one.by_distance is not None and two.by_distance is not None:
        turned = np.where(masked, 0, _of_distance(two, -1, 0))
        if np.isfinite(turned).all():
            yield "sign", "query - key for key - query", _gap(a, turned, masked) / scale


def _transposed(one: Map, two: Map, scale: float) -> Iterator[tuple[str, str, float]]:
    if one.masked.shape[0] == one.masked.shape[1] and np.array_equal(one.masked, two.masked.T):
        yield "transposed", "", _gap(one.values, two.values.transpose(0, 2, 1), one.masked) / scale


def _slopes(one: Map, two: Map) -> Iterator[tuple[str, str, float]]:
    """Both lines over the same thing, with other slopes."""
    for attribute in ("by_key", "by_distance"):
        lines = [getattr(found, attribute) for found in (one, two)]
        if lines[0] is None or lines[1] is None:
            continue
        at = np.arange(one.values.shape[2]) if attribute == "by_key" else one.distances
        mine, theirs = (_either(line, at) for line in lines)
        if mine is None or theirs is None or np.allclose(mine, theirs, rtol=1e-6):
            continue
        if (np.sign(mine) != np.sign(theirs)).any():
            continue
        names = [name_slopes(np.abs(slopes))[0] for slopes in (mine, theirs)]
        detail = f"{names[0]}, expected {names[1]}"
        if np.allclose(np.sort(np.abs(mine)), np.sort(np.abs(theirs)), rtol=1e-6):
            yield "slope_order", detail, 0.0
        elif "rounded to" in names[0]:
            yield "half_slopes", detail, 0.0
        elif not np.allclose(mine / theirs, mine[0] / theirs[0], rtol=1e-5):
            yield "slopes", detail, 0.0


def _either(line: Floats, at: Any) -> Floats | None:
    """Return the slopes to the left, where there is a left."""
    left = slopes_of(np.where(at <= 0, line, np.nan), at)
    return left if left is not None else slopes_of(line, at)


def _heads(a: Floats, e: Floats, masked: Any, scale: float) -> Iterator[tuple[str, str, float]]:
    """The same maps under other heads."""
    if len(a) > 1:
        yield "slope_order", "heads reversed", _gap(a, e[::-1], masked) / scale
        order = [int(np.argmin([np.abs(row - other).max() for other in e])) for row in a]
        if len(set(order)) == len(order) and order != sorted(order):
            yield "slope_order", f"heads {order}", _gap(a, e[order], masked) / scale


def _of_distance(found: Map, sign: int, shift: int) -> Floats:
    """Return the map that a bias by distance becomes where the distance is sign * (key - query) + shift."""
    queries, keys = found.values.shape[1:]
    u = sign * (np.arange(keys) - np.arange(queries)[:, None]) + shift + queries - 1
    inside = (u >= 0) & (u < queries + keys - 1)
    assert found.by_distance is not None
    return np.where(inside, found.by_distance[:, np.clip(u, 0, queries + keys - 2)], np.nan)


def _aligned(one: Map, two: Map, scale: float) -> Iterator[tuple[str, str, float]]:
    """The same function of the distance, at queries that stand elsewhere: compared where both know it."""
    if one.by_distance is None or two.by_distance is None or one.by_key is not None:
        return
    queries, keys = one.values.shape[1:]
    shifts = dict.fromkeys((keys - queries, queries - keys, 1, -1, 2, -2))
    for shift in (s for s in shifts if s):
        moved = _of_distance(two, 1, shift)
        both = np.isfinite(moved) & ~one.masked
        if both.any(axis=(1, 2)).all() and both.mean() > 0.25:
            fault = "alignment" if abs(shift) == abs(keys - queries) else "offset"
            gap = float(np.abs(np.where(both, moved - one.values, 0)).max()) / scale
            yield fault, f"distances {shift:+d}", gap


def _constants(one: Map, two: Map, a: Floats, e: Floats, masked: Any, scale: float) -> Iterator[tuple[str, str, float]]:
    """Rows that differ by a constant each have the same softmax."""
    count = (~masked).sum(axis=1).clip(1)
    constant = (np.where(masked, 0, a - e).sum(axis=2) / count)[:, :, None]
    kinds = {"key" if found.by_key is not None else "distance" for found in (one, two)}
    fault = "bias_form" if len(kinds) == 2 else "rows_differ"
    yield fault, "the softmax is the same", _gap(a, e + constant, masked) / scale
