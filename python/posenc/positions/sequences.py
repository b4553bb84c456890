"""Positions of token sequences: padded, packed, continued."""

from __future__ import annotations

from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays


def from_attention_mask(attention_mask: Any, *, padding_position: int = 0) -> Any:
    """Return positions that count the tokens a mask keeps, for padding on either side.

    Parameters
    ----------
    attention_mask : array_like of 0 and 1, shape (seq,) or (batch, seq)
        1 for tokens, 0 for padding; booleans, integers or floats of these two values. Additive masks (0 and -inf)
        and masks that number segments are refused. A hole (0 between ones) takes no position: the token behind it
        goes on counting, as in transformers.
    padding_position : int
        What padding gets, at least 0. transformers 5 writes 0 (generation/utils.py,
        _prepare_position_ids_for_generation); transformers 4 wrote 1 (prepare_inputs_for_generation), and Idefics and
        Qwen2.5-Omni still do in 5.23. No token reads it where padding is masked out of attention.

    Returns
    -------
    ndarray of int64, or torch tensor where the mask is one
        The mask's shape: cumsum(mask) - 1 at tokens, padding_position elsewhere.

    Raises
    ------
    TypeError, ValueError
        For what is no such mask.

    Examples
    --------
    >>> posenc.positions.from_attention_mask([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    array([[0, 0, 0, 1, 2],
           [0, 1, 2, 0, 0]])
    """
    instead = "an additive mask becomes one by mask == 0; numbered documents belong to from_document_ids"
    mask = _arrays.zeros_and_ones("attention_mask", attention_mask, instead)
    padding = check.integer("padding_position", padding_position, 0)
    return _arrays.like(np.where(mask == 1, np.cumsum(mask, axis=-1) - 1, padding), attention_mask)


def from_cu_seqlens(cu_seqlens: Any, total: int | None = None, *, padding_position: int = 0) -> Any:
    """Return positions of packed documents, each counted from 0.

    Parameters
    ----------
    cu_seqlens : array_like of int, shape (documents + 1,)
        Cumulative lengths in tokens, from 0, never falling (flash_attn_varlen_func); empty documents are allowed.
    total : int, optional
        Length of the packed sequence, where padding follows the last document. Default: cu_seqlens[-1].
    padding_position : int
        What that padding gets.

    Returns
    -------
    ndarray of int64, shape (total,), or torch tensor where cu_seqlens is one

    Raises
    ------
    TypeError, ValueError
        For boundaries that do not begin with 0, that fall, or that lie beyond `total`.

    Examples
    --------
    >>> posenc.positions.from_cu_seqlens([0, 3, 4, 6])
    array([0, 1, 2, 0, 0, 1])
    """
    cu = _arrays.boundaries(cu_seqlens)
    length = int(cu[-1])
    size = length if total is None else check.integer("total", total, 0)
    if size < length:
        raise ValueError(f"total must be at least cu_seqlens[-1] = {length}, got {size}")
    positions = np.full(size, check.integer("padding_position", padding_position, 0), np.int64)
    positions[:length] = np.arange(length) - np.repeat(cu[:-1], np.diff(cu))
    return _arrays.like(positions, cu_seqlens)


def to_cu_seqlens(positions: Any, *, start: int = 0) -> Any:
    """Return where packed documents begin and end, from their positions.

    A document begins wherever the position is `start`, and counts up by one from there. Looking for a fall instead
    would join a document of one token to the next one (0 -> 0 does not fall).

    Parameters
    ----------
    positions : array_like of int, shape (seq,) or (batch, seq)
        Rows are laid one after the other; a row begins a document.
    start : int
        Position of a document's first token: 0, or padding_idx + 1 for RoBERTa's.

    Returns
    -------
    ndarray of int64, shape (documents + 1,), or torch tensor where positions is one
        FlashAttention wants it as int32.

    Raises
    ------
    TypeError, ValueError
        For positions of several axes (M-RoPE's (3, batch, seq) holds no documents: pass one axis), and where a position
        neither begins a document nor follows the one before it.

    Examples
    --------
    >>> posenc.positions.to_cu_seqlens([0, 1, 2, 0, 0, 1])
    array([0, 3, 4, 6])
    """
    rows = _arrays.integers("positions", positions, "(seq,) or (batch, seq), one axis of several", 1, 2)
    start = check.integer("start", start, 0)
    begins = rows == start
    follows = np.zeros_like(begins)
    follows[..., 1:] = np.diff(rows, axis=-1) == 1
    wrong = np.argwhere(~begins & ~follows)
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        raise ValueError(
            f"positions must be {start} or one more than the position before, got {rows[where]} at index "
            f"{where[0] if len(where) == 1 else where}"
        )
    return _arrays.like(np.append(np.flatnonzero(begins), rows.size), positions)


