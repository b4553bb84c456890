"""ALiBi, T5's bias and KERPLE's added to scores, recorded by autograd.

Numbers of a bias here are tensors on any device and of any float dtype, to which gradients flow; what is fixed for a
module (masks, the index of a distance) comes checked.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from posenc.bias.t5 import distance_index
from posenc.torch import _bias_ops as ops
from posenc.torch._bias_place import Place
from posenc.torch._rotary import has_kernels


def add_lines(scores: Tensor, slopes: Tensor, right_slopes: Tensor | None, form: str, place: Place) -> Tensor:
    """Add ALiBi; slopes (heads,) or (batch, heads)."""
    of_key = form == "key"
    right = (slopes if of_key else -slopes) if right_slopes is None else -right_slopes
    lines = torch.stack([-slopes, right], -1)
    if has_kernels(scores):
        return ops.add_line(scores, lines, *place, of_key)  # type: ignore[no-any-return]
    return ops.line_formula(scores, lines, place, of_key)


def t5_index(bidirectional: bool, num_buckets: int, max_distance: int) -> tuple[Tensor, int]:
    """Return the bucket of each distance from the second on, int32."""
    index, low = distance_index(bidirectional, num_buckets, max_distance)
    return torch.from_numpy(index.copy()), low


def add_by_distance(scores: Tensor, entries: Tensor, index: Tensor, low: int, place: Place) -> Tensor:
    """Add an entry for each distance; entries (heads, n), index int32 of distances from `low` on."""
    if has_kernels(scores):
        wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
        return ops.add_entries(scores, entries.to(wide), *place, index.cpu(), low)  # type: ignore[no-any-return]
    return ops.entries_formula(scores, entries, place, index, low)


def reach_of(shape: Any, place: Place, padded: bool) -> int:
    """Return the largest distance of a call; with padding that of two tokens."""
    queries, keys = shape[-2], shape[-1]
    if padded or (place.query is None and place.key is None and place.first == keys - queries):
        return torch.sym_max(keys, queries) - 1  # type: ignore[no-any-return,no-untyped-call]
    if place.query is None and place.key is None:
        return max(abs(place.first), abs(place.first + queries - 1), abs(place.first - keys + 1))  # type: ignore[no-any-return]
    query = torch.arange(place.first, place.first + queries, device="cpu") if place.query is None else place.query
    key = torch.arange(keys, device="cpu") if place.key is None else place.key
    if not query.numel() or not key.numel():  # C says what is wrong with the shape
        return 0
    if query.is_floating_point() or key.is_floating_point():
        raise TypeError("positions must be integers here: values are made for each distance")
    reach = max(int(key.max() - query.min()), int(query.max() - key.min()), 0)
    if reach > 1 << 24:
        raise ValueError(f"the largest distance must be at most {1 << 24}, got {reach}")
    return reach


def add_kernel(scores: Tensor, r1: Tensor, r2: Tensor, form: str, place: Place, padded: bool) -> Tensor:
    """Add KERPLE: its kernel is made for each distance of the call, and picked for each score on the way."""
    reach = max(reach_of(scores.shape, place, padded), 1)
    r1, r2 = r1[:, None], r2[:, None]
    d = torch.arange(reach + 1, device=r1.device).to(r1.dtype)
    kernel = torch.log1p(r2 * d) if form == "log" else torch.cat([0 * r2, d[1:] ** r2], -1)
    index = torch.arange(-reach, reach + 1, device="cpu").abs().int()
    return add_by_distance(scores, -r1 * kernel, index, -reach, place)
