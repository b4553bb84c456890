"""Checks of what functions and modules of torch are given; the messages are those of `posenc` itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc import _parameters as check

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def tensors(**given: Any) -> None:
    """Refuse what is no tensor of a float dtype; the names are those of the arguments."""
    for name, x in given.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {check.shown(x)}")
        if x.dtype not in FLOATS:
            raise TypeError(f"{name} must be float32, float64, float16 or bfloat16, got {x.dtype}")


def number(name: str, value: Any) -> float:
    """Return a finite float; what torch.compile follows is no number yet."""
    return float(value) if torch.compiler.is_compiling() else check.finite(name, value)


def along(x: Tensor, seq_axis: Any) -> int:
    """Return seq_axis counted from the end."""
    if x.ndim < 2:
        raise ValueError(f"a tensor with a sequence must have two axes at least, got shape {tuple(x.shape)}")
    axis = check.integer("seq_axis", seq_axis, -x.ndim, most=x.ndim - 1) % x.ndim - x.ndim
    if axis == -1:
        raise ValueError("seq_axis must not be the last axis, which is head_dim")
    return axis
