"""ALiBi, T5 and KERPLE biases, sinusoidal and learned positions, as modules.

On the CPU by posenc's kernels; on other devices by torch's operations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc import additive, bias
from posenc.torch import _other_ops as ops
from posenc.torch._rotary import counted, has_kernels
from posenc.torch._rotary_modules import KeepsPrecision


def _masked(scores: Tensor, causal: bool) -> Tensor:
    return scores.masked_fill(ops.distances(scores.shape, scores.device) > 0, -torch.inf) if causal else scores


def _flag(causal: Any) -> bool:
    return check.flag("causal", causal)


class ALiBi(KeepsPrecision):
    """Add ALiBi to attention scores: -slope * abs(query - key), queries at the last of the keys.

    Parameters
    ----------
    num_heads : int
    form : {"distance", "key"}
        As in `posenc.add_alibi`.
    causal : bool
        Write -inf where a key is after the query, in the same pass.
    learnable_slopes : bool
        Learn the slopes, from `posenc.alibi_slopes` on; else they are no part of the state_dict. float64 either way,
        whatever the model is cast to.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> alibi = posenc.torch.ALiBi(8, causal=True, learnable_slopes=True)
    >>> alibi(torch.zeros(1, 8, 4, 4)).softmax(-1).square().sum().backward()
    >>> alibi.slopes.grad.shape
    torch.Size([8])
    """

    def __init__(
        self, num_heads: int, *, form: str = "distance", causal: bool = False, learnable_slopes: bool = False
    ) -> None:
        super().__init__()
        slopes = torch.from_numpy(bias.alibi_slopes(num_heads).copy())
        self.form, self.causal = check.choice("form", form, ("distance", "key")), _flag(causal)
        self.learnable = check.flag("learnable_slopes", learnable_slopes)
        self.slopes: Tensor
        if self.learnable:
            self.slopes = nn.Parameter(slopes)
        else:
            self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias."""
        if has_kernels(scores):
            return ops.add_alibi(scores, self.slopes, self.form, self.causal)  # type: ignore[no-any-return]
        line = ops.alibi_line(scores.shape, self.form, scores.device).float()
        return _masked(scores + (self.slopes.float()[:, None, None] * line).to(scores.dtype), self.causal)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"{len(self.slopes)}, form={self.form!r}, causal={self.causal}, learnable_slopes={self.learnable}"


class T5RelativeBias(nn.Module):
    """Add T5's learned bias to attention scores, by the bucket of key - query.

    Parameters
    ----------
    num_heads : int
    bidirectional : bool
        Encoders; False for decoders.
    num_buckets, max_distance : int
    causal : bool

    Attributes
    ----------
    weight : Parameter, shape (num_buckets, num_heads)
        As in transformers' `relative_attention_bias.weight`; starts at normal deviates.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> t5 = posenc.torch.T5RelativeBias(4, bidirectional=True)
    >>> t5(torch.zeros(2, 4, 5, 5)).square().sum().backward()
    >>> t5.weight.grad.shape
    torch.Size([32, 4])
    """

    def __init__(
        self,
        num_heads: int,
        *,
        bidirectional: bool,
        num_buckets: int = 32,
        max_distance: int = 128,
        causal: bool = False,
    ) -> None:
        super().__init__()
        heads, buckets = check.integer("num_heads", num_heads, 1), check.integer("num_buckets", num_buckets, 1)
        self.bidirectional, self.max_distance = check.flag("bidirectional", bidirectional), max_distance
        self.causal = _flag(causal)
        bias.t5_bucket([0], bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance)  # checks
        self.weight = nn.Parameter(torch.randn(buckets, heads))

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias."""
        how = self.bidirectional, self.max_distance
        if has_kernels(scores):
            wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
            return ops.add_t5(scores, self.weight.to(wide), *how, self.causal)  # type: ignore[no-any-return]
        index = ops.t5_buckets(scores.shape, len(self.weight), *how).to(scores.device)
        return _masked(scores + self.weight[index].movedim(-1, 0).to(scores.dtype), self.causal)

    def extra_repr(self) -> str:
        """Show the parameters."""
        shape = f"{self.weight.shape[1]}, num_buckets={len(self.weight)}, max_distance={self.max_distance}"
        return f"{shape}, bidirectional={self.bidirectional}, causal={self.causal}"


class Kerple(KeepsPrecision):
    """Add KERPLE's learned kernel of the distance d to attention scores: -r1 * ln(1 + r2 * d), or -r1 * d ** r2.

    Chi et al., arXiv:2205.09921, equation 5, in torch's operations: the kernel is made for each distance of the call
    and then picked for each score.

    Parameters
    ----------
    num_heads : int
    form : {"log", "power"}
    causal : bool

    Attributes
    ----------
    r1, r2 : Parameter, shape (num_heads,)
        float64, clamped to at least 0.01 as in the authors' code; start between 0 and 2, and 0 and 1, evenly spread.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> kerple = posenc.torch.Kerple(4, causal=True)
    >>> kerple(torch.zeros(1, 4, 5, 5)).softmax(-1).square().sum().backward()
    >>> kerple.r2.grad.shape
    torch.Size([4])
    """

    def __init__(self, num_heads: int, *, form: str = "log", causal: bool = False) -> None:
        super().__init__()
        heads = check.integer("num_heads", num_heads, 1)
        self.form, self.causal = check.choice("form", form, ("log", "power")), _flag(causal)
        spread = torch.linspace(1, heads, heads, dtype=torch.float64) / heads
        self.r1, self.r2 = nn.Parameter(2 * spread), nn.Parameter(spread)

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias."""
        if scores.shape[-3] != len(self.r1):
            raise ValueError(f"scores must have {len(self.r1)} heads, got shape {tuple(scores.shape)}")
        distance = ops.distances(scores.shape, scores.device).abs()
        r1, r2 = (r.clamp(min=0.01)[:, None] for r in (self.r1, self.r2))
        d = torch.arange(int(scores.shape[-1] + scores.shape[-2]), device=scores.device).to(r1.dtype)
        kernel = torch.log1p(r2 * d) if self.form == "log" else torch.cat([0 * r2, d[1:] ** r2], -1)
        values = -r1 * kernel
        return _masked(scores + values.to(scores.dtype)[:, distance], self.causal)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"{len(self.r1)}, form={self.form!r}, causal={self.causal}"


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
        where, first = counted(positions, offset, x.shape[seq_axis])
        if has_kernels(x):
            how = (self.convention, self.base, self.scale, seq_axis)
            return ops.add_sinusoidal(x, where, first, *how)  # type: ignore[no-any-return]
        rows = torch.arange(first, first + x.shape[seq_axis]) if where is None else where
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
        where, first = counted(positions, offset, x.shape[seq_axis])
        if has_kernels(x):
            wide = torch.float64 if x.dtype == torch.float64 else torch.float32
            return ops.add_rows(x, self.weight.to(wide), where, first, self.scale, seq_axis)  # type: ignore[no-any-return]
        rows = torch.arange(first, first + x.shape[seq_axis]) if where is None else where
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
