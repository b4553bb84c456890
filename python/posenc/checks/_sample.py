"""Input, positions and a right rotation, and what a fault makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks._pairs import members
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Input, positions and the rotation that should be.

    Attributes
    ----------
    x : ndarray of float64, shape (..., seq, head_dim)
    positions : ndarray, shape (seq,), (batch, seq), or with a leading axes axis
    rope : posenc.Rope
        Of fixed length.
    family : posenc.Rope, optional
        The Rope that it is the fixed one of, where that depends on the length.
    """

    x: Floats
    positions: Floats
    rope: Rope
    family: Rope | None = None

    def turned(self, rope: Rope | None = None, positions: Floats | None = None) -> Floats:
        """Return x rotated; NaN where a position is no number."""
        rope, where = rope or self.rope, self.positions if positions is None else positions
        bad: Any = ~np.isfinite(where)
        result = np.array(rope(self.x, positions=np.where(bad, 0.0, where)))
        if bad.any():
            any_axis = bad.any(axis=0) if rope.axes > 1 else bad
            mask = np.broadcast_to(self.spread(any_axis[..., None]), result.shape).copy()
            mask[..., : rope.rotary_offset] = mask[..., rope.rotary_offset + rope.rotary_dim :] = False
            result[mask] = np.nan
        return result

    def by(self, make: Callable[..., Rope], *arguments: Any, **named: Any) -> Floats:
        """Return x rotated by the Rope that a function makes of some arguments."""
        return self.turned(make(*arguments, **named))

    def table(self, rope: Rope | None = None, positions: Floats | None = None) -> tuple[Floats, Floats]:
        """Return cosines and sines that broadcast against the pairs of x."""
        where = self.positions if positions is None else positions
        cos, sin = (rope or self.rope).table(where, dtype=np.float64)
        return self.spread(cos), self.spread(sin)

    def spread(self, rows: Any) -> Any:
        """Return rows of (seq, n) or (batch, seq, n) with axes of length 1 for the heads."""
        return rows[:, None] if rows.ndim == 3 and self.x.ndim == 4 else rows

    def by_pairs(self, ins: Any, outs: Any, first: tuple[Any, Any], second: tuple[Any, Any]) -> Floats:
        """Return x with pairs (a, b) taken to (a c - b s, b c' + a s'), each with its own cosines and sines."""
        (c, s), (c2, s2) = first, second
        i, o = np.array(ins), np.array(outs)
        a, b = self.x[..., i[:, 0]], self.x[..., i[:, 1]]
        y = self.x.copy()
        y[..., o[:, 0]], y[..., o[:, 1]] = a * c - b * s, b * c2 + a * s2
        return y


@dataclass(frozen=True)
class Variant:
    """A fault, its numbers, and the result of a rotation that has it."""

    fault: str
    detail: str
    make: Callable[[], Floats]


def pairs_of(rope: Rope) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return the pairs of inputs and of outputs."""
    return members(rope.layout, rope.rotary_offset, rope.rotary_dim)
