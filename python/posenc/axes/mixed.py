"""Angles that are a sum over the axes, with frequencies of its own for every head: learned and mixed RoPE."""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc import _core, _views
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS, unscaled
from posenc.axes._assemble import indexable
from posenc.axes.bands import kind_of
from posenc.rotary import Rope
from posenc.tables import LAYOUTS, apply_rotary_emb, rotary_table

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]


class _View(NamedTuple):
    x: Any
    out: Any
    seq: int  # where the sequence is
    head: int | None  # where the heads were


@dataclass(frozen=True, eq=False)
class MixedRope:
    """Rope whose pair i of head h turns by the sum over the axes of positions[axis] * inv_freq[axis, h, i].

    So frequencies of any direction in the plane of an image, not only along h or w: RoPE-Mixed (Heo et al., "Rotary
    Position Embedding for Vision Transformer", arXiv:2403.13298; naver-ai/rope-vit, models/vit_rope.py,
    `compute_mixed_cis`; timm, `RotaryEmbeddingMixed`), and learned projections of key points (transformers,
    models/lightglue/modeling_lightglue.py, `LightGluePositionalEncoder`). A `Rope` has one axis in a pair; this one
    makes tables of (heads, seq, pairs) for the positions of a call and rotates by them, q and k not copied.

    Parameters
    ----------
    head_dim : int
    inv_freq : array_like of float, shape (axes, heads, pairs) or (axes, pairs)
        In radians per unit of position; with two dimensions, all heads share them.
    layout : {"half", "interleaved"}
        As in `posenc.Rope`; "interleaved" in all of the systems above.
    precision : {"exact", "float32"}
        "exact": products and sum in float64, cosine and sine within 0.501 ulp of it. "float32": products and sum
        rounded to float32, as these systems do.

    Raises
    ------
    TypeError, ValueError
        For frequencies that do not fit the head.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> inv_freq = axes.mixed_frequencies(64, np.linspace(0, 6, 12))  # 12 heads, each turned by an angle
    >>> rope = axes.MixedRope(64, inv_freq, layout="interleaved")
    >>> h, w = np.indices((14, 14)).reshape(2, -1)
    >>> q = np.ones((2, 12, 196, 64), np.float32)
    >>> rope(q, positions=np.stack([w, h])).shape
    (2, 12, 196, 64)
    """

    head_dim: int
    inv_freq: npt.NDArray[np.float64]
    layout: str = field(kw_only=True)
    precision: str = field(kw_only=True, default="exact")
    _plain: Rope = field(init=False, repr=False)  # checks q, k and out of a call, before either is written

    def __post_init__(self) -> None:
        head_dim = check.integer("head_dim", self.head_dim, 2)
        check.choice("layout", self.layout, ("half", "interleaved"))
        check.choice("precision", self.precision, PRECISIONS)
        array = check.plain_array("inv_freq", self.inv_freq)
        if array.ndim not in (2, 3) or not array.size or len(array) > check.MAX_AXES:
            raise ValueError(f"inv_freq must have shape (axes, heads, pairs) or (axes, pairs), got {array.shape}")
        if 2 * array.shape[-1] > head_dim:
            raise ValueError(f"inv_freq must have at most head_dim/2 = {head_dim / 2} pairs, got {array.shape[-1]}")
        inv_freq = check.frequencies(array.ravel()).reshape(array.shape)
        inv_freq.flags.writeable = False
        object.__setattr__(self, "inv_freq", inv_freq)
        still = np.zeros(array.shape[-1])
        object.__setattr__(self, "_plain", Rope(head_dim, layout=self.layout, inv_freq=still))

    @property
    def axes(self) -> int:
        """Number of position axes."""
        return len(self.inv_freq)

    def __call__(
        self,
        q: Any,
        k: Any = None,
        *,
        positions: Any,
        seq_axis: int = -2,
        head_axis: int = -3,
        inverse: bool = False,
        out: Any = None,
    ) -> Any:
        """Rotate q, or q and k, by their positions.

        Parameters
        ----------
        q, k : NumPy array or torch CPU tensor, shape (..., heads, seq, head_dim)
            As many heads as frequencies have (those of k too); any number where all heads share them.
        positions : array_like
            As in `table`.
        seq_axis, head_axis : int
            Which axes are the sequence and the heads: -2 and -3 for (batch, heads, seq, head_dim), -3 and -2 for
            (batch, seq, heads, head_dim). head_axis is not read where all heads share frequencies.
        inverse : bool
            Un-rotate.
        out : array, or (array, array) with k, optional
            As in `posenc.Rope.__call__`.

        Returns
        -------
        array, or (array, array) with k
            `out` where given, else new arrays like q and k.

        Raises
        ------
        TypeError, ValueError, BufferError
            As in `posenc.Rope.__call__`.
        """
        inverse = check.flag("inverse", inverse)
        _core.rotate(self._plain._spec, q, k, out, None, 0, seq_axis, 0, 1)  # checks, and does nothing
        wide = str(getattr(q, "dtype", "")).endswith("float64")
        tables = self.table(positions, dtype=np.float64 if wide else np.float32)
        xs, outs = ([q], [out]) if k is None else ([q, k], list(out or (None, None)))
        views = [self._view(x, y, tables[0].shape[-2], seq_axis, head_axis) for x, y in zip(xs, outs, strict=True)]
        for view in views:  # and checks the tables, before any is written
            _core.apply(view.x, *tables, view.out, None, 0, view.seq, LAYOUTS[self.layout][0], 0, inverse, 0, 1)
        for i, view in enumerate(views):
            turned = apply_rotary_emb(
                view.x, *tables, layout=self.layout, seq_axis=view.seq, conjugate=inverse, out=view.out
            )
            if outs[i] is None:
                outs[i] = turned if view.head is None else _move(turned, 0, view.head)
        return outs[0] if k is None else tuple(outs)

    def _view(self, x: Any, out: Any, tokens: int, seq_axis: int, head_axis: int) -> _View:
        """Return what is rotated: with the heads first where they differ, for there tables have their batch axis."""
        x, out = _views.sliceable(x), None if out is None else _views.sliceable(out)
        shape = tuple(x.shape)
        seq = operator.index(seq_axis) % len(shape)
        if shape[seq] != tokens:
            raise ValueError(f"positions must be as many as tokens along seq_axis ({shape[seq]}), got {tokens}")
        if self.inv_freq.ndim == 2:
            return _View(x, out, seq_axis, None)
        head = check.integer("head_axis", head_axis, -len(shape), most=len(shape) - 1) % len(shape)
        heads = self.inv_freq.shape[1]
        if head in (seq, len(shape) - 1) or shape[head] != heads:
            raise ValueError(f"head_axis must be an axis of {heads} heads beside seq_axis, got {head_axis} of {shape}")
        return _View(_move(x, head, 0), None if out is None else _move(out, head, 0), seq + (seq < head), head)

    def table(self, positions: Any, *, dtype: npt.DTypeLike = np.float32) -> tuple[Any, Any]:
        """Return (cos, sin) for positions.

        Parameters
        ----------
        positions : array_like, shape (axes, seq); or (axes, batch, seq) where all heads share frequencies
        dtype : float32 or float64

        Returns
        -------
        cos, sin : arrays of shape (heads, seq, pairs), (seq, pairs) or (batch, seq, pairs)
            Torch tensors where positions is one.
        """
        angles = self._angles(check.plain_array("positions", indexable(positions)), kind_of(self.precision))
        if angles.size:  # position 1, the angles as frequencies
            cos, sin = rotary_table([1.0], angles.ravel(), dtype=dtype)
            tables = cos.reshape(angles.shape), sin.reshape(angles.shape)
        else:
            kind = check.float_dtype(dtype, check.FLOATS[:2])
            tables = np.empty(angles.shape, kind), np.empty(angles.shape, kind)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(positions, torch.Tensor):
            return torch.from_numpy(tables[0]), torch.from_numpy(tables[1])
        return tables

    def _angles(self, positions: Array, kind: Any) -> Array:
        per_head = self.inv_freq.ndim == 3
        shapes = (2,) if per_head else (2, 3)
        if positions.ndim not in shapes or len(positions) != self.axes:
            more = "" if per_head else f" or ({self.axes}, batch, seq)"
            raise ValueError(f"positions must have shape (axes, seq) = ({self.axes}, seq){more}, got {positions.shape}")
        if positions.dtype.kind not in "iuf":
            raise TypeError(f"positions must be integers or floats, got {positions.dtype}")
        own = self.inv_freq.astype(kind)
        if per_head:
            own = own[:, :, None, :]
        total = np.zeros((), kind)
        for row, frequencies in zip(positions.astype(kind), own, strict=True):
            total = total + row[..., None] * frequencies
        if not np.isfinite(total).all() or np.abs(total).max(initial=0) >= 2**31:
            raise ValueError("positions must be finite, with |angles| below 2**31")
        return total


