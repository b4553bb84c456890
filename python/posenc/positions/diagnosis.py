"""What is wrong with given positions: compared with what a batch's description asks for, and with known mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays, _mistakes
from posenc.positions.grids import ORDERS, sizes_of
from posenc.positions.parallel import SCHEMES

if TYPE_CHECKING:
    import numpy.typing as npt

    Numbers = npt.NDArray[Any]

#: a 16-bit float -> up to where it tells integers apart, 2 ** (its significant bits)
_COUNTS_TO = {"float16": 2048, "bfloat16": 256}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with positions.

    Attributes
    ----------
    kind : str
        One of those that `diagnose` lists.
    where : str
        The first place that shows it, and how many there are.
    explanation : str
        What is wrong.
    remedy : str
        What to do.
    """

    kind: str
    where: str
    explanation: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.where}): {self.explanation}; {self.remedy}"


@dataclass(frozen=True)
class Report:
    """What `diagnose` found; printed, one finding a line.

    Attributes
    ----------
    findings : tuple of Finding
        Empty if nothing is wrong.
    """

    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing wrong with these positions"


def diagnose(
    positions: Any,
    *,
    cu_seqlens: Any = None,
    attention_mask: Any = None,
    input_ids: Any = None,
    padding_idx: int | None = None,
    grid: Any = None,
    order: str = "ij",
    offset: Any = None,
    rank: int | None = None,
    world_size: int | None = None,
    scheme: str = "zigzag",
    axes: int = 1,
) -> Report:
    """Return what is wrong with positions, and what to do about it.

    The batch is described by one of: cu_seqlens (packed documents), attention_mask (padding), input_ids with
    padding_idx (rows of RoBERTa's table), grid (patches), offset (plain or continued sequences). rank and world_size
    stand alone or go with cu_seqlens. Without a description, only what is wrong by itself is found.

    Parameters
    ----------
    positions : array_like
        What a model was given: shape (seq,) or (batch, seq), or with several axes (axes, seq) or (axes, batch, seq).
    cu_seqlens : array_like of int, shape (documents + 1,), optional
        As `from_cu_seqlens` takes them; tokens behind the last document are padding. With a rank, those of the whole.
    attention_mask : array_like of 0 and 1, shape (batch, seq) or (seq,), optional
        Padding may have any position.
    input_ids, padding_idx : optional
        As `roberta` takes them; padding may have any position.
    grid, order : optional
        Shape and axis order of patches, as `posenc.positions.grid` takes them.
    offset : int, or array_like of int, shape (batch,), optional
        How many tokens came before; 0 for sequences from their start.
    rank, world_size, scheme : optional
        As in `context_parallel`.
    axes : int
        How many position axes the rotation has: 1, or 3 for M-RoPE, whose positions are only held to cu_seqlens (a
        document begins at 0 on every axis). A grid has its own.

    Returns
    -------
    Report
        With findings of these kinds. By itself: "half_precision" (positions in a 16-bit float), "negative", "axes"
        (M-RoPE positions where one axis is expected, or their axes taken for documents), "not_increasing". By the
        description: "not_reset" (documents that go on counting), "padding_counted", "no_padding_offset" (RoBERTa's
        rows without padding_idx + 1), "swapped_axes", "column_by_column", "no_offset", "wrong_scheme" (contiguous
        where zigzag is, or the reverse), "rank_ignored", "cut_as_one" (a rank's share of packed documents),
        "off_by_one", "shifted" (by another constant), "different" (in no known way).

    Raises
    ------
    TypeError, ValueError
        For a description that is two at once, incomplete, or of another shape than positions.

    Examples
    --------
    >>> report = posenc.positions.diagnose([0, 1, 2, 3, 4], cu_seqlens=[0, 3, 5])
    >>> print(report)
    not_reset (2 of 5, first at 3): documents go on counting from the one before; use from_cu_seqlens(cu_seqlens)
    >>> posenc.positions.diagnose([0, 1, 2, 0, 1], cu_seqlens=[0, 3, 5]).findings
    ()
    """
    given = _read(positions)
    check.choice("order", order, ORDERS)
    check.choice("scheme", scheme, SCHEMES)
    axes = check.integer("axes", axes, 1, most=check.MAX_AXES) if grid is None else len(sizes_of("grid", grid))
    findings = [*_half_precision(positions), *_axes_mistaken(given, axes, cu_seqlens)]
    if any(finding.kind == "axes" for finding in findings):
        return Report(tuple(findings))
    on_a_rank = rank is not None or world_size is not None
    of_table = input_ids is not None or padding_idx is not None
    descriptions: dict[str, tuple[bool, Callable[[], _mistakes.Wanted]]] = {
        "rank": (on_a_rank, lambda: _mistakes.of_rank(given, rank, world_size, scheme, cu_seqlens)),
        "cu_seqlens": (cu_seqlens is not None and not on_a_rank, lambda: _mistakes.of_documents(given, cu_seqlens)),
        "attention_mask": (attention_mask is not None, lambda: _mistakes.of_mask(attention_mask)),
        "input_ids": (of_table, lambda: _mistakes.of_roberta(input_ids, padding_idx)),
        "grid": (grid is not None, lambda: _mistakes.of_grid(grid, order)),
        "offset": (offset is not None, lambda: _mistakes.of_offset(given, offset)),
    }
    described = {name: wanted for name, (named, wanted) in descriptions.items() if named}
    if len(described) > 1:
        raise ValueError(f"a batch must be described in one way, got {' and '.join(described)}")
    return Report((*findings, *_checked(given, axes, next(iter(described.items()), None), cu_seqlens)))


