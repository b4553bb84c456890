"""The rotation in torch's own operations, for devices without kernels, and what is made of tables alone."""

from __future__ import annotations

import torch
from torch import Tensor


def members(x: Tensor, pairs: int, rotary_offset: int, halves: bool) -> tuple[Tensor, Tensor]:
    """Return the first and second elements of all pairs; that which an odd head lacks is zero."""
    part = x[..., rotary_offset : rotary_offset + 2 * pairs]
    if part.shape[-1] < 2 * pairs:
        part = torch.cat([part, torch.zeros_like(part[..., :1])], -1)
    if halves:
        return part[..., :pairs], part[..., pairs:]
    return part[..., 0::2], part[..., 1::2]


def along(table: Tensor, ndim: int, seq_axis: int) -> Tensor:
    """Shape (seq, pairs) or (batch, seq, pairs) so that it broadcasts against x."""
    shape = [1] * ndim
    shape[seq_axis], shape[-1] = table.shape[-2], table.shape[-1]
    if table.ndim == 3:
        shape[0] = table.shape[0]
    return table.reshape(shape)


def apply_rotary(
    x: Tensor, cos: Tensor, sin: Tensor, layout: int, rotary_offset: int, conjugate: bool, seq_axis: int
) -> Tensor:
    """Rotate; 16-bit types are computed in float32 and rounded once."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    pairs, seq = cos.shape[-1], x.shape[seq_axis]
    c, s = (along(t.narrow(-2, 0, seq), x.ndim, seq_axis) for t in (cos, -sin if conjugate else sin))
    a, b = members(wide, pairs, rotary_offset, layout in (0, 3))
    first, second = a * c - b * s, b * c + a * s
    halves = layout in (0, 2)
    turned = torch.cat([first, second], -1) if halves else torch.stack([first, second], -1).flatten(-2)
    end = min(rotary_offset + 2 * pairs, x.shape[-1])
    turned = turned[..., : end - rotary_offset].to(x.dtype)
    if rotary_offset == 0 and end == x.shape[-1]:
        return turned
    return torch.cat([x[..., :rotary_offset], turned, x[..., end:]], -1)


def positions_of(positions: Tensor | None, offset: int, seq: int) -> Tensor:
    """Return positions, or the range that stands for none."""
    return torch.arange(offset, offset + seq, device="cpu") if positions is None else positions


def by_pair(positions: Tensor, pairs: int, axis_of_freq: list[int] | None) -> Tensor:
    """Return the position that turns each pair: (.., seq, pairs), or (.., seq, 1) with one axis."""
    if axis_of_freq is None or max(axis_of_freq) == 0:
        return positions.double().unsqueeze(-1)
    return positions.double()[axis_of_freq].movedim(0, -1)


def angles_backward(
    of_angles: Tensor, positions: Tensor, inv_freq: Tensor, axis_of_freq: list[int] | None
) -> tuple[Tensor, Tensor]:
    """Return the gradients of inv_freq and of positions from those of their angles, (.., seq, pairs)."""
    pairs = inv_freq.shape[0]
    of_frequencies = (of_angles * by_pair(positions, pairs, axis_of_freq)).flatten(0, -2).sum(0)
    weighted = of_angles * inv_freq
    if axis_of_freq is None or max(axis_of_freq) == 0:
        return of_frequencies, weighted.sum(-1)
    axes = torch.tensor(axis_of_freq, device="cpu")
    rows = [weighted[..., axes == axis].sum(-1) for axis in range(max(axis_of_freq) + 1)]
    return of_frequencies, torch.stack(rows)