def mixed_frequencies(
    head_dim: int, angles: npt.ArrayLike, *, base: float = 10.0, precision: str = "exact"
) -> npt.NDArray[np.float64]:
    """Return the frequencies that RoPE-Mixed starts its training from: axial ones, turned by an angle for each head.

    With m[i] = base ** (-4i / head_dim), i < head_dim/4, a head of angle a has the frequencies
    [m cos a, m cos(a + pi/2)] along the first axis and [m sin a, m sin(a + pi/2)] along the second
    (naver-ai/rope-vit, models/vit_rope.py, `init_random_2d_freqs`, which draws a uniformly from one turn).

    Parameters
    ----------
    head_dim : int
        A multiple of 4.
    angles : array_like of float, shape (heads,)
        In radians; zeros give the axial frequencies.
    base : float
    precision : {"exact", "float32"}
        "float32": rounded after every step.

    Returns
    -------
    ndarray of float64, shape (2, heads, head_dim/2)

    Raises
    ------
    TypeError, ValueError
        For another head_dim, and angles of another shape.

    Examples
    --------
    >>> from posenc import axes
    >>> axes.mixed_frequencies(8, [0.0], base=100.0).tolist()
    [[[1.0, 0.1, -0.0, -0.0]], [[0.0, 0.0, 1.0, 0.1]]]
    """
    if check.integer("head_dim", head_dim, 4) % 4:
        raise ValueError(f"head_dim must be a multiple of 4, got {head_dim}")
    turned = check.plain_array("angles", angles)
    if turned.ndim != 1 or not len(turned) or turned.dtype.kind not in "iuf":
        raise ValueError(f"angles must be numbers of shape (heads,), got {turned.dtype} of {turned.shape}")
    kind = kind_of(precision)
    size = unscaled(head_dim // 2, check.base(base), precision).astype(kind)
    cos, sin = (t.reshape(-1, 1) for t in rotary_table([1.0], turned.astype(np.float64), dtype=kind))
    along = np.concatenate([size * cos, size * -sin], axis=-1), np.concatenate([size * sin, size * cos], axis=-1)
    return np.stack(along).astype(np.float64)


def _move(x: Any, source: int, target: int) -> Any:
    """Return a view of an array or a tensor with one axis moved."""
    return x.movedim(source, target) if hasattr(x, "movedim") else np.moveaxis(x, source, target)
