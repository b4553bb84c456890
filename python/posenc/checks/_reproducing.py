"""What a Rope makes of the probes, beside what the function made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks._judging import distance
from posenc.checks._sample import Sample, pairs_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def random_answer(probes: Any, long: bool) -> tuple[Floats, Floats, Floats]:
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


def applied(rope: Any, x: Floats, positions: Floats, swapped: bool = False) -> Floats:
    positions = rows_of(rope, positions)
    if not swapped:
        return np.asarray(rope(x, positions=positions))
    cos, sin = rope.table(positions, dtype=np.float64)
    sample = Sample(x, positions, rope)
    return sample.by_pairs(*pairs_of(rope), (sin, cos), (sin, cos))


def gap_of(rope: Any, x: Floats, positions: Floats, actual: Floats, swapped: bool) -> float:
    try:
        return distance(actual, applied(rope, x, positions, swapped)) / float(np.abs(x).max())
    except ValueError:  # an angle beyond 2**31
        return float("inf")


def as_float32(rope: Any, x: Floats, positions: Floats, actual: Floats, swapped: bool) -> bool:
    """Return whether the difference is what float32 frequencies and angles may cost, at every position."""
    try:
        off = np.abs(actual - applied(rope, x, positions, swapped))
    except ValueError:
        return False
    positions = rows_of(rope, positions)
    far = np.abs(positions) if rope.axes == 1 else np.abs(positions).max(axis=0)
    fastest = float(np.max(np.abs(rope.inv_freq)))
    return bool(np.isfinite(off).all() and (off <= np.abs(x).max() * (4e-6 + 3e-7 * far * fastest)[:, None]).all())