def _checked(
    given: Numbers, axes: int, described: tuple[str, Callable[[], _mistakes.Wanted]] | None, cu_seqlens: Any
) -> Iterator[Finding]:
    """Yield what is wrong with the values: on their own, or held to what the description wants."""
    if described is None:
        yield from _negative(given)
        yield from _not_increasing(given) if axes == 1 else ()
    elif axes > 1 and described[0] != "grid":
        if described[0] != "cu_seqlens":
            raise ValueError(f"positions of several axes must be described by cu_seqlens or a grid, got {described[0]}")
        yield from _negative(given)
        yield from _starts(given, cu_seqlens)
    else:
        yield from _compared(given, described[1]())


def _read(positions: Any) -> Numbers:
    """Return positions as an array, 16-bit floats widened."""
    if _dtype(positions) in _COUNTS_TO:
        positions = positions.float() if hasattr(positions, "float") else positions.astype(np.float32)
    array = _arrays.array("positions", positions)
    if not array.size or not array.ndim:
        raise ValueError(f"positions must have shape (seq,) or more axes, and not be empty, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"positions must be finite, got {array[~np.isfinite(array)][0]}")
    return array if array.dtype.kind == "f" else array.astype(np.int64)  # differences of unsigned ones would wrap


def _dtype(positions: Any) -> str:
    return str(getattr(positions, "dtype", "")).removeprefix("torch.")


def _half_precision(positions: Any) -> Iterator[Finding]:
    dtype = _dtype(positions)
    if dtype in _COUNTS_TO:
        explanation = f"{dtype} tells integers apart up to {_COUNTS_TO[dtype]} only, positions beyond fall together"
        yield Finding("half_precision", f"dtype {dtype}", explanation, "keep positions as integers, out of any cast")


def _axes_mistaken(given: Numbers, axes: int, cu_seqlens: Any) -> Iterator[Finding]:
    where = f"shape {given.shape}"
    if axes == 1 and given.ndim == 3:
        explanation = "these are positions of several axes, as M-RoPE has them, where one axis is expected"
        yield Finding("axes", where, explanation, "pass positions[0] to a rotation of one axis, or say axes=3")
    elif axes > 1 and (given.ndim not in (2, 3) or len(given) != axes):
        raise ValueError(f"positions must have shape ({axes}, seq) or ({axes}, batch, seq), got {given.shape}")
    elif axes > 1 and cu_seqlens is not None and _arrays.boundaries(cu_seqlens)[-1] == given.size:
        explanation = f"cu_seqlens counts the {axes} position axes as if they were sequences one after the other"
        yield Finding(
            "axes", where, explanation, "make cu_seqlens from the documents' lengths, not from these positions"
        )
    elif given.ndim > 2 and axes == 1:
        raise ValueError(f"positions must have shape (seq,) or (batch, seq), got {given.shape}")


def _negative(given: Numbers) -> Iterator[Finding]:
    wrong = given < 0
    if wrong.any():
        explanation = "positions count from 0, and cumsum(mask) - 1 leaves -1 at padding"
        yield Finding("negative", _where(wrong), explanation, "use from_attention_mask(attention_mask)")


def _not_increasing(given: Numbers) -> Iterator[Finding]:
    wrong = np.zeros(given.shape, bool)
    wrong[..., 1:] = np.diff(given, axis=-1) <= 0
    if wrong.any():
        remedy = "describe the batch: cu_seqlens=, if documents are packed, attention_mask=, if it is padded"
        yield Finding("not_increasing", _where(wrong), "a position is not larger than the one before", remedy)


def _starts(given: Numbers, cu_seqlens: Any) -> Iterator[Finding]:
    """Yield the documents that do not begin at 0 on every axis."""
    cu = _arrays.boundaries(cu_seqlens)
    if cu[-1] > given.shape[-1]:
        raise ValueError(f"cu_seqlens must end within the {given.shape[-1]} tokens of positions, got {cu[-1]}")
    wrong = np.zeros(given.shape, bool)
    starts = cu[:-1][np.diff(cu) > 0]
    wrong[..., starts] = given[..., starts] != 0
    if wrong.any():
        remedy = "build each document's positions on its own, and join them"
        yield Finding("not_reset", _where(wrong), "a document does not begin at 0 on every axis", remedy)


def _aligned(given: Numbers, wanted: _mistakes.Wanted) -> tuple[Numbers, ...]:
    """Return given, wanted and counting positions, and each mistake's, in one shape: a row may stand for a batch."""
    every = [wanted.positions, wanted.counts, *(mistake.positions for mistake in wanted.mistakes)]
    if given.ndim == 3:
        every = [x[:, None] for x in every]
    try:
        aligned = np.broadcast_arrays(given, *every)
    except ValueError:
        aligned = None
    if aligned is None or given.shape[-1] != every[0].shape[-1]:
        raise ValueError(f"positions must have shape {wanted.positions.shape}, got {given.shape}") from None
    return aligned


def _compared(given: Numbers, wanted: _mistakes.Wanted) -> Iterator[Finding]:
    """Yield the mistake that gives these positions, if they are not the wanted ones."""
    given, right, counts, *mistaken = _aligned(given, wanted)
    yield from _negative(np.where(counts, given, 0))
    wrong = (given != right) & counts
    if not wrong.any():
        return
    where, remedy = _where(wrong), f"use {wanted.call}"
    for mistake, positions in zip(wanted.mistakes, mistaken, strict=True):
        if np.array_equal(given[counts], positions[counts]):
            yield Finding(mistake.kind, where, mistake.explanation, remedy)
            return
    by = np.unique((given - right)[counts])
    if len(by) == 1:
        kind = "off_by_one" if abs(by[0]) == 1 else "shifted"
        explanation = f"every position is too {'large' if by[0] > 0 else 'small'} by {abs(by[0])}"
    else:
        place = tuple(np.argwhere(wrong)[0])
        kind = "different"
        explanation = f"the position there is {given[place]}, not {right[place]}, and no known mistake gives these"
    yield Finding(kind, where, explanation, remedy)


def _where(wrong: npt.NDArray[np.bool_]) -> str:
    first = [int(i) for i in np.argwhere(wrong)[0]]
    return f"{int(wrong.sum())} of {wrong.size}, first at {first[0] if len(first) == 1 else tuple(first)}"
