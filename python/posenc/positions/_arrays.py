"""What goes in and out of position builders: integers of any kind in, int64 out, torch out where torch came in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]


def array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return a copy as an array of numbers; a message names the argument."""
    try:
        result = check.plain_array(name, value)
    except ValueError:  # NumPy's own message, of rows that differ in length, names no argument
        raise ValueError(f"{name} must be rectangular, got rows of different lengths") from None
    if result.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got {result.dtype}")
    return result


def integers(name: str, value: Any, shapes: str, *dims: int) -> Integers:
    """Return an int64 copy whose number of axes is one of dims; `shapes` names them in the message."""
    result = array(name, value)
    if result.ndim not in dims:
        raise ValueError(f"{name} must have shape {shapes}, got {result.shape}")
    if result.dtype.kind not in "iu" and result.size:  # an empty list is float64
        raise TypeError(f"{name} must be integers, got {result.dtype}")
    if result.dtype == np.uint64 and result.size and result.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit int64, got {result.max()}")
    return result.astype(np.int64)


def zeros_and_ones(name: str, value: Any, instead: str) -> Integers:
    """Return a mask of shape (seq,) or (batch, seq) as int64; `instead` says what to do about other values."""
    result = array(name, value)
    if result.ndim not in (1, 2):
        raise ValueError(f"{name} must have shape (seq,) or (batch, seq), got {result.shape}")
    wrong = (result != 0) & (result != 1)
    if wrong.any():
        raise ValueError(f"{name} must hold 0 and 1 only, got {result[wrong][0]}; {instead}")
    return result.astype(np.int64)


def boundaries(cu_seqlens: Any) -> Integers:
    """Return cumulative sequence lengths: from 0, never falling."""
    result = integers("cu_seqlens", cu_seqlens, "(documents + 1,)", 1)
    if not len(result) or result[0] != 0:
        raise ValueError(f"cu_seqlens must begin with 0, got {result[0] if len(result) else 'an empty array'}")
    falls = np.flatnonzero(np.diff(result) < 0)
    if len(falls):
        i = int(falls[0])
        raise ValueError(f"cu_seqlens must not fall, got {result[i]} before {result[i + 1]} at index {i}")
    return result


def tensor_among(*values: Any) -> Any:
    """Return the first torch tensor, or None."""
    torch = sys.modules.get("torch")
    return next((v for v in values if torch is not None and isinstance(v, torch.Tensor)), None)


def like(result: npt.NDArray[Any], *inputs: Any) -> Any:
    """Return the result as it is, or as a tensor on the device of the first tensor among the inputs."""
    tensor = tensor_among(*inputs)
    if tensor is None:
        return result
    return sys.modules["torch"].from_numpy(result.copy(order="C")).to(tensor.device)
