"""Attention maps as they come: which heads there are, which maps are of the same head, and which keys are tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc._views import sliceable


@dataclass(frozen=True)
class Sample:
    """One map: keys first .. stop are tokens, the others padding."""

    array: Any
    index: str
    first: int
    stop: int


def heads_of(
    attention: Any, batch_axis: int | None, mask: Any
) -> tuple[list[tuple[tuple[int, ...], list[Sample]]], int]:
    """Return (label, maps) of each head, and how many keys of all maps are padding."""
    if isinstance(attention, (list, tuple)):
        layers = [_array(layer, f"attention[{i}]") for i, layer in enumerate(attention)]
        if not layers:
            raise ValueError("attention must not be empty")
        if len({layer.ndim for layer in layers}) > 1:
            raise ValueError(f"all layers of attention must have as many axes, got {[layer.ndim for layer in layers]}")
        if batch_axis is None and layers[0].ndim == 4:
            batch_axis = 1  # transformers: a tuple of (batch, heads, queries, keys)
        lead = [(i, *index) for i, layer in enumerate(layers) for index in np.ndindex(*layer.shape[:-2])]
    else:
        layers, array = [], _array(attention, "attention")
        lead = list(np.ndindex(*array.shape[:-2]))
    ndim = len(lead[0]) if lead else 0
    if not lead:
        raise ValueError("attention holds no map")
    if batch_axis is not None:
        batch_axis = check.integer("batch_axis", batch_axis, -ndim, ndim - 1) % max(ndim, 1)
    heads: dict[tuple[int, ...], list[Sample]] = {}
    ranges = _ranges(mask, batch_axis)
    padding = 0
    for index in lead:
        found = layers[index[0]][index[1:]] if layers else array[index]
        sample = index[batch_axis] if batch_axis is not None else 0
        first, stop = ranges(sample, int(found.shape[-1]))
        padding += int(found.shape[-1]) - (stop - first)
        label = tuple(n for axis, n in enumerate(index) if axis != batch_axis)
        where = "".join(f"{n}, " for n in index)
        heads.setdefault(label, []).append(Sample(found, where, first, stop))
    return list(heads.items()), padding


def _array(value: Any, name: str) -> Any:
    if not hasattr(value, "__dlpack__"):
        raise TypeError(f"{name} must be a NumPy array or a torch CPU tensor, got {check.shown(value)}")
    array = sliceable(value)
    if array.ndim < 2:
        raise ValueError(f"{name} must have a query and a key axis, (..., queries, keys), got {array.ndim} axes")
    if 0 in tuple(array.shape):
        raise ValueError(f"{name} holds no weights: its shape is {tuple(array.shape)}")
    if array.shape[-1] < array.shape[-2]:
        raise ValueError(
            f"{name} must have at least as many keys as queries, its last two axes, got {tuple(array.shape[-2:])}"
        )
    return array


def _ranges(mask: Any, batch_axis: int | None) -> Any:
    """Return a function of (sample, keys): which keys are tokens."""
    if mask is None:
        return lambda sample, keys: (0, keys)
    array = check.plain_array("mask", mask)
    if array.dtype.kind not in "biu" or array.ndim not in (1, 2):
        raise ValueError(
            f"mask must be booleans or integers, 1 for a token and 0 for padding, of shape (keys,) or (batch, keys); "
            f"got {check.shown(array)}"
        )
    if array.ndim == 2 and batch_axis is None:
        raise ValueError("a mask with a batch axis needs batch_axis=, which axis of attention is the batch")
    rows = np.atleast_2d(array != 0)

    def ranges(sample: int, keys: int) -> tuple[int, int]:
        if rows.shape[-1] != keys or (array.ndim == 2 and sample >= len(rows)):
            raise ValueError(f"mask must have shape ({keys},) or (batch, {keys}), got {array.shape}")
        row = rows[sample if array.ndim == 2 else 0]
        tokens = np.flatnonzero(row)
        if not len(tokens) or not row[tokens[0] : tokens[-1] + 1].all():
            raise ValueError("mask must leave one run of tokens in every row: padding at its ends, nowhere else")
        return int(tokens[0]), int(tokens[-1]) + 1

    return ranges
