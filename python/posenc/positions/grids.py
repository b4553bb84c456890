"""Positions of patches: grids of two or three axes, in every unit and order that vision models use."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[Any]

ORDERS = ("ij", "xy")
NORMALISATIONS = ("separate", "min", "max", "ends")


def grid(
    shape: Any,
    *,
    order: str = "ij",
    start: Any = 0,
    stop: Any = None,
    normalise: str | None = None,
    resize_from: Any = None,
    merge_size: int = 1,
) -> Any:
    """Return the positions of all patches of a grid, row after row, one leading axis per grid axis.

    Parameters
    ----------
    shape : sequence of int
        Patches along each axis, (height, width) or (time, height, width).
    order : {"ij", "xy"}
        Order of the position axes; the order of the patches stays. "ij": as in shape, height first (Qwen2-VL, Pixtral,
        DINOv3). "xy": width first (Llama 4 vision, timm's grid_indexing="xy"); for two axes only.
    start : float, or one per axis
        The first position. 1 in Llama 4 vision; 0.5 for the middles of patches.
    stop : float, or one per axis, optional
        Positions from start to stop * (n - 1) / n, evenly (get_3d_rotary_pos_embed of diffusers for CogVideoX: a
        crop's first and last coordinate). Excludes normalise and resize_from.
    normalise : {"separate", "min", "max", "ends"}, optional
        "separate", "min", "max": the middles of patches, 2 * (k + 0.5 + start) / n - 1, with n this axis' own, the
        smallest or the largest number of patches (DINOv3, arXiv:2508.10104; timm's grid_type="centered"). "ends": from
        -1 to 1, both included (timm's "pixel").
    resize_from : sequence of int, optional
        The grid that a model was trained with: positions are multiplied by trained / actual size, which stretches them
        over the same range (position interpolation; timm's ref_feat_shape, from EVA-02). With "separate", "min" and
        "max" it acts before the step to -1 .. 1, as in timm.
    merge_size : int
        Lists the patches of the last two axes by blocks of merge_size * merge_size, row after row within a block, as
        the vision towers of Qwen2-VL and its kin do before they merge a block (get_vision_position_ids of transformers'
        vision_utils.py).

    Returns
    -------
    ndarray, shape (axes, patches)
        int64, or float64 where a parameter makes fractions.

    Raises
    ------
    TypeError, ValueError
        For parameters that fit no grid or exclude each other.

    Examples
    --------
    >>> posenc.positions.grid((2, 3))
    array([[0, 0, 0, 1, 1, 1],
           [0, 1, 2, 0, 1, 2]])
    >>> posenc.positions.grid((2, 4), merge_size=2)
    array([[0, 0, 1, 1, 0, 0, 1, 1],
           [0, 1, 0, 1, 2, 3, 2, 3]])
    >>> posenc.positions.grid((2, 2), normalise="separate")
    array([[-0.5, -0.5,  0.5,  0.5],
           [-0.5,  0.5, -0.5,  0.5]])
    """
    sizes = sizes_of("shape", shape)
    if check.choice("order", order, ORDERS) == "xy" and len(sizes) != 2:
        raise ValueError(f"order 'xy' must have a shape of two axes, got {len(sizes)}; reorder the result of 'ij'")
    reference = None if resize_from is None else sizes_of("resize_from", resize_from, len(sizes))
    if normalise is not None:
        check.choice("normalise", normalise, NORMALISATIONS)
    starts = _per_axis("start", start, len(sizes))
    if stop is None:
        axes = _normalised(sizes, starts, normalise) if normalise else _counted(sizes, starts)
    elif normalise is None and reference is None:
        axes = [_between(a, b, n) for a, b, n in zip(starts, _per_axis("stop", stop, len(sizes)), sizes, strict=True)]
    else:
        raise ValueError("stop excludes normalise and resize_from")
    if reference is not None:
        axes = [x / n * r for x, n, r in zip(axes, sizes, reference, strict=True)]
    if normalise in ("separate", "min", "max"):
        axes = [2 * x - 1 for x in axes]
    whole = np.stack(np.meshgrid(*axes, indexing="ij"))
    flat = _by_blocks(whole, check.integer("merge_size", merge_size, 1)).reshape(len(sizes), -1)
    return flat[::-1].copy() if order == "xy" else flat


def with_prefix(positions: Any, num_tokens: int, *, at: str = "start") -> Any:
    """Return positions with tokens at position 0, which a rotation leaves as they are, before or behind them.

    Parameters
    ----------
    positions : array_like, shape (..., seq)
        Of patches.
    num_tokens : int
        How many class and register tokens.
    at : {"start", "end"}
        "start": DINOv3, EVA; "end": the class token of Llama 4 vision. There a patch may lie at 0 too,
        unless the grid starts at 1, as Llama 4's does.

    Returns
    -------
    ndarray of the same kind, shape (..., seq + num_tokens), or torch tensor where positions is one

    Raises
    ------
    TypeError, ValueError
        For another kind, and for what has no axis.

    Examples
    --------
    >>> posenc.positions.with_prefix(posenc.positions.grid((2, 2), order="xy", start=1), 1, at="end")
    array([[1, 2, 1, 2, 0],
           [1, 1, 2, 2, 0]])
    """
    array = _arrays.array("positions", positions)
    if not array.ndim:
        raise ValueError(f"positions must have shape (..., seq), got {array.shape}")
    zeros = np.zeros((*array.shape[:-1], check.integer("num_tokens", num_tokens, 0)), array.dtype)
    parts = [zeros, array] if check.choice("at", at, ("start", "end")) == "start" else [array, zeros]
    return _arrays.like(np.concatenate(parts, axis=-1), positions)


def sizes_of(name: str, value: Any, axes: int | None = None) -> list[int]:
    """Return the sizes of a grid."""
    sizes = [check.integer(f"{name}[{i}]", n, 1) for i, n in enumerate(check.sequence(name, value))]
    if axes is None and not 1 <= len(sizes) <= check.MAX_AXES:
        raise ValueError(f"{name} must have 1 to {check.MAX_AXES} axes, got {len(sizes)}")
    if axes is not None and len(sizes) != axes:
        raise ValueError(f"{name} must have as many axes as shape, {axes}, got {len(sizes)}")
    return sizes


def _per_axis(name: str, value: Any, axes: int) -> list[int | float]:
    """Return one number per axis; integers stay integers."""
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value] * axes
    if len(values) != axes:
        raise ValueError(f"{name} must be one number or one per axis of shape, {axes}, got {len(values)}")
    return [_whole_or_real(f"{name}[{i}]" if hasattr(value, "__iter__") else name, x) for i, x in enumerate(values)]


def _whole_or_real(name: str, value: Any) -> int | float:
    number = check.finite(name, value)
    try:
        return operator.index(value)
    except TypeError:
        return number


def _counted(sizes: list[int], starts: list[int | float]) -> list[Numbers]:
    return [a + np.arange(n) for n, a in zip(sizes, starts, strict=True)]


def _between(start: float, stop: float, n: int) -> Numbers:
    last = stop * (n - 1) / n
    return start + np.arange(n) * (last - start) / max(n - 1, 1)


def _normalised(sizes: list[int], starts: list[int | float], normalise: str) -> list[Numbers]:
    if normalise == "ends":
        if any(starts):
            raise ValueError("start must be 0 with normalise='ends', which begins at -1")
        return [(2 * np.arange(n) - (n - 1)) / max(n - 1, 1) if n > 1 else np.array([-1.0]) for n in sizes]
    divisors = {"separate": sizes, "min": [min(sizes)] * len(sizes), "max": [max(sizes)] * len(sizes)}[normalise]
    return [(np.arange(n) + 0.5 + a) / d for n, a, d in zip(sizes, starts, divisors, strict=True)]


def _by_blocks(whole: Numbers, merge: int) -> Numbers:
    if merge == 1:
        return whole
    *outer, h, w = whole.shape
    if len(outer) < 1 or h % merge or w % merge:
        raise ValueError(f"merge_size must divide the last two axes of shape, got {merge} for {whole.shape[1:]}")
    blocks = whole.reshape(*outer, h // merge, merge, w // merge, merge)
    return blocks.swapaxes(-3, -2)
