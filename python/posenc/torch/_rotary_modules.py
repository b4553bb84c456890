"""Rotary position embedding as modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc.axes import MixedRope
from posenc.rotary import Rope
from posenc.tables import LAYOUTS
from posenc.torch import _formula, _table_ops
from posenc.torch._arguments import along, tensors
from posenc.torch._rotary import counted, has_kernels, numbers_of, rotate


class KeepsPrecision(nn.Module):
    """A module whose parameters keep their dtype: .half() and .to(bfloat16) move them, and do not round them.

    Frequencies in half precision turn every position after the first few hundred by a wrong angle.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, recurse)  # type: ignore[no-any-return,no-untyped-call]


class RotaryEmbedding(KeepsPrecision):
    """Rotate queries and keys, with fixed or learnable frequencies.

    Fixed frequencies are no buffer: they are part of what the module is, not of its state_dict, and no cast of a model
    reaches them. Learnable ones are the parameter `inv_freq`, float64, which .half() and .to(bfloat16) leave float64.

    Parameters
    ----------
    rope : Rope or int
        The rotation, or head_dim, with the other parameters of a Rope as keywords.
    learnable_frequencies : bool
        Learn `inv_freq` (as in rotary-embedding-torch's `learned_freq`), starting from the Rope's.
    **parameters
        As in `posenc.Rope`, for an int.

    Raises
    ------
    TypeError, ValueError
        As in `posenc.Rope`; and for learnable frequencies that a length-dependent scaling would overrule.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> embedding = posenc.torch.RotaryEmbedding(8, layout="half", learnable_frequencies=True)
    >>> q, k = embedding(torch.randn(2, 4, 16, 8), torch.randn(2, 1, 16, 8))
    >>> q.sum().backward()
    >>> embedding.inv_freq.grad.dtype
    torch.float64
    """

    def __init__(self, rope: Rope | int, *, learnable_frequencies: bool = False, **parameters: Any) -> None:
        super().__init__()
        if not isinstance(rope, Rope):
            rope = Rope(rope, **parameters)
        elif parameters:
            raise TypeError(f"a Rope excludes its parameters, got {', '.join(parameters)}")
        if check.flag("learnable_frequencies", learnable_frequencies) and rope._varies:
            raise ValueError("frequencies of a length-dependent scaling cannot be learned; take rope.at(seq_len)")
        self._rope = rope
        self.inv_freq = nn.Parameter(numbers_of(rope).inv_freq.clone()) if learnable_frequencies else None

    @property
    def rope(self) -> Rope:
        """The rotation as it is now, learned frequencies included."""
        if self.inv_freq is None:
            return self._rope
        rope = self._rope
        if rope.attention_factor != 1:
            raise ValueError("a Rope of its own frequencies has no attention factor; use inv_freq")
        return Rope(
            rope.head_dim,
            layout=rope.layout,
            rotary_dim=rope.rotary_dim,
            rotary_offset=rope.rotary_offset,
            inv_freq=self.inv_freq.detach().cpu().numpy(),
            axis_of_freq=rope.axis_of_freq,
            precision=rope.precision,
        )

    def forward(
        self,
        q: Tensor,
        k: Tensor | None = None,
        *,
        positions: Any = None,
        offset: Any = 0,
        seq_axis: int = -2,
        inverse: bool = False,
        seq_len: int | None = None,
    ) -> Any:
        """Rotate; see `posenc.torch.rotate`."""
        return rotate(
            self._rope,
            q,
            k,
            positions=positions,
            offset=offset,
            seq_axis=seq_axis,
            inverse=inverse,
            seq_len=seq_len,
            inv_freq=self.inv_freq,
        )

    def extra_repr(self) -> str:
        """Show the Rope."""
        return f"{self._rope!r}, learnable_frequencies={self.inv_freq is not None}"


