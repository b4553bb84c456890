"""Where queries and keys are, and which keys are seen: as operators of torch take it, and in torch's operations.

Operators take positions of queries and keys or None, the position of the first query where there are none, and a mask
of four integers: causal (0, 1, or 2 for "skip"), how far keys are seen to the left and to the right (-1: no bound), and
the number of sinks.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from posenc.bias import _scores
from posenc.torch._arguments import tensors
from posenc.torch._rotary import as_tensor, counted

#: Of keys that are no tokens: later than any query, and farther right than any window reaches.
_PADDING = (1 << 30) - 1
_WIDEST = 1 << 29


class Place(NamedTuple):
    """The arguments of an operator that say where and what is seen."""

    query: Tensor | None
    key: Tensor | None
    first: int
    mask: list[int]

    @property
    def where(self) -> _scores.Where:
        """What C takes."""
        return (
            None if self.query is None else self.query.detach(),
            None if self.key is None else self.key.detach(),
            self.first,
        )

    @property
    def bounds(self) -> _scores.Mask:
        """What C takes."""
        causal, left, right, sinks = self.mask
        return causal, *(math.inf if bound < 0 else float(bound) for bound in (left, right)), float(sinks)  # type: ignore[return-value]


def mask_of(causal: Any, window: Any, sinks: Any) -> list[int]:
    """Return a mask, checked."""
    code, left, right, first = _scores.mask_of(causal, window, sinks)
    return [code, *(-1 if math.isinf(bound) else int(bound) for bound in (left, right)), int(first)]


def place_of(
    scores: Tensor,
    mask: list[int],
    query_positions: Any = None,
    key_positions: Any = None,
    offset: Any = None,
    attention_mask: Any = None,
) -> Place:
    """Return where queries and keys of a call are: counted, listed, or counted over the tokens of padded rows."""
    tensors(scores=scores)
    if scores.ndim < 2:
        raise ValueError(f"scores must have shape (.., heads, queries, keys), got {tuple(scores.shape)}")
    queries, keys = scores.shape[-2:]
    listed = query_positions is not None or key_positions is not None
    if attention_mask is not None:
        if listed or offset is not None:
            raise ValueError("attention_mask excludes positions and offset: it counts them")
        return _padded(as_tensor("attention_mask", attention_mask), queries, keys, mask)
    if offset is not None and query_positions is not None:
        raise ValueError("query_positions and offset exclude each other: add the offset to the positions")
    key = None if key_positions is None else counted(key_positions, 0, keys, "key_positions")[0]
    if key is not None and (key.ndim < 1 or key.shape[-1] != keys):
        raise ValueError(f"key_positions must have shape ({keys},) or (batch, {keys}), got {tuple(key.shape)}")
    if query_positions is not None:
        return Place(counted(query_positions, 0, queries, "query_positions")[0], key, 0, mask)
    if offset is not None:
        query, first = counted(None, offset, queries)
        if query is None and key is not None:  # listed like the keys
            query = torch.arange(first, first + queries, device="cpu")
        return Place(query, key, first, mask)
    if key is None:
        return Place(None, None, keys - queries, mask)
    if queries > keys:
        raise ValueError(f"query_positions must be given where there are more queries ({queries}) than keys ({keys})")
    return Place(key[..., keys - queries :], key, 0, mask)


def _padded(tokens: Tensor, queries: int, keys: int, mask: list[int]) -> Place:
    """Count as BLOOM does, padding at 0, and put keys that are no tokens where no query sees them."""
    if tokens.ndim != 2 or tokens.shape[-1] != keys:
        raise ValueError(f"attention_mask must have shape (batch, {keys}), got {tuple(tokens.shape)}")
    if queries > keys:
        raise ValueError(f"attention_mask needs queries that are the last of the keys, got {queries} for {keys} keys")
    causal, left, right, sinks = mask
    if causal == 2:
        raise ValueError("attention_mask excludes causal='skip': what is skipped keeps its score, padding too")
    real = tokens.detach().cpu() != 0
    positions = ((real.long().cumsum(-1) - 1) * real).clamp(min=0)
    key = torch.where(real, positions, _PADDING)
    return Place(positions[:, keys - queries :], key, 0, [causal, left, _WIDEST if right < 0 else right, sinks])


# ---- the same in torch's operations ----


def positions_in(shape: Any, place: Place, device: Any) -> tuple[Tensor, Tensor]:
    """Return positions of queries and keys, (.., queries, 1) and (.., 1, keys), to fit scores of the shape."""
    queries, keys = shape[-2:]
    query, key = place.query, place.key
    query = place.first + torch.arange(queries, device=device) if query is None else query.to(device)
    key = torch.arange(keys, device=device) if key is None else key.to(device)
    return _fitted(query, len(shape)).unsqueeze(-1), _fitted(key, len(shape)).unsqueeze(-2)


def _fitted(positions: Tensor, ndim: int) -> Tensor:
    if positions.ndim == 1:
        return positions
    return positions.reshape(positions.shape[0], *[1] * (ndim - 3), positions.shape[1])


def masked_of(shape: Any, place: Place, device: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return which keys are hidden (-inf), and which are skipped, to fit scores of the shape; None for none."""
    causal, left, right, sinks = place.mask
    if causal == 0 and left < 0 and right < 0:
        return None, None
    query, key = positions_in(shape, place, device)
    hidden = key > query + right if right >= 0 else torch.zeros((), dtype=torch.bool, device=device)
    if left >= 0:
        hidden = hidden | ((key < query - left) & (key >= sinks))
    if causal == 2:
        return hidden & (key <= query), key > query
    return (hidden | (key > query) if causal == 1 else hidden), None


def without_hidden(grad: Tensor, place: Place) -> Tensor:
    """Return the gradient of scores: none reaches what a mask wrote."""
    hidden, _ = masked_of(grad.shape, place, grad.device)
    return grad if hidden is None else grad.masked_fill(hidden, 0)


def without_masked(grad: Tensor, place: Place) -> Tensor:
    """Return a gradient where a term was added, and zeros elsewhere."""
    for masked in masked_of(grad.shape, place, grad.device):
        grad = grad if masked is None else grad.masked_fill(masked, 0)
    return grad


def add_formula(scores: Tensor, term: Tensor, place: Place) -> Tensor:
    """Add a term to scores where their keys are seen."""
    hidden, skipped = masked_of(scores.shape, place, scores.device)
    term = term.to(scores.dtype)
    result = scores + (term if skipped is None else term.masked_fill(skipped, 0))
    return result if hidden is None else result.masked_fill(hidden, -torch.inf)