def from_document_ids(document_ids: Any, *, padding_id: int | None = None, padding_position: int = 0) -> Any:
    """Return positions of packed documents from the number of each token's document.

    Parameters
    ----------
    document_ids : array_like of int, shape (seq,) or (batch, seq)
        A document is a run of equal numbers; a number that comes again later in a row is an error.
    padding_id : int, optional
        The number that means padding (0 in the segment ids of T5X and MaxText). Default: every number is a document.
    padding_position : int
        What padding gets.

    Returns
    -------
    ndarray of int64, or torch tensor where document_ids is one
        The shape of document_ids.

    Raises
    ------
    TypeError, ValueError
        For other shapes and kinds, and for a document in several pieces.

    Examples
    --------
    >>> posenc.positions.from_document_ids([7, 7, 7, 8, 9, 9, 0], padding_id=0)
    array([0, 1, 2, 0, 0, 1, 0])
    """
    ids = _arrays.integers("document_ids", document_ids, "(seq,) or (batch, seq)", 1, 2)
    padding = check.integer("padding_position", padding_position, 0)
    is_padding = np.zeros(ids.shape, bool)
    if padding_id is not None:
        is_padding = ids == check.integer("padding_id", padding_id, np.iinfo(np.int64).min)
    begins = np.ones(ids.shape, bool)
    begins[..., 1:] = np.diff(ids, axis=-1) != 0
    _refuse_pieces(ids, begins & ~is_padding)
    index = np.broadcast_to(np.arange(ids.shape[-1]), ids.shape)
    first = np.maximum.accumulate(np.where(begins, index, 0), axis=-1)
    return _arrays.like(np.where(is_padding, padding, index - first), document_ids)


def _refuse_pieces(ids: _arrays.Integers, begins: Any) -> None:
    for row, starts in zip(np.atleast_2d(ids), np.atleast_2d(begins), strict=True):
        numbers, pieces = np.unique(row[starts], return_counts=True)
        if (pieces > 1).any():
            i = int(np.argmax(pieces > 1))
            raise ValueError(
                f"document_ids must hold each document in one piece, got {numbers[i]} in {pieces[i]} pieces"
            )


def with_offsets(seq: int, offsets: Any) -> Any:
    """Return the positions offset, offset + 1, .. of sequences that continue cached ones.

    Parameters
    ----------
    seq : int
        Number of new tokens, at least 0.
    offsets : int, or array_like of int, shape (batch,)
        How many tokens came before, one number for all rows or one per row (FlashAttention's seqlen_offsets,
        TransformerEngine's start_positions).

    Returns
    -------
    ndarray of int64, shape (seq,) or (batch, seq), or torch tensor where offsets is one

    Raises
    ------
    TypeError, ValueError
        For another kind or shape, and for a negative offset.

    Examples
    --------
    >>> posenc.positions.with_offsets(3, [10, 0])
    array([[10, 11, 12],
           [ 0,  1,  2]])
    """
    seq = check.integer("seq", seq, 0)
    first = _arrays.integers("offsets", offsets, "() or (batch,)", 0, 1)
    if first.size and first.min() < 0:
        raise ValueError(f"offsets must be at least 0, got {first.min()}")
    return _arrays.like(first[..., None] + np.arange(seq), offsets)
