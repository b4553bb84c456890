"""Which tokens, and so which positions, a rank of context parallelism holds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays
from posenc.positions.sequences import from_cu_seqlens

SCHEMES = ("contiguous", "zigzag")


def context_parallel(positions: Any, rank: int, world_size: int, *, scheme: str, cu_seqlens: Any = None) -> Any:
    """Return the positions of the tokens that one rank holds.

    Parameters
    ----------
    positions : int, or array_like, shape (..., seq)
        Positions of the whole sequence, several rows or axes too, or its length: then 0 .. length - 1, or from 0 in
        each document of `cu_seqlens`.
    rank, world_size : int
        Which of how many ranks.
    scheme : {"contiguous", "zigzag"}
        "contiguous": world_size equal pieces, rank g holds piece g. "zigzag": 2 * world_size pieces, rank g holds
        pieces g and 2 * world_size - 1 - g, so that a causal mask costs every rank the same (get_batch_on_this_cp_rank
        of Megatron-LM, _get_freqs_on_this_cp_rank of TransformerEngine). A rank that uses the positions of another
        scheme trains without an error, and wrong.
    cu_seqlens : array_like of int, shape (documents + 1,), optional
        Cut each document on its own, and lay the rank's pieces of all documents one after the other ("thd" of
        TransformerEngine, whose cu_seqlens_padded this is; the rank's own boundaries are cu_seqlens // world_size).
        Without it the sequence is cut as one, whatever its positions.

    Returns
    -------
    ndarray, or torch tensor where positions is one
        Shape (..., seq / world_size); int64 for a length.

    Raises
    ------
    TypeError, ValueError
        For a rank outside, and for lengths that do not divide: by world_size, or by 2 * world_size for "zigzag" (one
        rank takes any length).

    Examples
    --------
    >>> posenc.positions.context_parallel(8, rank=0, world_size=2, scheme="zigzag")
    array([0, 1, 6, 7])
    >>> posenc.positions.context_parallel(12, rank=1, world_size=2, scheme="zigzag", cu_seqlens=[0, 4, 12])
    array([1, 2, 2, 3, 4, 5])
    """
    whole = _arrays.array("positions", positions)
    cu = None if cu_seqlens is None else _arrays.boundaries(cu_seqlens)
    length = whole.shape[-1] if whole.ndim else check.integer("positions", positions, 0)
    index = context_parallel_index(length, rank, world_size, scheme=scheme, cu_seqlens=cu)
    if whole.ndim == 0:
        whole = np.arange(length) if cu is None else from_cu_seqlens(cu)
    return _arrays.like(whole[..., index], positions, cu_seqlens)


def context_parallel_index(length: int, rank: int, world_size: int, *, scheme: str, cu_seqlens: Any = None) -> Any:
    """Return which tokens of the whole sequence one rank holds, in its order: x[..., index, :] is the rank's x.

    Parameters
    ----------
    length : int
        Tokens of the whole sequence.
    rank, world_size, scheme, cu_seqlens
        As in `context_parallel`.

    Returns
    -------
    ndarray of int64, shape (length / world_size,), or torch tensor where cu_seqlens is one

    Raises
    ------
    TypeError, ValueError
        As `context_parallel`.

    Examples
    --------
    >>> posenc.positions.context_parallel_index(12, 1, 2, scheme="zigzag", cu_seqlens=[0, 4, 12])
    array([1, 2, 6, 7, 8, 9])
    """
    world_size = check.integer("world_size", world_size, 1)
    rank = check.integer("rank", rank, 0, most=world_size - 1)
    pieces = (
        world_size if check.choice("scheme", scheme, SCHEMES) == "contiguous" or world_size == 1 else 2 * world_size
    )
    cu = _documents(check.integer("length", length, 0), cu_seqlens)
    _check_divisible(cu, pieces, scheme, cu_seqlens is not None)
    mine = [rank] if pieces == world_size else [rank, pieces - 1 - rank]
    # a document as a matrix with one piece a row; the empty part stands for no documents at all
    parts = [np.arange(a, b).reshape(pieces, (b - a) // pieces)[mine].ravel() for a, b in itertools.pairwise(cu)]
    return _arrays.like(np.concatenate([np.empty(0, np.int64), *parts]), cu_seqlens)


def context_parallel_inverse(length: int, world_size: int, *, scheme: str, cu_seqlens: Any = None) -> Any:
    """Return where each token lies when the ranks' parts are laid one after the other.

    With parts[g] = x[index of rank g], np.concatenate(parts)[inverse] is x again.

    Parameters
    ----------
    length, world_size, scheme, cu_seqlens
        As in `context_parallel_index`.

    Returns
    -------
    ndarray of int64, shape (length,), or torch tensor where cu_seqlens is one

    Raises
    ------
    TypeError, ValueError
        As `context_parallel`.

    Examples
    --------
    >>> posenc.positions.context_parallel_inverse(8, 2, scheme="zigzag")
    array([0, 1, 4, 5, 6, 7, 2, 3])
    """
    ranks = range(check.integer("world_size", world_size, 1))
    cu = None if cu_seqlens is None else _arrays.boundaries(cu_seqlens)
    parts = [context_parallel_index(length, g, world_size, scheme=scheme, cu_seqlens=cu) for g in ranks]
    inverse = np.empty(length, np.int64)
    inverse[np.concatenate(parts)] = np.arange(length)
    return _arrays.like(inverse, cu_seqlens)


def _documents(length: int, cu_seqlens: Any) -> _arrays.Integers:
    if cu_seqlens is None:
        return np.array([0, length])
    cu = _arrays.boundaries(cu_seqlens)
    if cu[-1] != length:
        raise ValueError(f"cu_seqlens must end with the number of tokens, {length}, got {cu[-1]}")
    return cu


def _check_divisible(cu: _arrays.Integers, pieces: int, scheme: str, packed: bool) -> None:
    lengths = np.diff(cu)
    wrong = np.flatnonzero(lengths % pieces)
    if len(wrong):
        i = int(wrong[0])
        what = f"document {i}" if packed else "the sequence"
        raise ValueError(
            f"{what} must have a multiple of {pieces} tokens to be cut {scheme!r}, got {lengths[i]}; "
            f"pad it to {lengths[i] + -lengths[i] % pieces}"
        )
