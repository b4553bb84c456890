"""Positions that a batch's description asks for, and those that known mistakes give instead."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc.positions import _arrays
from posenc.positions.grids import grid as make_grid
from posenc.positions.grids import sizes_of
from posenc.positions.learned import roberta
from posenc.positions.parallel import SCHEMES, context_parallel
from posenc.positions.sequences import from_attention_mask, from_cu_seqlens, with_offsets

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[Any]


class Mistake(NamedTuple):
    """What someone gets who makes a known mistake."""

    kind: str
    positions: Numbers
    explanation: str


class Wanted(NamedTuple):
    """The right positions, how to make them, which of them count, and what goes wrong instead."""

    positions: Numbers
    call: str
    counts: npt.NDArray[np.bool_]
    mistakes: list[Mistake]


def of_documents(given: Numbers, cu_seqlens: Any) -> Wanted:
    """Return what packed documents want; tokens behind the last one do not count."""
    cu = _arrays.boundaries(cu_seqlens)
    total = given.shape[-1]
    positions = from_cu_seqlens(cu, max(total, int(cu[-1])))
    inner = cu[1:-1][cu[1:-1] < total]
    # documents whose first token has position 0 were reset; the others belong to the one before, as if never cut
    reset = np.concatenate([[0], inner[given.reshape(-1, total)[0, inner] == 0], cu[-1:]])
    gone_on = Mistake(
        "not_reset", from_cu_seqlens(reset, len(positions)), "documents go on counting from the one before"
    )
    counts = np.arange(len(positions)) < cu[-1]
    return Wanted(positions, "from_cu_seqlens(cu_seqlens)", counts, [gone_on])


def of_mask(attention_mask: Any) -> Wanted:
    """Return what a padded batch wants; padding does not count."""
    mask = _arrays.array("attention_mask", attention_mask)
    positions = from_attention_mask(mask)
    counted = Mistake("padding_counted", _ramp(positions), "padding before the tokens is counted like them")
    call = "from_attention_mask(attention_mask)"
    return Wanted(positions, call, mask == 1, [counted])


def of_roberta(input_ids: Any, padding_idx: int | None) -> Wanted:
    """Return the table rows that RoBERTa wants; padding does not count."""
    if input_ids is None or padding_idx is None:
        raise ValueError("input_ids and padding_idx must be given together")
    ids = _arrays.array("input_ids", input_ids)
    rows = roberta(ids, padding_idx)
    first = padding_idx + 1
    missing = f"the first token reads row 0, not padding_idx + 1 = {first}"
    mistakes = [
        Mistake("no_padding_offset", rows - first, missing),
        Mistake("no_padding_offset", _ramp(rows), missing),
        Mistake("padding_counted", _ramp(rows) + first, "padding before the tokens is counted like them"),
    ]
    return Wanted(rows, "roberta(input_ids, padding_idx)", ids != padding_idx, mistakes)


def of_grid(shape: Any, order: str) -> Wanted:
    """Return what the patches of a grid want."""
    sizes = sizes_of("grid", shape)
    positions = make_grid(sizes, order=order)
    every = list(itertools.permutations(range(len(sizes))))[1:]
    swapped = [
        Mistake("swapped_axes", positions[list(p)], f"the axes are in the order {list(p)} of the one asked for")
        for p in every
    ]
    columns = positions.reshape(-1, *sizes).swapaxes(-1, -2).reshape(positions.shape) if len(sizes) > 1 else positions
    mistakes = [*swapped, Mistake("column_by_column", columns, "patches are listed column by column, not row by row")]
    call = f"grid({tuple(sizes)}, order={order!r})"
    return Wanted(positions, call, np.ones(positions.shape, bool), mistakes)


def of_offset(given: Numbers, offset: Any) -> Wanted:
    """Return what plain sequences want that continue others."""
    positions = with_offsets(given.shape[-1], _arrays.array("offset", offset))
    mistakes = [Mistake("no_offset", _ramp(positions), "every row counts from 0, as if no tokens came before")]
    return Wanted(positions, "with_offsets(seq, offset)", np.ones(positions.shape, bool), mistakes)


def of_rank(given: Numbers, rank: int | None, world_size: int | None, scheme: str, cu_seqlens: Any) -> Wanted:
    """Return what one rank of context parallelism wants."""
    if rank is None or world_size is None:
        raise ValueError("rank and world_size must be given together")
    cu = None if cu_seqlens is None else _arrays.boundaries(cu_seqlens)
    total = given.shape[-1] * world_size if cu is None else int(cu[-1])
    right = context_parallel(total, rank, world_size, scheme=scheme, cu_seqlens=cu)
    zero = context_parallel(total, 0, world_size, scheme=scheme, cu_seqlens=cu)
    (other,) = set(SCHEMES) - {scheme}
    cut = context_parallel(total, rank, world_size, scheme=other, cu_seqlens=cu)
    mistakes = [
        Mistake("wrong_scheme", cut, f"these are the positions of {other!r} pieces, not {scheme!r}"),
        Mistake("rank_ignored", zero, "these are the positions of rank 0"),
        Mistake("rank_ignored", np.arange(len(right)), "this rank counts from 0 as if it held a whole sequence"),
    ]
    if cu is not None:
        whole = np.arange(total)
        gone_on = context_parallel(whole, rank, world_size, scheme=scheme, cu_seqlens=cu)
        as_one = context_parallel(from_cu_seqlens(cu), rank, world_size, scheme=scheme)
        mistakes += [
            Mistake("not_reset", gone_on, "documents go on counting from the one before"),
            Mistake("cut_as_one", as_one, "the packed sequence was cut as one, not document by document"),
        ]
    packed = "" if cu is None else ", cu_seqlens=cu_seqlens"
    call = f"context_parallel({total}, {rank}, {world_size}, scheme={scheme!r}{packed})"
    return Wanted(right, call, np.ones(right.shape, bool), mistakes)


def _ramp(like: Numbers) -> Numbers:
    return np.broadcast_to(np.arange(like.shape[-1]), like.shape)
