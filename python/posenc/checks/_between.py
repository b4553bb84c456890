"""What two rotated tensors say without a Rope: the rotation that made one of its input, or how they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks import _angles
from posenc.checks._faults import Finding
from posenc.checks._judging import distance
from posenc.checks._naming import name_frequencies, rope_of
from posenc.checks._pairs import Layout, members
from posenc.checks._rounding import HALVES
from posenc.checks._spectrum import nice
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LAYOUTS = ("half", "interleaved", "interleaved_to_half")


def rope_between(x: Floats, turned: Floats, positions: Any) -> Rope | None:
    """Return the Rope that makes `turned` of x at positions that count up from their first one, or None.

    Parameters
    ----------
    x, turned : ndarray of float64, shape (..., seq, head_dim)
    positions : ndarray, shape (seq,)
    """
    head_dim = x.shape[-1]
    moved = np.flatnonzero(np.abs(turned - x).reshape(-1, head_dim).max(axis=0))
    if positions.ndim != 1 or not len(moved) or not {0, 1, 2, 4} <= set((positions - positions[0]).tolist()):
        return None
    first, width = int(moved[0]), int(moved[-1] - moved[0]) + 1
    for start, size in dict.fromkeys(((first, width), (0, head_dim))):
        for name in _LAYOUTS if size % 2 == 0 else ():
            found = _of_layout(x, turned, positions, Layout(name, start, size))
            if found is not None:
                return found
    return None


def _of_layout(x: Floats, turned: Floats, positions: Any, layout: Layout) -> Rope | None:
    ins, outs = (np.array(p) for p in members(layout.name, layout.rotary_offset, layout.rotary_dim))
    a, b = (t.reshape(-1, *t.shape[-2:]) for t in (x, turned))
    before, after = a[..., ins[:, 0]] + 1j * a[..., ins[:, 1]], b[..., outs[:, 0]] + 1j * b[..., outs[:, 1]]
    turns: Any = np.sum(before.conj() * after, axis=0) / np.maximum(np.sum(np.abs(before) ** 2, axis=0), 1e-300)
    if np.abs(after - turns * before).max() > 1e-5 * np.abs(x).max():
        return None
    factor = float(np.median(np.abs(turns)))
    if factor < 1e-3 or np.abs(np.abs(turns) / factor - 1).max() > 1e-3:
        return None
    measured = _angles.unwrap((positions - positions[0]).astype(np.int64), turns)
    if not measured.consistent:
        return None
    named = name_frequencies(measured.frequency, measured.uncertainty, None)
    if not named.known:
        return None
    ropes = [rope_of(named, layout, x.shape[-1], None, nice(factor, 1e-5), each) for each in ("exact", "float32")]
    return min((r for r in ropes if isinstance(r, Rope)), key=lambda r: distance(turned, r(x, positions=positions)))


def explain_alone(actual: Floats, expected: Floats) -> tuple[bool, Finding | None, float]:
    """Return (whether they agree, the fault, the largest relative difference) of two tensors and nothing else."""
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    off = distance(actual, expected) / scale
    if off <= 2e-6:
        return True, None, off
    dim, norm = expected.shape[-1], float((expected * expected).sum())
    tried: list[tuple[str, str, Any]] = []
    if dim % 2 == 0:
        order = np.arange(dim).reshape(2, -1).T.ravel()
        tried.append(("layout", "interleaved, expected half", expected[..., order]))
        tried.append(("layout", "half, expected interleaved", expected[..., np.argsort(order)]))
    factor = float((actual * expected).sum()) / norm if norm else 1.0
    tried.append(("attention_factor", f"{factor:.7g} times expected", factor * expected))
    tried += [("half_arithmetic", f"results in {name}", rounded(expected)) for name, rounded in HALVES.items()]
    for fault, detail, made in tried:
        if (residual := distance(actual, made) / scale) <= 2e-6:
            return False, Finding(fault, detail, residual), off
    return False, None, off
