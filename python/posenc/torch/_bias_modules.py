"""ALiBi, T5 and KERPLE biases as modules: on the CPU by posenc's kernels, on other devices by torch's operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc import bias
from posenc.bias.alibi import finite_slopes
from posenc.torch import _bias
from posenc.torch._arguments import tensors
from posenc.torch._bias_place import mask_of, place_of
from posenc.torch._rotary_modules import KeepsPrecision


class Masks(nn.Module):
    """What all biases know of masks: given once, and in front of every call's positions."""

    def __init__(self, causal: bool | str, window: Any, sinks: int) -> None:
        super().__init__()
        self.causal, self.window, self.sinks = causal, window, sinks
        self._mask = mask_of(causal, window, sinks)

    def _shown(self) -> str:
        shown = f"causal={self.causal!r}"
        if self.window is not None:
            shown += f", window={self.window}, sinks={self.sinks}"
        return shown


class ALiBi(KeepsPrecision, Masks):
    """Add ALiBi to attention scores: -slope * abs(query - key).

    Parameters
    ----------
    num_heads : int
    form : {"distance", "key"}
        As in `posenc.add_alibi`.
    causal, window, sinks
        Masks in the same pass, as in `posenc.mask_scores`.
    slopes : array_like, shape (num_heads,), optional
        Default: `posenc.alibi_slopes`.
    right_slopes : array_like, shape (num_heads,), optional
        Those of keys after the query, where they differ; for form "distance".
    learnable_slopes : bool
        Learn the slopes, and the right ones; else they are no part of the state_dict. float64 either way, whatever the
        model is cast to.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> alibi = posenc.torch.ALiBi(8, causal=True, window=3, learnable_slopes=True)
    >>> alibi(torch.zeros(1, 8, 4, 4)).softmax(-1).square().sum().backward()
    >>> alibi.slopes.grad.shape
    torch.Size([8])
    """

    slopes: Tensor
    right_slopes: Tensor | None

    def __init__(
        self,
        num_heads: int,
        *,
        form: str = "distance",
        causal: bool | str = False,
        window: Any = None,
        sinks: int = 0,
        slopes: Any = None,
        right_slopes: Any = None,
        learnable_slopes: bool = False,
    ) -> None:
        super().__init__(causal, window, sinks)
        own = bias.alibi_slopes(num_heads) if slopes is None else slopes
        self.form = check.choice("form", form, ("distance", "key"))
        if right_slopes is not None and form == "key":
            raise ValueError("right_slopes need form 'distance': a key's position has no side")
        self.learnable = check.flag("learnable_slopes", learnable_slopes)
        self._keep("slopes", own, num_heads)
        if right_slopes is None:
            self.right_slopes = None
        else:
            self._keep("right_slopes", right_slopes, num_heads)

    def _keep(self, name: str, slopes: Any, heads: int) -> None:
        values = finite_slopes(name, slopes.detach().cpu() if isinstance(slopes, Tensor) else slopes)
        if values.shape != (1, heads):
            raise ValueError(f"{name} must have shape ({heads},), got {values.shape[1:]}")
        tensor = torch.from_numpy(values[0].copy())
        if self.learnable:
            setattr(self, name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self,
        scores: Tensor,
        *,
        query_positions: Any = None,
        key_positions: Any = None,
        offset: Any = None,
        attention_mask: Any = None,
    ) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias.

        Parameters
        ----------
        scores : Tensor
        query_positions, key_positions : tensor or array_like, optional
            As in `posenc.add_alibi`. Default: keys from 0 on, and queries at the last of the keys.
        offset : int or tensor of integers, shape (batch,), optional
            The position of the first query, in place of query_positions.
        attention_mask : tensor or array_like of 0 and 1, shape (batch, keys), optional
            Which keys are tokens. Positions are counted over those as BLOOM counts them
            (`posenc.bias.bloom_positions`), and -inf is written at the others in the same pass.

        Returns
        -------
        Tensor
            New, like scores.

        Raises
        ------
        TypeError, ValueError
            As in `posenc.add_alibi`.
        """
        place = place_of(scores, self._mask, query_positions, key_positions, offset, attention_mask)
        return _bias.add_lines(scores, self.slopes, self.right_slopes, self.form, place)

    def extra_repr(self) -> str:
        """Show the parameters."""
        sides = "" if self.right_slopes is None else "right_slopes, "
        return f"{len(self.slopes)}, {sides}form={self.form!r}, {self._shown()}, learnable_slopes={self.learnable}"


class T5RelativeBias(Masks):
    """Add T5's learned bias to attention scores, by the bucket of key - query.

    Parameters
    ----------
    num_heads : int
    bidirectional : bool
        Encoders; False for decoders.
    num_buckets, max_distance : int
    causal, window, sinks
        Masks in the same pass, as in `posenc.mask_scores`.

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

    _index: Tensor

    def __init__(
        self,
        num_heads: int,
        *,
        bidirectional: bool,
        num_buckets: int = 32,
        max_distance: int = 128,
        causal: bool | str = False,
        window: Any = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(causal, window, sinks)
        heads, buckets = check.integer("num_heads", num_heads, 1), check.integer("num_buckets", num_buckets, 1)
        self.bidirectional, self.max_distance = check.flag("bidirectional", bidirectional), max_distance
        index, self._low = _bias.t5_index(bidirectional, buckets, max_distance)
        self.register_buffer("_index", index, persistent=False)
        self.weight = nn.Parameter(torch.randn(buckets, heads))

    def forward(
        self,
        scores: Tensor,
        *,
        query_positions: Any = None,
        key_positions: Any = None,
        offset: Any = None,
        attention_mask: Any = None,
    ) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias; arguments as in `ALiBi.forward`, of integers."""
        place = place_of(scores, self._mask, query_positions, key_positions, offset, attention_mask)
        return _bias.add_by_distance(scores, self.weight.T, self._index, self._low, place)

    def extra_repr(self) -> str:
        """Show the parameters."""
        shape = f"{self.weight.shape[1]}, num_buckets={len(self.weight)}, max_distance={self.max_distance}"
        return f"{shape}, bidirectional={self.bidirectional}, {self._shown()}"


class Kerple(KeepsPrecision, Masks):
    """Add KERPLE's learned kernel of the distance d to attention scores: -r1 * ln(1 + r2 * d), or -r1 * d ** r2.

    Chi et al., arXiv:2205.09921, equation 5. The kernel is made for each distance of the call, and picked for each
    score on the way; its gradient is that of each distance, summed over scores in float64.

    Parameters
    ----------
    num_heads : int
    form : {"log", "power"}
    causal, window, sinks
        Masks in the same pass, as in `posenc.mask_scores`.

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

    def __init__(
        self,
        num_heads: int,
        *,
        form: str = "log",
        causal: bool | str = False,
        window: Any = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(causal, window, sinks)
        heads = check.integer("num_heads", num_heads, 1)
        self.form = check.choice("form", form, ("log", "power"))
        spread = torch.linspace(1, heads, heads, dtype=torch.float64) / heads
        self.r1, self.r2 = nn.Parameter(2 * spread), nn.Parameter(spread)

    def forward(
        self,
        scores: Tensor,
        *,
        query_positions: Any = None,
        key_positions: Any = None,
        offset: Any = None,
        attention_mask: Any = None,
    ) -> Tensor:
        """Return scores (..., heads, queries, keys) with the bias; arguments as in `ALiBi.forward`, of integers.

        The largest distance of positions that are given is looked for, which torch.compile(fullgraph=True) cannot.
        """
        tensors(scores=scores)
        if scores.ndim < 3 or scores.shape[-3] != len(self.r1):
            raise ValueError(f"scores must have {len(self.r1)} heads, got shape {tuple(scores.shape)}")
        place = place_of(scores, self._mask, query_positions, key_positions, offset, attention_mask)
        r1, r2 = (r.clamp(min=0.01) for r in (self.r1, self.r2))
        return _bias.add_kernel(scores, r1, r2, self.form, place, attention_mask is not None)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"{len(self.r1)}, form={self.form!r}, {self._shown()}"
