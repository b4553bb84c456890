"""One Rope out of the frequencies of several position axes, and the axial scheme that most systems use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc._frequencies import unscaled
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.scaling import Scaling

    Bands = Sequence[npt.NDArray[np.float64]]

ORDERS = ("blocks", "alternating")


def from_bands(
    head_dim: int,
    bands: Sequence[npt.ArrayLike],
    *,
    layout: str,
    axes: Sequence[int] | None = None,
    order: str = "blocks",
    rotary_offset: int = 0,
    precision: str = "exact",
) -> Rope:
    """Return the Rope whose pairs are turned by blocks of given frequencies, one block a position axis.

    Parameters
    ----------
    head_dim : int
        Length of a head; what the blocks do not fill passes through.
    bands : sequence of array_like, shape (pairs,) each
        Inverse frequencies of each block, in radians per unit of position.
    layout : {"half", "interleaved", "interleaved_to_half"}
        Which elements form a pair, see `posenc.Rope`; over all blocks together ("half" pairs i with i + rotary_dim/2,
        where rotary_dim/2 counts the pairs of every block). For half-split pairs inside each block: `axial_blocks`.
    axes : sequence of int, optional
        Which row of the positions turns each block; default 0, 1, 2, ...
    order : {"blocks", "alternating"}
        "blocks": all pairs of the first block, then all of the second. "alternating": the first pair of every block,
        then the second of every block.
    rotary_offset : int
        The first rotated element of a head.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions of shape (axes, seq) or (axes, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For bands, axes or orders that do not fit each other or the head.

    Examples
    --------
    >>> from posenc import axes
    >>> rope = axes.from_bands(8, [[1.0, 0.5], [1.0, 0.25]], layout="half", order="alternating")
    >>> rope.inv_freq.tolist(), rope.axis_of_freq.tolist()
    ([1.0, 1.0, 0.5, 0.25], [0, 1, 0, 1])
    """
    arranged, axis_of_freq = arrange(checked_bands(bands), axes, order)
    return Rope(
        head_dim,
        layout=layout,
        inv_freq=arranged,
        axis_of_freq=axis_of_freq,
        rotary_offset=rotary_offset,
        precision=precision,
    )


def axial(
    head_dim: int,
    *,
    layout: str,
    axes: int | Sequence[int] = 2,
    widths: Sequence[int] | None = None,
    base: float = 10000.0,
    order: str = "blocks",
    scaling: Scaling | Sequence[Scaling | None] | None = None,
    rotary_offset: int = 0,
    precision: str = "exact",
) -> Rope:
    """Return the Rope of an image or a video: every axis has frequencies of its own over its share of the head.

    A block of width w has inv_freq[i] = base ** (-2i / w), i < w/2. With two axes of half a head each, and half-split
    pairs over the whole head, this is the vision tower of Qwen2-VL and of over 20 others (transformers,
    models/qwen2_vl/modeling_qwen2_vl.py, `Qwen2VLVisionRotaryEmbedding`); with interleaved pairs and axes (1, 0), the
    axial RoPE of rope-vit (Heo et al., arXiv:2403.13298, section 3.2) and of SAM 2.

    Parameters
    ----------
    head_dim : int
        Length of a head; what the widths do not fill passes through.
    layout : {"half", "interleaved", "interleaved_to_half"}
        As in `from_bands`.
    axes : int or sequence of int
        How many axes; or which row of the positions turns each block: (1, 0) puts the frequencies of w before those of
        h where positions are (h, w).
    widths : sequence of int, optional
        Elements of a head that each block turns; even. Default: an equal share of the head.
    base : float
    order : {"blocks", "alternating"}
        As in `from_bands`.
    scaling : Scaling, or one per block, optional
        A scaling of `posenc.scaling` applied to each block by its own width; one that does not depend on the length.
    rotary_offset : int
        The first rotated element of a head.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions of shape (axes, seq) or (axes, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For widths, axes or scalings that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> rope = axes.axial(80, layout="half")  # Qwen2-VL vision
    >>> h, w = np.indices((4, 6)).reshape(2, -1)
    >>> q = np.ones((16, 24, 80), np.float32)
    >>> rope(q, positions=np.stack([h, w])).shape
    (16, 24, 80)
    """
    bands, factor = axial_bands(head_dim, axes, widths, base, scaling, precision)
    arranged, axis_of_freq = arrange(bands, axes, order)
    own: dict[str, Any] = {"inv_freq": arranged}
    if factor != 1.0:
        own = {"scaling": InverseFrequencies(tuple(arranged.tolist()), factor), "rotary_dim": 2 * len(arranged)}
    return Rope(
        head_dim, layout=layout, axis_of_freq=axis_of_freq, rotary_offset=rotary_offset, precision=precision, **own
    )


def axial_bands(
    head_dim: int,
    axes: int | Sequence[int],
    widths: Sequence[int] | None,
    base: float,
    scaling: Scaling | Sequence[Scaling | None] | None,
    precision: str,
) -> tuple[Bands, float]:
    """Return the frequencies of each block, and the attention factor that all of them share."""
    named = isinstance(axes, Sequence) and not isinstance(axes, str) and len(axes) > 0
    blocks = len(axes) if named else check.integer("axes", axes, 1, most=check.MAX_AXES)  # type: ignore[arg-type]
    shares = _widths(check.integer("head_dim", head_dim, 1), widths, blocks)
    scalings = list(scaling) if isinstance(scaling, (list, tuple)) else [scaling] * blocks
    if len(scalings) != blocks:
        raise ValueError(f"scaling must be one, or {blocks} for as many blocks, got {len(scalings)}")
    found = [_block(width, base, one, precision) for width, one in zip(shares, scalings, strict=True)]
    factors = {factor for _, factor in found}
    if len(factors) > 1:
        raise ValueError(f"scaling must give every block one attention factor, got {sorted(factors)}")
    return [band for band, _ in found], factors.pop()


def arrange(
    bands: Bands, axes: int | Sequence[int] | None, order: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return inv_freq and axis_of_freq of blocks in an order."""
    which = block_axes(axes, len(bands))
    lengths = [len(band) for band in bands]
    inv_freq, axis_of_freq = np.concatenate(bands), np.repeat(which, lengths)
    if check.choice("order", order, ORDERS) == "blocks":
        return inv_freq, axis_of_freq
    if len(set(lengths)) > 1:
        raise ValueError(f"order 'alternating' needs blocks of one length, got {lengths}")
    turns = np.arange(len(inv_freq)).reshape(len(bands), -1).T.ravel()
    return inv_freq[turns], axis_of_freq[turns]


def block_axes(axes: int | Sequence[int] | None, blocks: int) -> list[int]:
    """Return which axis turns each block."""
    if axes is None or isinstance(axes, int):  # whose number is that of the blocks
        return list(range(blocks))
    which = [check.integer(f"axes[{i}]", axis, 0) for i, axis in enumerate(check.sequence("axes", axes))]
    if len(which) != blocks or set(which) != set(range(len(set(which)))):
        raise ValueError(f"axes must name an axis for each of {blocks} blocks, and every axis from 0 on, got {which}")
    return which


def indexable(positions: Any) -> Any:
    """Return positions whose first axis can be indexed: arrays and tensors as they are, lists as an array."""
    return positions if hasattr(positions, "shape") else np.asarray(positions)


def checked_bands(bands: Sequence[npt.ArrayLike]) -> Bands:
    """Return float64 copies of given frequencies."""
    if isinstance(bands, str) or not isinstance(bands, Iterable):
        raise TypeError(f"bands must be a sequence of arrays, one a block, got {bands!r}")
    found = [check.frequencies(band) for band in bands]
    if not found:
        raise ValueError("bands must not be empty")
    return found


def _widths(head_dim: int, widths: Sequence[int] | None, blocks: int) -> list[int]:
    if widths is None:
        if head_dim % (2 * blocks):
            raise ValueError(f"head_dim must be a multiple of {2 * blocks} where widths are not given, got {head_dim}")
        return [head_dim // blocks] * blocks
    shares = [check.integer(f"widths[{i}]", width, 2) for i, width in enumerate(widths)]
    if len(shares) != blocks:
        raise ValueError(f"widths must have one entry for each of the {blocks} blocks, got {shares}")
    if any(width % 2 for width in shares) or sum(shares) > head_dim:
        raise ValueError(f"widths must be even, with a sum of at most head_dim ({head_dim}), got {shares}")
    return shares


def _block(width: int, base: float, scaling: Any, precision: str) -> tuple[npt.NDArray[np.float64], float]:
    base = check.base(base)
    if check.scaling(scaling) is None:
        return unscaled(width, base, precision).astype(np.float64), 1.0
    if scaling.depends_on_length:
        raise ValueError(f"scaling must not depend on the length: a grid has no one sequence, got {scaling!r}")
    inv_freq, factor = scaling.frequencies(width, base, None, precision)
    return inv_freq, float(factor)
