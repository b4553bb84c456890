"""Which elements of a head turn together, read from the matrices of a few positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Complex = npt.NDArray[np.complex128]
    Pair = tuple[int, int]

_NOTHING = 1e-9  # what a matrix holds where nothing flows; mostly an exact zero


@dataclass(frozen=True)
class Structure:
    """Pairs of inputs and the pairs of outputs they go to, sorted by the first input.

    Attributes
    ----------
    inputs, outputs : tuple of (int, int)
    blocks : ndarray of float64, shape (seq, pairs, 2, 2)
        What takes each pair of inputs to its outputs.
    still : tuple of int
        Elements that pass through at every position.
    lone : tuple of int
        Elements that are scaled by their position, with no partner: the last pair of an odd head.
    mixed : tuple of int
        Outputs that depend on more than two inputs, or on others' inputs: no pairs.
    moved : tuple of (int, int)
        (input, output) of elements that only change their place.
    """

    inputs: tuple[Pair, ...]
    outputs: tuple[Pair, ...]
    blocks: Floats
    still: tuple[int, ...]
    lone: tuple[int, ...]
    mixed: tuple[int, ...]
    moved: tuple[Pair, ...]

    @property
    def first(self) -> Complex:
        """Cos + i sin by which the first element of each pair is made, shape (seq, pairs)."""
        with np.errstate(invalid="ignore"):  # infinite where a scale has left float32
            return self.blocks[:, :, 0, 0] - 1j * self.blocks[:, :, 0, 1]

    @property
    def second(self) -> Complex:
        """Cos + i sin by which the second element of each pair is made, shape (seq, pairs)."""
        with np.errstate(invalid="ignore"):
            return self.blocks[:, :, 1, 1] + 1j * self.blocks[:, :, 1, 0]


def structure(matrices: Floats) -> Structure:
    """Return the pairs of matrices of shape (seq, head_dim, head_dim); NaN and infinities are left out."""
    finite = matrices[np.isfinite(matrices).all(axis=(1, 2))]
    flows = np.asarray((np.abs(finite) > _NOTHING).any(axis=0))  # (out, in)
    pairs, lone, still, moved, mixed = [], [], [], [], []
    for inputs, outputs in _components(flows):
        if len(inputs) == len(outputs) == 2:
            pairs.append(((inputs[0], inputs[1]), (outputs[0], outputs[1])))
        elif len(inputs) == len(outputs) == 1:
            values = finite[:, outputs[0], inputs[0]]
            constant = np.allclose(values, values[0], rtol=0, atol=1e-6)
            if not constant:
                lone.append(inputs[0])
            elif inputs == outputs:
                still.append(inputs[0])
            else:
                moved.append((inputs[0], outputs[0]))
        else:
            mixed += outputs or inputs
    pairs.sort()
    ins, outs = tuple(pair for pair, _ in pairs), tuple(pair for _, pair in pairs)
    blocks = np.empty((len(matrices), len(pairs), 2, 2))
    for i, (a, u) in enumerate(pairs):
        blocks[:, i] = matrices[:, list(u)][:, :, list(a)]
    return Structure(ins, outs, blocks, tuple(still), tuple(lone), tuple(sorted(mixed)), tuple(moved))


def _components(flows: npt.NDArray[np.bool_]) -> list[tuple[list[int], list[int]]]:
    """Return (inputs, outputs) of each connected part."""
    todo, parts = set(range(flows.shape[1])), []
    reached = [np.flatnonzero(column).tolist() for column in flows.T]
    sources = [np.flatnonzero(row).tolist() for row in flows]
    while todo:
        inputs: set[int] = set()
        outputs: set[int] = set()
        fresh = {min(todo)}
        while fresh:
            inputs |= fresh
            new = {o for i in fresh for o in reached[i]} - outputs
            outputs |= new
            fresh = {i for o in new for i in sources[o]} - inputs
        todo -= inputs
        parts.append((sorted(inputs), sorted(outputs)))
    return parts


@dataclass(frozen=True)
class Layout:
    """Where the pairs lie.

    Attributes
    ----------
    name : str
        A layout of `posenc.Rope`; "half_to_interleaved" (its inverse); "blocks" (halves of separate blocks); "" else.
    rotary_offset, rotary_dim : int
        The range of a head that the pairs fill.
    blocks : tuple of (int, int)
        (first element, width) of each block for "blocks".
    pairs : tuple of int
        The number of each found pair among those that the layout has; others do not turn.
    """

    name: str
    rotary_offset: int
    rotary_dim: int
    blocks: tuple[Pair, ...] = ()
    pairs: tuple[int, ...] = ()


def members(name: str, start: int, width: int) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of inputs and of outputs of a layout over a range."""
    half = width // 2
    halves = [(start + i, start + i + half) for i in range(half)]
    neighbours = [(start + 2 * i, start + 2 * i + 1) for i in range(half)]
    return {
        "half": (halves, halves),
        "interleaved": (neighbours, neighbours),
        "interleaved_to_half": (neighbours, halves),
        "half_to_interleaved": (halves, neighbours),
    }[name]


