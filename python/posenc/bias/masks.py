"""Masks of attention scores: causal, sliding windows, attention sinks."""

from __future__ import annotations

from typing import Any

from posenc.bias import _scores


def mask_scores(
    scores: Any,
    *,
    causal: bool | str = False,
    window: Any = None,
    sinks: int = 0,
    query_positions: Any = None,
    key_positions: Any = None,
    out: Any = None,
) -> Any:
    """Write -inf where a query may not see a key, and nothing else.

    RoPE with a sliding window is `rope(q, k)`, the scores, and this one call.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, queries, keys)
        float32, float64, float16 or bfloat16; any strides. Two axes are enough.
    causal : bool or "skip"
        True: -inf where a key's position is after the query's. "skip": those entries stay as scores
        has them, for whoever masks them later.
    window : int or (left, right), optional
        An int w: keys at distances below w are seen, the query's own among them (`sliding_window` of transformers).
        A pair: keys from query - left to query + right are seen, both ends too (`window_size` of FlashAttention); None
        is no bound.
    sinks : int
        Keys at positions below this are seen however far to the left they lie (Xiao et al., arXiv:2309.17453).
    query_positions, key_positions : array_like, shape (queries,), (keys,) or (batch, ..), optional
        In tokens, below 2**30 in size. Default: keys from 0 on, and queries at the last of the keys.
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores.

    Raises
    ------
    TypeError, ValueError, BufferError
        For arguments that do not fit; the message says what was expected and what came.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> posenc.mask_scores(np.zeros((1, 4, 4), np.float32), causal=True, window=2)[0]
    array([[  0., -inf, -inf, -inf],
           [  0.,   0., -inf, -inf],
           [-inf,   0.,   0., -inf],
           [-inf, -inf,   0.,   0.]], dtype=float32)
    """
    return _scores.add_made(scores, out, lambda *_: None, (causal, window, sinks), (query_positions, key_positions))
