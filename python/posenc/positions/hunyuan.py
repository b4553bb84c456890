"""Positions of HunYuan-VL, whose axes are columns, rows and image numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays, _modalities
from posenc.positions._modalities import IMAGE, VIDEO, MRope


def hunyuan_vl(
    token_types: Any,
    *,
    axes: int,
    image_grid_thw: Any = None,
    spatial_merge_size: int = 2,
    attention_mask: Any = None,
    padding_position: int = 0,
) -> MRope:
    """Return HunYuan-VL's positions of a batch, and its decode delta.

    All tokens count up by one on all axes, image tokens too; then the last three axes of image tokens become column,
    row and the number of the image in the batch. A row of the merged grid has one token more than columns, which ends
    it, and an image may have a token before and one behind its grid, which go on counting (get_rope_index of
    HunYuanVLModel, transformers 5.23).

    Parameters
    ----------
    token_types : array_like of int, shape (seq,) or (batch, seq)
        0 for text, 1 for image tokens; every image is a run of its own.
    axes : int
        Length of the config's mrope_section, 3 or 4.
    image_grid_thw : array_like of int, shape (images, 3), optional
        1, height and width of each image in patches, before merging.
    spatial_merge_size : int
        Patches that become one token along height, and along width.
    attention_mask : array_like of 0 and 1, shape of token_types, optional
        0 for padding, which is left out.
    padding_position : int
        What padding gets.

    Returns
    -------
    MRope
        positions : ndarray of int64, shape (axes, seq) or (axes, batch, seq), or torch tensor where token_types is one;
        delta : the same kind, shape () or (batch,).

    Raises
    ------
    TypeError, ValueError
        For grids that do not divide or do not fit the tokens, and for videos, which the model does not have.

    Examples
    --------
    >>> posenc.positions.hunyuan_vl([0, 1, 1, 1, 0], axes=4, image_grid_thw=[[1, 2, 4]]).positions
    array([[0, 1, 2, 3, 4],
           [0, 0, 1, 2, 4],
           [0, 0, 0, 0, 4],
           [0, 0, 0, 0, 4]])
    """
    types, mask = _modalities.types_and_mask(token_types, attention_mask)
    if (types == VIDEO).any():
        raise ValueError("token_types must be 0 (text) or 1 (image) for HunYuan-VL, got 2 (video)")
    axes = check.integer("axes", axes, 3, most=4)
    grids = _modalities.grids(
        "image_grid_thw", image_grid_thw, check.integer("spatial_merge_size", spatial_merge_size, 1)
    )
    if (grids[:, 0] != 1).any():
        raise ValueError(f"image_grid_thw must have a time of 1, got {grids[:, 0].max()}")
    images = iter(list(enumerate(grids[:, 1:].tolist())))
    rows = [_row(r[m == 1], axes, images) for r, m in zip(np.atleast_2d(types), np.atleast_2d(mask), strict=True)]
    _modalities.refuse_left_over("image_grid_thw", (f"image {number}" for number, _ in images))
    return _modalities.batch_of(rows, axes, mask, padding_position, token_types)


def _row(types: _arrays.Integers, axes: int, images: Iterator[tuple[int, list[int]]]) -> _arrays.Integers:
    """Return the positions of one row without padding, shape (axes, tokens)."""
    positions = np.repeat(np.arange(len(types))[None], axes, axis=0)
    edges = np.flatnonzero(np.diff((types == IMAGE).astype(np.int64), prepend=0, append=0))
    for begin, end in edges.reshape(-1, 2):
        image = next(images, None)
        if image is None:
            raise ValueError("image_grid_thw must have a grid for every image of token_types, got too few")
        number, (h, w) = image
        tokens = h * (w + 1)
        framed, rest = divmod(int(end - begin) - tokens, 2)
        if rest or framed not in (0, 1):
            raise ValueError(
                f"image {number} must have {tokens} or {tokens + 2} tokens for its grid, got {end - begin}"
            )
        row, column = np.divmod(np.arange(tokens), w + 1)
        first = begin + framed
        positions[-3:, first : first + tokens] = np.stack([column, row, np.full(tokens, number)])
    return positions
