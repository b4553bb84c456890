"""Sinusoidal and learned positions as modules: by posenc's kernels on the CPU, else by torch's operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc import additive
from posenc.torch import _additive_ops as ops
from posenc.torch._arguments import along, tensors
from posenc.torch._rotary import counted, has_kernels


class SinusoidalEmbedding(nn.Module):
    """Add sinusoids to embeddings; nothing to learn, nothing in the state_dict, exact at any position.

    Parameters
    ----------
    convention : str
        As in `posenc.sinusoidal_table`.
    base : float
    scale : float
        Of the sinusoids.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> embedding = posenc.torch.SinusoidalEmbedding()
    >>> embedding(torch.zeros(1, 2, 4))[0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    def __init__(self, *, convention: str = "paper", base: float = 10000.0, scale: float = 1.0) -> None:
        super().__init__()
        additive.sinusoidal_table(1, 4, convention=convention, base=base)  # checks
        self.convention, self.base, self.scale = convention, float(base), check.finite("scale", scale)

    def forward(self, x: Tensor, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2) -> Tensor:
        """Return x (..., seq, dim) with its sinusoids."""
        tensors(x=x)
        seq_axis = along(x, seq_axis)
        where, first = counted(positions, offset, x.shape[seq_axis])
        if has_kernels(x):
            how = (self.convention, self.base, self.scale, seq_axis)
            return ops.add_sinusoidal(x, where, first, *how)  # type: ignore[no-any-return]
        rows = torch.arange(first, first + x.shape[seq_axis], device="cpu") if where is None else where
        table = additive.sinusoidal_table(rows, x.shape[-1], convention=self.convention, base=self.base)
        return x + (self.scale * _along(table, x, seq_axis)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"convention={self.convention!r}, base={self.base}, scale={self.scale}"


class LearnedPositions(nn.Module):
    """Add a learned row for each position to embeddings.

    Parameters
    ----------
    max_positions, dim : int
    scale : float
        Of the rows.

    Attributes
    ----------
    weight : Parameter, shape (max_positions, dim)
        As in torch's Embedding; starts at normal deviates times 0.02.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> learned = posenc.torch.LearnedPositions(16, 4)
    >>> learned(torch.zeros(2, 3, 4), offset=5).sum().backward()
    >>> learned.weight.grad[:, 0].tolist()[4:9]
    [0.0, 2.0, 2.0, 2.0, 0.0]
    """

    def __init__(self, max_positions: int, dim: int, *, scale: float = 1.0) -> None:
        super().__init__()
        rows, dim = check.integer("max_positions", max_positions, 1), check.integer("dim", dim, 1)
        self.scale = check.finite("scale", scale)
        self.weight = nn.Parameter(0.02 * torch.randn(rows, dim))

    def forward(self, x: Tensor, *, positions: Any = None, offset: Any = 0, seq_axis: int = -2) -> Tensor:
        """Return x (..., seq, dim) with its rows; IndexError for a position outside the table."""
        tensors(x=x)
        seq_axis = along(x, seq_axis)
        where, first = counted(positions, offset, x.shape[seq_axis])
        if has_kernels(x):
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            return ops.add_rows(x, self.weight.to(wide), where, first, self.scale, seq_axis)  # type: ignore[no-any-return]
        rows = torch.arange(first, first + x.shape[seq_axis], device="cpu") if where is None else where
        table = self.weight[rows.to(self.weight.device)]
        return x + (self.scale * _along(table, x, seq_axis)).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}, scale={self.scale}"


def _along(table: Tensor, x: Tensor, seq_axis: int) -> Tensor:
    shape = [1] * x.ndim
    shape[seq_axis], shape[-1] = table.shape[-2], table.shape[-1]
    if table.ndim == 3:
        shape[0] = table.shape[0]
    return table.reshape(shape).to(x.device)