def lay_out(found: Structure, head_dim: int) -> Layout | None:
    """Return where the pairs lie, or None where no rule is known."""
    if not found.inputs:
        return None
    if head_dim % 2 and len(found.lone) == 1:
        return _odd(found, head_dim)
    touched = sorted(
        {e for pair in (*found.inputs, *found.outputs) for e in pair} | {e for m in found.moved for e in m}
    )
    first, last = touched[0], touched[-1]
    distances = {b - a for a, b in found.inputs}
    ranges = [(first, last + 1 - first)]
    if len(distances) == 1 and found.inputs == found.outputs and distances != {1}:
        # the pairs found may be some of a wider range: the others do not turn. Smallest range first
        half = distances.pop()
        ranges += [(start, 2 * half) for start in _starts(found.inputs, half, head_dim)]
    for start, width in ranges:
        if width % 2:
            continue
        for name in ("half", "interleaved", "interleaved_to_half", "half_to_interleaved"):
            ins, outs = members(name, start, width)
            if start + width <= head_dim and _are_some(found, ins, outs):
                index = {pair: i for i, pair in enumerate(ins)}
                return Layout(name, start, width, (), tuple(index[pair] for pair in found.inputs))
    return _blocks(found)


def _odd(found: Structure, head_dim: int) -> Layout | None:
    """Return the layout of a whole odd head: one wider, and the pair that would have the last element is not whole."""
    for name in ("half", "interleaved", "interleaved_to_half"):
        ins, outs = members(name, 0, head_dim + 1)
        whole = [i for i, pair in enumerate(zip(ins, outs, strict=True)) if head_dim not in {*pair[0], *pair[1]}]
        if found.inputs == tuple(ins[i] for i in whole) and found.outputs == tuple(outs[i] for i in whole):
            return Layout(name, 0, head_dim + 1, (), tuple(whole))
    return None


def _starts(pairs: tuple[Pair, ...], half: int, head_dim: int) -> list[int]:
    """Return the starts of a range of two halves that could hold the pairs: at its first pair, or with the head."""
    first, last = pairs[0][0], pairs[-1][0]
    return [s for s in dict.fromkeys((0, head_dim - 2 * half, first)) if s >= 0 and s <= first and last < s + half]


def _are_some(found: Structure, ins: list[Pair], outs: list[Pair]) -> bool:
    goes = dict(zip(ins, outs, strict=True))
    if any(goes.get(a) != u for a, u in zip(found.inputs, found.outputs, strict=True)):
        return False
    places = {a: u for pair, to in goes.items() for a, u in zip(pair, to, strict=True)}
    return all(places.get(a) == u for a, u in found.moved)


def _blocks(found: Structure) -> Layout | None:
    """Return blocks of halves that follow one another, or None."""
    if found.inputs != found.outputs:
        return None
    blocks, rest = [], list(found.inputs)
    while rest:
        start, half = rest[0][0], rest[0][1] - rest[0][0]
        ins, _ = members("half", start, 2 * half)
        if rest[:half] != ins:
            return None
        blocks.append((start, 2 * half))
        rest = rest[half:]
    first = blocks[0][0]
    return Layout("blocks", first, sum(w for _, w in blocks), tuple(blocks), tuple(range(len(found.inputs))))
