"""What the tests of posenc.torch share: tensors drawn from a seed, Ropes of every kind, and what has no -inf."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import posenc
import posenc.torch as pt
from posenc.scaling import Yarn

LAYOUTS = ("half", "interleaved", "interleaved_to_half")


def noise(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0, grows: bool = True) -> Tensor:
    """Return normal deviates; the same float64 numbers for every dtype, rounded."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return drawn.requires_grad_(grows)


def finite(y: Tensor) -> Tensor:
    """Return y with -inf replaced, which has no difference quotients."""
    return y.masked_fill(y.detach().isinf(), 0)


def rope_of(layout: str = "half", **more: Any) -> posenc.Rope:
    """Return a Rope of 8 elements, or as more says."""
    return posenc.Rope(more.pop("head_dim", 8), layout=layout, **more)


ROPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd": {"head_dim": 7},
    "partial": {"head_dim": 10, "rotary_dim": 6, "rotary_offset": 1},
    "several axes": {"axis_of_freq": [0, 1, 0, 1]},
    "attention factor": {"scaling": Yarn(4.0, 32)},
}


class Attention(torch.nn.Module):
    """Scores of projected queries, rotated like the keys."""

    def __init__(self, learn: bool) -> None:
        super().__init__()
        self.rotary = pt.RotaryEmbedding(8, layout="half", learnable_frequencies=learn)
        self.project = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k = self.rotary(self.project(x), x, positions=positions)
        return (q @ k.mT).tanh().sum()
