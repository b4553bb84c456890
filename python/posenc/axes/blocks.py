"""A Rope for each axis, on a part of the head of its own: half-split pairs inside every part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core
from posenc.axes._assemble import axial_bands, block_axes, indexable
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.scaling import Scaling


@dataclass(frozen=True)
class BlockRope:
    """Ropes that turn separate parts of one head, each by its own position axis; called as a Rope is.

    Parameters
    ----------
    ropes : tuple of Rope
        The first is turned by row 0 of the positions, the second by row 1, ...; one axis each, of one head_dim, at
        rotary offsets that do not overlap.

    Raises
    ------
    TypeError, ValueError
        For other things than Ropes, several head sizes, several axes in one, overlapping parts, scalings by length.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> rope = axes.axial_blocks(64, base=100.0)  # Gemma 4 vision
    >>> h, w = np.indices((4, 6)).reshape(2, -1)
    >>> q = np.ones((12, 24, 64), np.float32)
    >>> turned = rope(q, positions=np.stack([w, h]))
    >>> bool(np.allclose(rope(turned, positions=np.stack([w, h]), inverse=True), q))
    True
    """

    ropes: tuple[Rope, ...]
    _whole: Rope = field(init=False, repr=False, compare=False)  # checks a call before any part is written; tables

    def __post_init__(self) -> None:
        if not isinstance(self.ropes, Sequence) or not all(isinstance(rope, Rope) for rope in self.ropes):
            raise TypeError(f"ropes must be a sequence of Ropes, got {self.ropes!r}")
        if len(self.ropes) < 2:
            raise ValueError(f"ropes must be at least two, got {len(self.ropes)}")
        object.__setattr__(self, "ropes", tuple(self.ropes))
        if len({(rope.head_dim, rope.precision, rope.attention_factor) for rope in self.ropes}) > 1:
            raise ValueError(f"ropes must have one head_dim, precision and attention factor, got {self.ropes}")
        if any(rope.axes > 1 or (rope.scaling is not None and rope.scaling.depends_on_length) for rope in self.ropes):
            raise ValueError("ropes must have one axis each, and no scaling that depends on the length")
        parts = sorted((rope.rotary_offset, rope.rotary_offset + rope.rotary_dim) for rope in self.ropes)
        if any(stop > start for (_, stop), (start, _) in pairwise(parts)):
            raise ValueError(f"ropes must turn separate parts of the head, got {parts}")
        object.__setattr__(self, "_whole", self._joined())

    def _joined(self) -> Rope:
        """Return one Rope with all frequencies."""
        every = tuple(float(f) for rope in self.ropes for f in rope.inv_freq)
        first = self.ropes[0]
        return Rope(
            first.head_dim,
            layout="half",
            scaling=InverseFrequencies(every, first.attention_factor),
            rotary_dim=2 * len(every),
            axis_of_freq=np.repeat(np.arange(len(self.ropes)), [len(rope.inv_freq) for rope in self.ropes]),
            precision=first.precision,
        )

    @property
    def head_dim(self) -> int:
        """Length of a head."""
        return self.ropes[0].head_dim

    @property
    def axes(self) -> int:
        """Number of position axes."""
        return len(self.ropes)

    @property
    def inv_freq(self) -> npt.NDArray[np.float64]:
        """Inverse frequencies of all parts, one part after the other."""
        return self._whole.inv_freq

    @property
    def axis_of_freq(self) -> npt.NDArray[np.int64] | None:
        """Which position axis turns each frequency."""
        return self._whole.axis_of_freq

    def __call__(
        self,
        q: Any,
        k: Any = None,
        *,
        positions: Any = None,
        offset: Any = 0,
        seq_axis: int = -2,
        inverse: bool = False,
        out: Any = None,
    ) -> Any:
        """Rotate q, or q and k, by their positions; everything as in `posenc.Rope.__call__`.

        Parameters
        ----------
        q, k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        positions : array_like, shape (axes, seq) or (axes, batch, seq), optional
        offset : int or array_like of int, shape (batch,)
            Without positions: offset, offset + 1, ... on every axis.
        seq_axis : int
        inverse : bool
        out : array, or (array, array) with k, optional
            The first part is written to it from q and k, the others in place.

        Returns
        -------
        array, or (array, array) with k
        """
        _core.rotate(self._whole._spec, q, k, out, positions, offset, seq_axis, 0, 1)  # checks, and does nothing
        rows = [None] * self.axes if positions is None else list(indexable(positions))
        for rope, row in zip(self.ropes, rows, strict=True):
            out = rope(q, k, positions=row, offset=offset, seq_axis=seq_axis, inverse=inverse, out=out)
            q, k = (out, None) if k is None else out
        return out

    def table(self, positions: Any, *, dtype: npt.DTypeLike = np.float32, out: Any = None) -> tuple[Any, Any]:
        """Return (cos, sin) of shape (..., seq, pairs), the columns in the order of `inv_freq`; see `Rope.table`."""
        return self._whole.table(positions, dtype=dtype, out=out)


def axial_blocks(
    head_dim: int,
    *,
    axes: int | Sequence[int] = 2,
    widths: Sequence[int] | None = None,
    base: float = 10000.0,
    scaling: Scaling | Sequence[Scaling | None] | None = None,
    precision: str = "exact",
) -> BlockRope:
    """Return the Ropes of an image or a video whose pairs are the halves of each axis' own block: [h h | w w].

    The frequencies are those of `axial`; the pairs differ: with w = head_dim / axes, element i of a block goes with
    i + w/2 of the same block. The vision tower of Gemma 4 (base 100; transformers, models/gemma4/modeling_gemma4.py,
    `apply_multidimensional_rope`; its positions are (x, y), columns first, by image_processing_gemma4.py), and
    Allegro's t, h, w by thirds (diffusers, models/embeddings.py, `apply_rotary_emb_allegro`).

    Parameters
    ----------
    head_dim, axes, widths, base, scaling, precision
        As in `axial`.

    Returns
    -------
    BlockRope

    Raises
    ------
    TypeError, ValueError
        As `axial` does.

    Examples
    --------
    >>> from posenc import axes
    >>> [(rope.rotary_offset, rope.rotary_dim) for rope in axes.axial_blocks(96, axes=3).ropes]
    [(0, 32), (32, 32), (64, 32)]
    """
    bands, factor = axial_bands(head_dim, axes, widths, base, scaling, precision)
    which = block_axes(axes, len(bands))
    if len(set(which)) < len(which):
        raise ValueError(f"axes must name every axis once, got {which}")
    ropes, start = {}, 0
    for axis, band in zip(which, bands, strict=True):
        given = InverseFrequencies(tuple(band.tolist()), factor)
        ropes[axis] = Rope(
            head_dim, layout="half", scaling=given, rotary_dim=2 * len(band), rotary_offset=start, precision=precision
        )
        start += 2 * len(band)
    return BlockRope(tuple(ropes[axis] for axis in sorted(ropes)))