class MixedRotaryEmbedding(KeepsPrecision):
    """Rotate by the sum over axes of position * frequency, every head with frequencies of its own; learnable.

    RoPE-Mixed of vision models: Heo et al., arXiv:2403.13298, equation 8. `posenc.axes.mixed_frequencies` makes what
    training starts from.

    Parameters
    ----------
    head_dim : int
    inv_freq : array_like, shape (axes, heads, pairs) or (axes, pairs)
    layout : {"half", "interleaved"}
    learnable_frequencies : bool

    Raises
    ------
    TypeError, ValueError
        As in `posenc.axes.MixedRope`.

    Examples
    --------
    >>> import numpy as np, torch, posenc.torch
    >>> from posenc import axes
    >>> start = axes.mixed_frequencies(16, np.linspace(0, 6, 4))
    >>> embedding = posenc.torch.MixedRotaryEmbedding(16, start, layout="interleaved")
    >>> h, w = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    >>> q = embedding(torch.randn(2, 4, 9, 16), positions=torch.stack([w.flatten(), h.flatten()]))
    >>> q.sum().backward()
    >>> embedding.inv_freq.grad.shape
    torch.Size([2, 4, 8])
    """

    def __init__(self, head_dim: int, inv_freq: Any, *, layout: str, learnable_frequencies: bool = True) -> None:
        super().__init__()
        rope = MixedRope(head_dim, inv_freq, layout=layout)
        self.head_dim, self.layout = rope.head_dim, rope.layout
        frequencies = torch.from_numpy(rope.inv_freq.copy())
        self.inv_freq = nn.Parameter(
            frequencies, requires_grad=check.flag("learnable_frequencies", learnable_frequencies)
        )

    def forward(
        self, q: Tensor, k: Tensor | None = None, *, positions: Any, seq_axis: int = -2, head_axis: int = -3
    ) -> Any:
        """Rotate; shapes as in `posenc.axes.MixedRope.__call__`, positions (axes, seq)."""
        given = (q,) if k is None else (q, k)
        tensors(**dict(zip(("q", "k"), given, strict=False)))
        where, _ = counted(positions, 0, 0)
        if where is None or where.ndim != 2 or len(where) != len(self.inv_freq):
            raise ValueError(f"positions must have shape ({len(self.inv_freq)}, seq), got {check.shown(positions)}")
        own = self.inv_freq.cpu().double()
        angles = torch.einsum("as,a...p->...sp", where.double(), own)
        turned = [self._turn(x, angles, seq_axis, head_axis) for x in given]
        return turned[0] if k is None else tuple(turned)

    def _turn(self, x: Tensor, angles: Tensor, seq_axis: int, head_axis: int) -> Tensor:
        axis = along(x, seq_axis)
        if x.shape[-1] != self.head_dim or x.shape[axis] != angles.shape[-2]:
            raise ValueError(
                f"q and k must have head_dim {self.head_dim} and {angles.shape[-2]} tokens, got {tuple(x.shape)}"
            )
        one = torch.ones(1, dtype=torch.float64, device="cpu")  # position 1, the angles as frequencies
        tables = _table_ops.rotary_table(one, angles.reshape(-1), None, 1.0, False, x.dtype == torch.float64)
        cos, sin = (t.reshape(angles.shape).to(x.device) for t in tables)
        per_head = angles.ndim == 3
        seq, head = axis % x.ndim, (check.integer("head_axis", head_axis, -x.ndim, most=x.ndim - 1)) % x.ndim
        if per_head and (x.shape[head] != angles.shape[0] or head in (seq, x.ndim - 1)):
            raise ValueError(
                f"head_axis must be an axis of {angles.shape[0]} heads, got {head_axis} of {tuple(x.shape)}"
            )
        first = x.movedim(head, 0) if per_head else x
        axis = (seq + (seq < head) if per_head else seq) - x.ndim
        run = _table_ops.apply_rotary if has_kernels(x) else _formula.apply_rotary
        turned = run(first, cos, sin, LAYOUTS[self.layout][0], 0, False, axis)
        return turned.movedim(0, head) if per_head else turned

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"{self.head_dim}, axes={len(self.inv_freq)}, layout={self.layout!r}"
