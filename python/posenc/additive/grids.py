"""Sinusoidal encodings of grids: images and videos, as vision models lay them out.

Each axis has its own columns, which depend on one coordinate alone: a grid is a few small exact tables, one for each
axis, put side by side. The conventions differ in which axis comes first and in the order of sines and cosines.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc import _parameters as check
from posenc.additive.conventions import CONVENTIONS, Convention
from posenc.additive.sinusoidal import sinusoidal_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Columns = tuple[slice, int, Array]  # which columns, of which axis, its table

_HALVES = Convention("sin_cos", "half", "refused")  # [sines | cosines], exponent i / (dim/2)


class Grid(NamedTuple):
    """A convention of grids.

    Attributes
    ----------
    axes : tuple of int
        How many axes it knows.
    divisor : int
        What dim must be a multiple of.
    order : tuple of int
        The axes in the order of their columns, for two axes; with a third, which is time, that comes first.
    by_axis : Convention
        Of the columns of one axis.
    """

    axes: tuple[int, ...]
    divisor: int
    order: tuple[int, ...]
    by_axis: Convention


#: "mae": get_2d_sincos_pos_embed of facebookresearch/mae (and DiT, diffusers), whose first half encodes w although
#: the code calls it emb_h. "height_first": transformers' modeling_vit_mae.py since 5, [sin h, cos h, sin w, cos w].
#: "timm": build_sincos2d_pos_embed, [sin h, sin w, cos h, cos w]; its interleave_sin_cos=True is "height_first".
#: "detr": DetrSinePositionEmbedding, interleaved, y first, positions from 1. "cogvideox": get_3d_sincos_pos_embed of
#: diffusers: time has the first quarter, then as "mae". "positional_encodings": PositionalEncoding2D and 3D of that
#: package, interleaved, axes in their order, too many columns made and then cut.
GRIDS: dict[str, Grid] = {
    "mae": Grid((2,), 4, (1, 0), _HALVES),
    "height_first": Grid((2,), 4, (0, 1), _HALVES),
    "timm": Grid((2,), 4, (0, 1), _HALVES),
    "detr": Grid((2,), 4, (0, 1), CONVENTIONS["paper"]),
    "cogvideox": Grid((3,), 16, (2, 1), _HALVES),
    "positional_encodings": Grid((2, 3), 1, (0, 1, 2), CONVENTIONS["paper"]),
}


def sinusoidal_grid(
    shape: Any,
    dim: int,
    *,
    convention: str,
    base: float = 10000.0,
    base_size: float | None = None,
    interpolation_scale: Any = 1.0,
    normalise: bool = False,
    scale: float = 2 * math.pi,
    mask: Any = None,
    prefix_tokens: int = 0,
    dtype: npt.DTypeLike = np.float32,
    precision: str = "exact",
) -> Any:
    """Return the sinusoidal encoding of every place of a grid.

    Parameters
    ----------
    shape : sequence of int
        (height, width), or (time, height, width).
    dim : int
        Columns.
    convention : str
        "mae" (and DiT: the first half encodes w), "height_first" (transformers' ViT-MAE), "timm", "detr",
        "cogvideox" (3-D), "positional_encodings" (2-D and 3-D); see `posenc.additive.GRIDS`. There is no default: h and
        w swapped fit every shape of a square grid.
    base : float
        As in `sinusoidal_table`; DETR's temperature.
    base_size : float, optional
        "mae" only: coordinates are i / (n / base_size), as DiT and PixArt stretch a grid of another size.
    interpolation_scale : float, or one for each axis
        "mae" and "cogvideox": coordinates are divided by it.
    normalise : bool
        "detr" only: coordinates are divided by the last one + 1e-6 and multiplied by `scale`.
    scale : float
        "detr" with normalise only; default 2 pi.
    mask : array_like of bool, shape (height, width) or (batch, height, width), optional
        "detr" only: True where a pixel is; coordinates count them (cumulative sums along each axis).
    prefix_tokens : int
        Rows of zeros in front, for class tokens; the result then has shape (prefix_tokens + places, dim).
    dtype : float32 or float64
    precision : {"exact", "float32"}
        As in `sinusoidal_table`.

    Returns
    -------
    ndarray of shape (*shape, dim), or (batch, *shape, dim) with such a mask
        New. reshape(-1, dim) counts tokens, the last axis fastest; timm's reverse_coord=True is the grid of (width,
        height).

    Raises
    ------
    TypeError, ValueError
        For a shape, a dim or an option that the convention does not know.

    Examples
    --------
    >>> grid = posenc.sinusoidal_grid((2, 3), 8, convention="mae")
    >>> grid.shape, bool((grid[0, 2, :4] == posenc.sinusoidal_table([2], 4, convention="concatenated")[0]).all())
    ((2, 3, 8), True)
    """
    grid = GRIDS[check.choice("convention", convention, GRIDS)]
    sizes = _sizes(shape, grid, convention)
    dim = check.integer("dim", dim, grid.divisor, most=1 << 24)
    if dim % grid.divisor:
        raise ValueError(f"dim must be a multiple of {grid.divisor} for convention {convention!r}, got {dim}")
    prefix = check.integer("prefix_tokens", prefix_tokens, 0)
    _refuse_others(
        convention, base_size=base_size, interpolation_scale=interpolation_scale, mask=mask, normalise=normalise
    )
    how: dict[str, Any] = {"base": base, "dtype": dtype, "precision": precision}
    if convention == "detr":
        places = _counted(sizes, mask, normalise, check.positive("scale", scale))
        wide = sinusoidal_table(np.stack(places).reshape(2, -1), dim // 2, **how)
        wide = np.moveaxis(wide.reshape(2, *places[0].shape, dim // 2), 0, -2)
        return _with_prefix(wide.reshape(*places[0].shape, dim), prefix)
    positions = _coordinates(sizes, base_size, interpolation_scale)
    result = np.empty((*sizes, dim), np.float64 if check.is_float64(dtype) else np.float32)
    for columns, axis, table in _columns(convention, grid, len(sizes), positions, dim, how):
        lead = [1] * len(sizes)
        lead[axis] = sizes[axis]
        result[..., columns] = table.reshape(*lead, -1)[..., : columns.stop - columns.start]
    return _with_prefix(result, prefix)


def _sizes(shape: Any, grid: Grid, convention: str) -> tuple[int, ...]:
    sizes = tuple(check.integer(f"shape[{i}]", n, 1) for i, n in enumerate(check.sequence("shape", shape)))
    if len(sizes) not in grid.axes:
        wanted = " or ".join(map(str, grid.axes))
        raise ValueError(f"shape must have {wanted} axes for convention {convention!r}, got {len(sizes)}")
    return sizes


_OPTIONS = {
    "base_size": ("mae",),
    "interpolation_scale": ("mae", "cogvideox"),
    "mask": ("detr",),
    "normalise": ("detr",),
}


def _refuse_others(convention: str, **given: Any) -> None:
    for name, value in given.items():
        neutral = value is None or (name != "mask" and value is False) or (isinstance(value, float) and value == 1.0)
        if not neutral and convention not in _OPTIONS[name]:
            raise ValueError(
                f"{name} belongs to convention {' or '.join(map(repr, _OPTIONS[name]))}, not {convention!r}"
            )


def _coordinates(sizes: tuple[int, ...], base_size: Any, scales: Any) -> list[Array]:
    """Return the coordinates of each axis, as diffusers divides them."""
    if hasattr(scales, "__iter__") and not isinstance(scales, str):
        each = check.numbers("interpolation_scale", scales, check.positive)
        if len(each) != len(sizes):
            raise ValueError(f"interpolation_scale must have {len(sizes)} numbers, one for each axis, got {len(each)}")
    else:
        each = (check.positive("interpolation_scale", scales),) * len(sizes)
    stretch = check.optional(check.positive, "base_size", base_size)
    counted = (np.arange(n, dtype=np.float64) / (1 if stretch is None else n / stretch) for n in sizes)
    return [places / by for places, by in zip(counted, each, strict=True)]


def _columns(
    convention: str, grid: Grid, axes: int, positions: list[Array], dim: int, how: dict[str, Any]
) -> Iterator[Columns]:
    """Yield which columns hold which axis, and that axis's table."""

    def made(axis: int, width: int) -> Array:
        table: Array = sinusoidal_table(positions[axis], width, convention=grid.by_axis, **how)
        return table

    if convention == "timm":
        quarter = dim // 4
        for i, axis in enumerate(grid.order):
            table = made(axis, dim // 2)
            yield slice(i * quarter, (i + 1) * quarter), axis, table[:, :quarter]
            yield slice((2 + i) * quarter, (3 + i) * quarter), axis, table[:, quarter:]
        return
    start, order = 0, grid.order[:axes]
    if convention == "positional_encodings":
        width = math.ceil(dim / (2 * axes)) * 2
    elif convention == "cogvideox":
        yield slice(0, dim // 4), 0, made(0, dim // 4)
        start, width = dim // 4, 3 * dim // 8
    else:
        width = dim // 2
    for axis in order:
        stop = min(start + width, dim)
        if stop > start:
            yield slice(start, stop), axis, made(axis, width)
        start = stop


def _counted(sizes: tuple[int, ...], mask: Any, normalise: Any, scale: float) -> tuple[Array, Array]:
    """Return DETR's y and x: pixels counted from 1 along each axis, then normalised."""
    if mask is None:
        pixels = np.ones(sizes, np.float64)
    else:
        pixels = check.plain_array("mask", mask)
        if pixels.dtype != bool:
            raise TypeError(f"mask must be boolean, True where a pixel is, got {pixels.dtype}")
        if pixels.ndim not in (2, 3) or pixels.shape[-2:] != sizes:
            raise ValueError(f"mask must have shape {sizes} or (batch, {sizes[0]}, {sizes[1]}), got {pixels.shape}")
        pixels = pixels.astype(np.float64)
    y, x = np.cumsum(pixels, -2), np.cumsum(pixels, -1)
    if check.flag("normalise", normalise):
        y, x = y / (y[..., -1:, :] + 1e-6) * scale, x / (x[..., -1:] + 1e-6) * scale
    return y, x


def _with_prefix(grid: Array, prefix: int) -> Array:
    if not prefix:
        return grid
    rows = grid.reshape(-1, grid.shape[-1])
    return np.concatenate([np.zeros((prefix, rows.shape[-1]), rows.dtype), rows])
