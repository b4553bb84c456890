"""What some models do in place of a rotation: the two elements of a pair take cosine and sine of different angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc._frequencies import unscaled
from posenc.axes._assemble import indexable
from posenc.rotary import Rope

#: model_type -> why no Rope is that model's position encoding, and what reproduces it
NOT_ROTATIONS = {
    "vjepa2": (
        "V-JEPA 2 pairs elements 2i and 2i + 1 but repeats its cosines and sines as halves, so the two elements of a "
        "pair are turned by different frequencies; axes.vjepa2 reproduces it"
    ),
    "hunyuan_vl": (
        "HunYuan-VL splits the doubled width of its tables by twice the sections, so the two elements of a pair are "
        "turned by different position axes; axes.hunyuan_vl reproduces it"
    ),
}


@dataclass(frozen=True)
class UnequalRope:
    """Pairs (a, b) whose elements are turned by different angles: no rotation, norms change, nothing undoes it exactly.

    The first element becomes what `first` makes of it, a cos x - b sin x, the second what `second` does,
    b cos y + a sin y. Scores depend on more than the distance of two tokens. For checkpoints that were trained so; it
    costs two rotations and a copy.

    Parameters
    ----------
    first, second : Rope
        Of one head_dim, layout ("half" or "interleaved"), rotary width and rotary offset.

    Raises
    ------
    TypeError, ValueError
        For other things than two Ropes alike in these.
    """

    first: Rope
    second: Rope

    def __post_init__(self) -> None:
        if not isinstance(self.first, Rope) or not isinstance(self.second, Rope):
            raise TypeError(f"first and second must be Ropes, got {self.first!r} and {self.second!r}")
        shapes = [
            (rope.head_dim, rope.layout, rope.rotary_dim, rope.rotary_offset) for rope in (self.first, self.second)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"first and second must have one head_dim, layout, rotary_dim and rotary_offset, got {shapes}"
            )
        if self.first.layout not in ("half", "interleaved"):
            raise ValueError(f"layout must be 'half' or 'interleaved', got {self.first.layout!r}")

    @property
    def head_dim(self) -> int:
        """Length of a head."""
        return self.first.head_dim

    @property
    def axes(self) -> int:
        """Number of position axes."""
        return max(self.first.axes, self.second.axes)

    def __call__(
        self, q: Any, k: Any = None, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2, out: Any = None
    ) -> Any:
        """Turn q, or q and k, by their positions; everything as in `posenc.Rope.__call__`, which has an inverse too.

        Parameters
        ----------
        q, k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        positions : array_like, shape (axes, seq) or (axes, batch, seq), optional
        offset : int or array_like of int, shape (batch,)
        seq_axis : int
        out : array, or (array, array) with k, optional

        Returns
        -------
        array, or (array, array) with k
        """
        positions = None if positions is None else indexable(positions)
        how = {"offset": offset, "seq_axis": seq_axis}
        others = self.second(q, k, positions=self._rows(positions, self.second), **how)
        result = self.first(q, k, positions=self._rows(positions, self.first), out=out, **how)
        members = self._second_members()
        for target, source in [(result, others)] if k is None else zip(result, others, strict=True):
            target[..., members] = source[..., members]
        return result

    def _rows(self, positions: Any, rope: Rope) -> Any:
        """Return what a Rope reads of the positions; the one that reads all of them checks their shape."""
        if positions is None or rope.axes == self.axes:
            return positions
        return positions[0] if rope.axes == 1 else positions[: rope.axes]

    def _second_members(self) -> slice:
        start, width = self.first.rotary_offset, self.first.rotary_dim
        if self.first.layout == "half":
            return slice(start + len(self.first.inv_freq), start + width)  # a whole odd head has one less
        return slice(start + 1, start + width, 2)


def vjepa2(head_dim: int, *, precision: str = "exact") -> UnequalRope:
    """Return V-JEPA 2's position encoding over frame, height and width.

    Each axis has a block of 2 * (head_dim // 3 // 2) elements, interleaved pairs, base 10000, and the tail of the head
    passes through. Of a block with n pairs and frequencies f, element 2i takes f[2i mod n] and element 2i + 1 takes
    f[(2i + 1) mod n] (transformers, models/vjepa2/modeling_vjepa2.py, `rotate_queries_or_keys`; kept for the released
    checkpoints, where the original code has it so).

    Parameters
    ----------
    head_dim : int
        At least 6.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    UnequalRope
        Called with positions of shape (3, seq) or (3, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For another head_dim.

    Examples
    --------
    >>> from posenc import axes
    >>> rope = axes.vjepa2(64)
    >>> rope.first.rotary_dim, rope.first.inv_freq[:2].tolist() == rope.first.inv_freq[5:7].tolist()
    (60, True)
    """
    pairs = check.integer("head_dim", head_dim, 6) // 3 // 2
    own, element = unscaled(2 * pairs, 10000.0, precision), 2 * np.arange(pairs)

    def member(k: int) -> Rope:
        return Rope(
            head_dim,
            layout="interleaved",
            inv_freq=np.tile(own[(element + k) % pairs], 3),
            axis_of_freq=np.repeat(np.arange(3), pairs),
            precision=precision,
        )

    return UnequalRope(member(0), member(1))


def hunyuan_vl(
    head_dim: int, sections: Sequence[int], *, base: float = 10000.0, scaling: Any = None, precision: str = "exact"
) -> UnequalRope:
    """Return HunYuan-VL's xdrope as transformers computes it.

    Half-split pairs and ordinary frequencies f, doubled to [f f]; element j of the head takes the axis of the chunk
    that j falls in, of chunks 2 * sections[0], 2 * sections[1], ... So elements i and i + head_dim/2 may take different
    axes (transformers, models/hunyuan_vl/modeling_hunyuan_vl.py, `recomposition_frequencies`). Where all axes hold one
    position, as for text, it is an ordinary rotation.

    Parameters
    ----------
    head_dim : int
        Even.
    sections : sequence of int
        `mrope_section` of the config, one entry an axis (three or four); the sum is head_dim/2.
    base : float
    scaling : Scaling, optional
        The checkpoints' `alpha` is `posenc.scaling.NTK(alpha)`.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    UnequalRope
        Called with positions of shape (axes, seq) or (axes, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For sections that do not fill the head.

    Examples
    --------
    >>> from posenc import axes
    >>> rope = axes.hunyuan_vl(16, [2, 2, 2, 2])
    >>> rope.first.axis_of_freq.tolist(), rope.second.axis_of_freq.tolist()
    ([0, 0, 0, 0, 1, 1, 1, 1], [2, 2, 2, 2, 3, 3, 3, 3])
    """
    counts = [check.integer(f"sections[{i}]", n, 0) for i, n in enumerate(sections)]
    if 2 * sum(counts) != check.integer("head_dim", head_dim, 2) or not 2 <= len(counts) <= check.MAX_AXES:
        raise ValueError(
            f"sections must be 2 to {check.MAX_AXES}, with the sum head_dim/2 = {head_dim / 2}, got {counts}"
        )
    axis_of_element = np.repeat(np.arange(len(counts)), [2 * n for n in counts]).reshape(2, -1)
    how: dict[str, Any] = {"layout": "half", "base": base, "scaling": scaling, "precision": precision}
    return UnequalRope(*(Rope(head_dim, axis_of_freq=part, **how) for part in axis_of_element))
