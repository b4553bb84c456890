"""A learned table for another length or grid: the interpolation that vision models resize their tables with.

The weights are those of torch's F.interpolate with align_corners=False, formed and summed in float64, tap by tap in a
fixed order, and rounded once. One axis after the other: a row of the result is a weighted sum of a few rows.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MODES = ("linear", "bilinear", "bicubic")


def resize_table(
    table: Any,
    new_shape: Any,
    *,
    old_shape: Any = None,
    mode: str | None = None,
    prefix_tokens: int = 0,
    antialias: bool = False,
    scale_offset: float = 0.0,
) -> Any:
    """Return a table of positions for another length or grid, interpolated as torch's F.interpolate does.

    Parameters
    ----------
    table : NumPy array or torch CPU tensor, shape (rows, dim) or (1, rows, dim)
        float32, float64 or float16.
    new_shape : int, or sequence of 1 or 2 int
        The new length, or (height, width).
    old_shape : sequence of int, optional
        Of the table without its prefix; default: its length, or a square.
    mode : {"linear", "bilinear", "bicubic"}, optional
        Default "linear" for a length, "bicubic" for a grid.
    prefix_tokens : int
        Rows in front that are kept as they are: class and register tokens.
    antialias : bool
        Widen the filter where the table shrinks (timm, SigLIP 2); its cubic has a = -1/2, and a = -3/4 without it.
    scale_offset : float
        0.1 is DINOv2's: F.interpolate with scale_factor = (new + 0.1) / old, whose coordinates are off by that much
        (dinov2#378). Without antialias or with; as in torch, an axis that keeps its length is resampled by the plain
        bicubic alone.

    Returns
    -------
    array of shape (prefix_tokens + new rows, dim) or (1, prefix_tokens + new rows, dim)
        New, of the kind and dtype of the table. The table itself where the shape does not change and
        scale_offset is 0.

    Raises
    ------
    TypeError, ValueError
        For shapes and modes that do not fit.

    Notes
    -----
    Sampling at (i + 1/2) * old/new - 1/2. Bicubic: Keys, "Cubic convolution interpolation for digital image
    processing", 1981. Interpolated without rounding in between; torch computes in float32 and differs in the last bits.

    Examples
    --------
    >>> import numpy as np
    >>> posenc.resize_table(np.array([[0.0], [1.0], [2.0], [3.0]]), 2)[:, 0].tolist()
    [0.5, 2.5]
    >>> posenc.resize_table(np.ones((1 + 14 * 14, 8), np.float32), (16, 20), prefix_tokens=1).shape
    (321, 8)
    """
    source = _source(table)
    wanted = _shape("new_shape", new_shape)
    mode = check.choice("mode", mode, MODES) if mode is not None else ("linear", "bicubic")[len(wanted) - 1]
    if (mode == "linear") != (len(wanted) == 1):
        raise ValueError(f"mode {mode!r} is not for a new_shape of {len(wanted)} axes")
    prefix = check.integer("prefix_tokens", prefix_tokens, 0, most=source.shape[-2])
    present = _old_shape(old_shape, source.shape[-2] - prefix, len(wanted))
    offset = check.not_negative("scale_offset", scale_offset)
    check.flag("antialias", antialias)
    if present == wanted and not offset:
        return table
    dim = source.shape[-1]
    grid = source[..., prefix:, :].reshape(*present, dim).astype(np.float64)
    for axis, (old, new) in enumerate(zip(present, wanted, strict=True)):
        if old == new and (antialias or mode != "bicubic"):  # torch copies it, whatever the scale
            continue
        grid = _resample(grid, axis, *_taps(old, new, mode, antialias, old / (new + offset)))
    rows = grid.reshape(*source.shape[:-2], -1, dim).astype(source.dtype)
    result = np.concatenate([source[..., :prefix, :], rows], -2)
    torch = sys.modules.get("torch")
    return torch.from_numpy(result) if torch is not None and isinstance(table, torch.Tensor) else result


def _source(table: Any) -> Array:
    source = check.plain_array("table", table)
    if source.dtype not in (np.float16, np.float32, np.float64):
        raise TypeError(f"table must be float16, float32 or float64, got {source.dtype}")
    if source.ndim not in (2, 3) or (source.ndim == 3 and len(source) != 1):
        raise ValueError(f"table must have shape (rows, dim) or (1, rows, dim), got {source.shape}")
    return source


def _shape(name: str, value: Any) -> tuple[int, ...]:
    try:
        several = hasattr(value, "__iter__") and getattr(value, "ndim", 1) > 0
        sizes = tuple(check.sequence(name, value)) if several else (value,)
    except RuntimeError as error:  # a tensor that cannot be taken apart
        raise TypeError(f"{name} must be a length or (height, width), got {type(value)}") from error
    if len(sizes) not in (1, 2):
        raise ValueError(f"{name} must be a length or (height, width), got {len(sizes)} numbers")
    return tuple(check.integer(f"{name}[{i}]" if len(sizes) > 1 else name, n, 1) for i, n in enumerate(sizes))


def _old_shape(given: Any, rows: int, axes: int) -> tuple[int, ...]:
    if given is not None:
        shape = _shape("old_shape", given)
    else:
        side = math.isqrt(rows)
        if axes == 2 and side * side != rows:
            raise ValueError(f"old_shape must be given: {rows} rows without the prefix are no square")
        shape = (side, side) if axes == 2 else (rows,)
    if len(shape) != axes or math.prod(shape) != rows or not rows:
        raise ValueError(f"old_shape {shape} must have {axes} axes and {rows} places, the rows without the prefix")
    return shape


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel at |x|."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _taps(old: int, new: int, mode: str, antialias: bool, scale: float) -> tuple[Array, Array]:
    """Return which rows and with what weights, each (taps, new)."""
    cubic = mode == "bicubic"
    if antialias:
        return _wide_taps(old, new, cubic, scale)
    at = scale * (np.arange(new) + 0.5) - 0.5
    at = at if cubic else np.maximum(at, 0.0)
    first = np.floor(at)
    offsets = np.arange(-1, 3) if cubic else np.arange(2)
    rows = first.astype(np.int64) + offsets[:, None]
    distance = (at - first) - offsets[:, None]
    weights = _cubic(distance, -0.75) if cubic else 1 - np.abs(distance)
    return np.clip(rows, 0, old - 1), weights


def _wide_taps(old: int, new: int, cubic: bool, scale: float) -> tuple[Array, Array]:
    """Return the taps of the antialiased filter, as wide as a new row where the table shrinks; they sum to 1."""
    width = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * width
    centre = scale * (np.arange(new) + 0.5)
    first = np.maximum(np.floor(centre - support + 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(centre + support + 0.5), old).astype(np.int64)
    rows = first + np.arange(int((last - first).max()))[:, None]
    distance = (rows - centre + 0.5) / width
    weights = _cubic(distance, -0.5) if cubic else np.maximum(1 - np.abs(distance), 0.0)
    weights = np.where(rows < last, weights, 0.0)
    total = np.zeros(new)
    for tap in weights:
        total = total + tap
    return np.minimum(rows, old - 1), weights / total


def _resample(grid: Array, axis: int, rows: Array, weights: Array) -> Array:
    """Return the weighted sums along an axis, tap after tap."""
    lead = [1] * grid.ndim
    lead[axis] = -1
    result = np.zeros(1)
    for row, weight in zip(rows, weights, strict=True):
        result = result + grid.take(row, axis) * weight.reshape(lead)
    return result
