"""Maps of positions that let a model read beyond its training length, each token rotated more than once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays


class SelfExtend(NamedTuple):
    """Positions of queries and keys for the far part of attention; the near part keeps its own."""

    query: Any
    key: Any


class DualChunk(NamedTuple):
    """Positions of keys, and of queries against keys of their own chunk, of the one before, and of earlier ones."""

    key: Any
    intra: Any
    successive: Any
    inter: Any


def self_extend(positions: Any, *, window: int, group: int) -> SelfExtend:
    """Return the grouped positions of Self-Extend, for keys at least `window` tokens back.

    Query floor(p / group) + window - window / group, key floor(p / group), so that the distance is about window +
    (distance - window) / group (Jin et al., "LLM Maybe LongLM", arXiv:2401.01325, algorithm 1). Nearer keys are
    attended to with plain positions, and the two parts of the scores are joined.

    Parameters
    ----------
    positions : array_like of int, shape (seq,) or (batch, seq)
        Not negative.
    window, group : int
        Neighbour window and group size in tokens; window is a multiple of group.

    Returns
    -------
    SelfExtend
        query, key : ndarrays of int64 of the shape of positions, or torch tensors where it is one.

    Raises
    ------
    TypeError, ValueError
        For other kinds, and for a window that is no multiple of the group.

    Examples
    --------
    >>> posenc.positions.self_extend([0, 1, 2, 3, 4, 5], window=4, group=2).query
    array([2, 2, 3, 3, 4, 4])
    """
    p = _not_negative(positions)
    group = check.integer("group", group, 1)
    window = check.integer("window", window, 0)
    if window % group:
        raise ValueError(f"window must be a multiple of group ({group}), got {window}")
    key = p // group
    return SelfExtend(_arrays.like(key + window - window // group, positions), _arrays.like(key, positions))


def dual_chunk(positions: Any, *, chunk_size: int, local_size: int) -> DualChunk:
    """Return the four positions of dual chunk attention.

    With c = chunk_size - local_size: keys and queries of the same chunk p mod c, queries against the chunk before
    min(p mod c + c, chunk_size), against earlier chunks min(2 * c - 1, chunk_size) (An et al., arXiv:2402.17463,
    section 3, as DualChunkRotaryEmbedding of vLLM computes it).

    Parameters
    ----------
    positions : array_like of int, shape (seq,) or (batch, seq)
        Not negative.
    chunk_size, local_size : int
        dual_chunk_attention_config of a model's config; local_size is smaller.

    Returns
    -------
    DualChunk
        key, intra, successive, inter : ndarrays of int64 of the shape of positions, or torch tensors where it is one.

    Raises
    ------
    TypeError, ValueError
        For other kinds, and for a local_size that leaves no chunk.

    Examples
    --------
    >>> posenc.positions.dual_chunk([0, 5, 6, 11], chunk_size=8, local_size=2).successive
    array([6, 8, 6, 8])
    """
    p = _not_negative(positions)
    chunk_size = check.integer("chunk_size", chunk_size, 1)
    chunk = chunk_size - check.integer("local_size", local_size, 0, most=chunk_size - 1)
    within = p % chunk
    parts = (within, within, np.minimum(within + chunk, chunk_size), np.full_like(p, min(2 * chunk - 1, chunk_size)))
    return DualChunk(*(_arrays.like(part.copy(), positions) for part in parts))


def _not_negative(positions: Any) -> _arrays.Integers:
    p = _arrays.integers("positions", positions, "(seq,) or (batch, seq)", 1, 2)
    if p.size and p.min() < 0:
        raise ValueError(f"positions must be at least 0, got {p.min()}")
    return p
