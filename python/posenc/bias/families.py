"""ALiBi as three families build it, with what each does of its own: BLOOM, MPT, Falcon.

Their tensors are rows of keys, (.., 1, keys), and so a small part of the scores: form "key" of `posenc.add_alibi`, with
positions of their own. The functions here return the same numbers as the families' code in transformers, from slopes
that are exact where that code's float32 powers are off by up to 7 ulp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias import _scores
from posenc.bias.alibi import alibi_slopes

if TYPE_CHECKING:
    import numpy.typing as npt


def bloom_positions(attention_mask: Any) -> npt.NDArray[np.int64]:
    """Return the key positions that BLOOM and Falcon count from a padding mask: (cumsum(mask) - 1) * mask.

    Padding is at position 0, wherever it lies; the first token of a row is too.

    Parameters
    ----------
    attention_mask : array_like of 0 and 1, shape (batch, keys)

    Returns
    -------
    ndarray of int64, shape (batch, keys)
        For `key_positions` of `posenc.add_alibi` with form "key".

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    `build_alibi_tensor` in transformers/models/bloom/modeling_bloom.py.

    Examples
    --------
    >>> from posenc.bias import bloom_positions
    >>> bloom_positions([[0, 0, 1, 1, 1]])
    array([[0, 0, 0, 1, 2]])
    """
    mask = check.plain_array("attention_mask", attention_mask)
    if mask.ndim != 2:
        raise ValueError(f"attention_mask must have shape (batch, keys), got {mask.shape}")
    if not np.isin(mask, (0, 1)).all():
        raise ValueError("attention_mask must hold 0 and 1")
    mask = mask.astype(np.int64)
    return np.asarray((np.cumsum(mask, -1) - 1) * mask)


def bloom_alibi(attention_mask: Any, num_heads: int, *, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return BLOOM's tensor: slope * key position, computed in float32, rounded to dtype.

    Parameters
    ----------
    attention_mask : array_like of 0 and 1, shape (batch, keys)
    num_heads : int
    dtype : float32, float64, float16 or bfloat16

    Returns
    -------
    ndarray, shape (batch * num_heads, 1, keys)

    Raises
    ------
    TypeError, ValueError

    Examples
    --------
    >>> from posenc.bias import bloom_alibi
    >>> bloom_alibi([[0, 1, 1]], 1)
    array([[[0.        , 0.        , 0.00390625]]], dtype=float32)
    """
    positions = bloom_positions(attention_mask).astype(np.float32)
    slopes = alibi_slopes(num_heads).astype(np.float32)
    return _rows(slopes[:, None] * positions[:, None, :], dtype)


def falcon_alibi(
    attention_mask: Any, num_heads: int, *, head_dim: int | None = None, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Return Falcon's tensor: slopes, positions and their products rounded to bfloat16.

    At 2048 keys and 71 heads most neighbours tie. Falcon also divides the bias by sqrt(head_dim), together
    with the scores: logits = (q k + bias) / sqrt(head_dim).

    Parameters
    ----------
    attention_mask : array_like of 0 and 1, shape (batch, keys)
    num_heads : int
    head_dim : int, optional
        Divide by its square root: what is to be added to scores that are scaled already. Default: the tensor as
        transformers builds it.
    dtype : float32, float64, float16 or bfloat16

    Returns
    -------
    ndarray, shape (batch * num_heads, 1, keys)

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    `build_alibi_tensor` and `FalconAttention.forward` in transformers/models/falcon/modeling_falcon.py.

    Examples
    --------
    >>> from posenc.bias import falcon_alibi
    >>> falcon_alibi([[1, 1, 1]], 1)
    array([[[0.        , 0.00390625, 0.0078125 ]]], dtype=float32)
    """
    positions = _to_bfloat16(bloom_positions(attention_mask).astype(np.float32))
    slopes = _to_bfloat16(alibi_slopes(num_heads).astype(np.float32))
    bias = _to_bfloat16(slopes[:, None] * positions[:, None, :])
    if head_dim is not None:
        bias = bias / np.float32(np.sqrt(check.integer("head_dim", head_dim, 1, 1 << 30)))
    return _rows(bias, dtype)


def mpt_alibi(
    num_heads: int, key_len: int, *, max_bias: float = 8.0, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Return MPT's tensor: slope * (key - key_len + 1), zero at the last key and negative before it.

    Parameters
    ----------
    num_heads, key_len : int
    max_bias : float
        `alibi_bias_max` of the config.
    dtype : float32, float64, float16 or bfloat16

    Returns
    -------
    ndarray, shape (num_heads, 1, key_len)

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    `build_mpt_alibi_tensor` in transformers/models/mpt/modeling_mpt.py. The same added to scores in one pass is
    `posenc.add_alibi(scores, slopes, form="key", key_positions=np.arange(1 - keys, 1))`.

    Examples
    --------
    >>> from posenc.bias import mpt_alibi
    >>> mpt_alibi(1, 3)
    array([[[-0.0078125 , -0.00390625,  0.        ]]], dtype=float32)
    """
    keys = np.arange(1 - _scores.length("key_len", key_len), 1, dtype=np.float32)
    slopes = alibi_slopes(num_heads, max_bias).astype(np.float32)
    return np.asarray((slopes[:, None] * keys)[:, None].astype(check.float_dtype(dtype)))


def _rows(bias: npt.NDArray[np.float32], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """(batch, heads, keys) -> (batch * heads, 1, keys)."""
    batch, heads, keys = bias.shape
    return np.asarray(bias.reshape(batch * heads, 1, keys).astype(check.float_dtype(dtype)))


def _to_bfloat16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round float32 to the nearest bfloat16, ties to even, and keep it as float32."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
