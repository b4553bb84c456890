"""Rows of learned position tables, which hold a few rows more than there are positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays

_OFFSET = 2  # "if padding_idx is specified then offset the embedding ids by 2": modeling_opt.py, modeling_bart.py


def roberta(input_ids: Any, padding_idx: int, *, past_length: int = 0) -> Any:
    """Return the table rows of RoBERTa, ESM, MPNet and fairseq: the first token reads row padding_idx + 1.

    cumsum(ids != padding_idx) * (ids != padding_idx) + padding_idx, as fairseq's make_positions and
    create_position_ids_from_input_ids of transformers' modeling_roberta.py.

    Parameters
    ----------
    input_ids : array_like of int, shape (seq,) or (batch, seq)
        Token ids.
    padding_idx : int
        The id of padding (1 for RoBERTa), which is also the row that padding reads.
    past_length : int
        Tokens already cached.

    Returns
    -------
    ndarray of int64, or torch tensor where input_ids is one
        The shape of input_ids.

    Raises
    ------
    TypeError, ValueError
        For other shapes and kinds.

    Examples
    --------
    >>> posenc.positions.roberta([[0, 31414, 2, 1, 1]], padding_idx=1)
    array([[2, 3, 4, 1, 1]])
    """
    ids = _arrays.integers("input_ids", input_ids, "(seq,) or (batch, seq)", 1, 2)
    padding_idx = check.integer("padding_idx", padding_idx, 0)
    past = check.integer("past_length", past_length, 0)
    mask = (ids != padding_idx).astype(np.int64)
    return _arrays.like((np.cumsum(mask, axis=-1) + past) * mask + padding_idx, input_ids)


def opt(attention_mask: Any, *, past_length: int = 0) -> Any:
    """Return the table rows of OPT: the first token reads row 2, padding row 1.

    (cumsum(mask) * mask - 1) + 2, as OPTLearnedPositionalEmbedding of transformers' modeling_opt.py.

    Parameters
    ----------
    attention_mask : array_like of 0 and 1, shape (seq,) or (batch, seq)
        Of all tokens, cached ones too.
    past_length : int
        How many of them are cached: their columns are cut off.

    Returns
    -------
    ndarray of int64, or torch tensor where the mask is one
        Shape (seq - past_length,) or (batch, seq - past_length).

    Raises
    ------
    TypeError, ValueError
        For what is no mask of 0 and 1, and for a past longer than it.

    Examples
    --------
    >>> posenc.positions.opt([[0, 0, 1, 1, 1]])
    array([[1, 1, 2, 3, 4]])
    """
    mask = _arrays.zeros_and_ones("attention_mask", attention_mask, "an additive mask becomes one by mask == 0")
    past = check.integer("past_length", past_length, 0, most=mask.shape[-1])
    rows = np.cumsum(mask, axis=-1) * mask - 1 + _OFFSET
    return _arrays.like(rows[..., past:], attention_mask)


def bart(seq: int, *, past_length: int = 0) -> Any:
    """Return the table rows of BART: position + 2, padding counted like tokens.

    As BartLearnedPositionalEmbedding of transformers' modeling_bart.py.

    Parameters
    ----------
    seq : int
        Number of new tokens, at least 0.
    past_length : int
        Tokens already cached.

    Returns
    -------
    ndarray of int64, shape (seq,)

    Raises
    ------
    TypeError, ValueError
        For what is no such number.

    Examples
    --------
    >>> posenc.positions.bart(4)
    array([2, 3, 4, 5])
    """
    first = check.integer("past_length", past_length, 0) + _OFFSET
    return np.arange(first, first + check.integer("seq", seq, 0), dtype=np.int64)
