"""What positions of text with images are made from: the kind of each token, and the grids of the items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays

TEXT, IMAGE, VIDEO = 0, 1, 2


class MRope(NamedTuple):
    """Positions of a batch, and what decoding needs to go on from them."""

    positions: Any  # int64, (axes, batch, seq)
    delta: Any  # int64, (batch,): next position - number of tokens


def types_and_mask(token_types: Any, attention_mask: Any) -> tuple[_arrays.Integers, _arrays.Integers]:
    """Return token types, and a mask of their shape: 0 at padding."""
    types = _arrays.integers("token_types", token_types, "(seq,) or (batch, seq)", 1, 2)
    if not np.isin(types, (TEXT, IMAGE, VIDEO)).all():
        raise ValueError(f"token_types must be 0 (text), 1 (image) or 2 (video), got {types.min()} to {types.max()}")
    if attention_mask is None:
        return types, np.ones_like(types)
    mask = _arrays.zeros_and_ones("attention_mask", attention_mask, "an additive mask becomes one by mask == 0")
    if mask.shape != types.shape:
        raise ValueError(f"attention_mask must have the shape of token_types, {types.shape}, got {mask.shape}")
    return types, mask


def grids(name: str, grid_thw: Any, merge: int) -> _arrays.Integers:
    """Return grids of shape (items, 3), merged in space."""
    if grid_thw is None:
        return np.empty((0, 3), np.int64)
    sizes = _arrays.integers(name, grid_thw, "(items, 3)", 2)
    if sizes.shape[1] != 3:
        raise ValueError(f"{name} must have shape (items, 3), got {sizes.shape}")
    wrong = (sizes < 1).any(axis=1) | (sizes[:, 1:] % merge != 0).any(axis=1)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"{name}[{i}] must be positive, with height and width multiples of spatial_merge_size ({merge}), "
            f"got {sizes[i].tolist()}"
        )
    return sizes // (1, merge, merge)


def batch_of(
    rows: list[_arrays.Integers], axes: int, mask: _arrays.Integers, padding_position: int, token_types: Any
) -> MRope:
    """Return the batch whose rows without padding, (axes, tokens) each, are given; in the kind of token_types."""
    positions = np.full((axes, *mask.shape), check.integer("padding_position", padding_position, 0), np.int64)
    positions[:, mask == 1] = np.concatenate([np.empty((axes, 0), np.int64), *rows], axis=1)
    delta = np.array([row.max(initial=-1) + 1 - row.shape[1] for row in rows], np.int64).reshape(mask.shape[:-1])
    return MRope(_arrays.like(positions, token_types), _arrays.like(delta, token_types))


def refuse_left_over(name: str, left_over: Iterator[str]) -> None:
    """Raise an error if grids are left that no token belongs to."""
    item = next(left_over, None)
    if item is not None:
        raise ValueError(f"{name} must not have more grids than token_types, {item} has no tokens")
