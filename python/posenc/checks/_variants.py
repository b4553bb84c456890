"""A right rotation with one thing wrong: what each fault would make of the same input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc._frequencies import unscaled
from posenc.checks._halves import of_halves
from posenc.checks._pairs import members
from posenc.checks._ropes import changed, given, with_axes
from posenc.checks._sample import Sample, Variant, pairs_of
from posenc.checks._spectrum import BASES
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def variants(sample: Sample) -> Iterator[Variant]:
    """Yield what could be wrong, the likelier first."""
    for family in (
        of_halves,
        _of_pairs,
        _of_elements,
        _of_positions,
        _of_lengths,
        _of_range,
        _of_frequencies,
        _of_axes,
    ):
        yield from family(sample)


# ---- which elements


def _of_pairs(sample: Sample) -> Iterator[Variant]:
    rope = sample.rope
    if rope.rotary_dim % 2:
        return
    first, width = rope.rotary_offset, rope.rotary_dim
    for name in ("half", "interleaved", "interleaved_to_half", "half_to_interleaved"):
        if name != rope.layout:

            def laid(name: str = name) -> Floats:
                table = sample.table()
                return sample.by_pairs(*members(name, first, width), table, table)

            yield Variant("layout", f"{name}, expected {rope.layout}", laid)
    kind = "half" if rope.layout == "half" else "interleaved"
    column = _columns_of_the_other_form(kind, width)

    def mixed() -> Floats:
        cos, sin = sample.table()
        (c, s), (c2, s2) = ((cos[..., k], sin[..., k]) for k in column)
        return sample.by_pairs(*pairs_of(rope), (c, s), (c2, s2))

    form = "repeated (c0 c0 c1 c1)" if kind == "half" else "doubled (c0 c1 c0 c1)"
    yield Variant("tables_of_other_layout", f"{kind} pairs, {form} table", mixed)


def _columns_of_the_other_form(kind: str, width: int) -> tuple[Any, Any]:
    """Return which frequency turns the first and the second element of each pair where the table has the other form."""
    ins, _ = members(kind, 0, width)
    element = np.array(ins)
    frequency = element // 2 if kind == "half" else element % (width // 2)
    return frequency[:, 0], frequency[:, 1]


def _of_elements(sample: Sample) -> Iterator[Variant]:
    rope, (ins, outs) = sample.rope, pairs_of(sample.rope)
    if rope.rotary_dim % 2:
        return

    def with_table(change: Callable[[Any, Any], tuple[Any, Any, Any, Any]]) -> Callable[[], Floats]:
        def make() -> Floats:
            c, s, c2, s2 = change(*sample.table())
            return sample.by_pairs(ins, outs, (c, s), (c2, s2))

        return make

    factor = rope.attention_factor
    yield Variant("clockwise", "sin negated", with_table(lambda c, s: (c, -s, c, -s)))
    yield Variant("swapped_cos_sin", "", with_table(lambda c, s: (s, c, s, c)))
    yield Variant("missing_minus", "plus in both elements", with_table(lambda c, s: (c, -s, c, s)))
    yield Variant("missing_minus", "minus in both elements", with_table(lambda c, s: (c, s, c, -s)))
    yield Variant("overwritten_in_place", "", with_table(lambda c, s: (c, s, c - s * s, c * s)))
    yield Variant("cosine_only", "", with_table(lambda c, s: (c, 0 * s, c, 0 * s)))
    yield Variant("not_rotated", "the input comes back", sample.x.copy)
    yield Variant(
        "not_rotated", f"the input comes back times {factor:g}", with_table(lambda c, s: (factor, 0, factor, 0))
    )
    yield Variant("rotated_twice", "", partial(sample.by, given, rope, 2 * rope.inv_freq, factor**2))
    if factor != 1:
        for name, other in (("left out", 1.0), ("squared", factor**2), ("divided by", 1 / factor)):
            detail = f"{name}: {other:g}, expected {factor:g}"
            yield Variant("attention_factor", detail, partial(sample.by, given, rope, rope.inv_freq, other))


# ---- positions


def _of_positions(sample: Sample) -> Iterator[Variant]:
    rope, where = sample.rope, sample.positions
    counting = np.broadcast_to(np.arange(where.shape[-1], dtype=np.float64), where.shape)
    yield Variant("positions_ignored", "0, 1, 2, .. for every call", partial(sample.turned, None, counting))
    if sample.x.ndim >= 3 and where.ndim == 1:
        heads = np.arange(sample.x.shape[-3], dtype=np.float64)

        def by_head() -> Floats:
            turned = Sample(np.swapaxes(sample.x, -3, -2), heads, rope).turned()
            return np.swapaxes(turned, -3, -2)

        yield Variant("heads_for_positions", "", by_head)
    for k in (1, -1, 2, -2, 0.5, *range(3, 9), *range(-8, -2)):
        detail = f"positions {k:+g}"
        yield Variant("offset", detail, partial(sample.turned, None, where + k))
    largest = int(np.max(where, initial=0))
    lengths = [2**k for k in range(2, 31) if 2**k <= largest]
    for n in lengths:
        yield Variant("clamped_positions", f"at {n - 1}", partial(sample.turned, None, np.minimum(where, n - 1)))
        yield Variant("wrapped_positions", f"modulo {n}", partial(sample.turned, None, where % n))

        def masked(n: int = n) -> Floats:
            inside: Any = where < n
            keep = sample.spread((inside.all(axis=0) if rope.axes > 1 else inside)[..., None])
            return np.where(keep, sample.turned(), sample.x)

        yield Variant("unrotated_beyond", f"from position {n} on", masked)


# ---- frequencies


def _of_lengths(sample: Sample) -> Iterator[Variant]:
    if sample.family is None:
        return
    trained = sample.family.scaling.effective_length(1)
    for n in dict.fromkeys(
        (1, trained, trained + 1, *(trained * 2**k for k in range(1, 12)), *(2**k for k in range(5, 21)))
    ):
        other = sample.family.at(n)
        if other != sample.rope:
            yield Variant("length", f"of {n} tokens", partial(sample.turned, other))


def _of_frequencies(sample: Sample) -> Iterator[Variant]:
    rope = sample.rope
    if rope.scaling is not None and rope.base is not None:
        yield Variant(
            "scaling",
            f"none, expected {type(rope.scaling).__name__}",
            partial(sample.by, changed, rope, scaling=None),
        )
        factor = getattr(rope.scaling, "factor", None)
        if factor:
            plain = changed(rope, scaling=None)
            for name, other in (
                ("linear", plain.inv_freq / factor),
                ("applied twice", rope.inv_freq**2 / plain.inv_freq),
            ):
                yield Variant("scaling", name, partial(sample.by, given, rope, other))
            ntk = unscaled(_width(rope), rope.base * factor ** (_width(rope) / max(1, _width(rope) - 2)))
            yield Variant("scaling", "NTK-aware", partial(sample.by, given, rope, ntk))
    if rope.base is not None:
        for base in BASES:
            if base != rope.base:
                yield Variant("base", f"{base:g}, expected {rope.base:g}", partial(sample.by, changed, rope, base=base))
    for factor in (2.0, 4.0, 8.0, 16.0, 32.0, 0.5, 0.25, 0.125):
        yield Variant(
            "scaled_positions",
            f"divided by {factor:g}",
            partial(sample.by, given, rope, rope.inv_freq / factor),
        )
    scales = (2 * np.arange(len(rope.inv_freq)) + 0.4 * _width(rope)) / (1.4 * _width(rope))
    yield from (_xpos(sample, scales, sign) for sign in (1, -1))


def _xpos(sample: Sample, scales: Any, sign: int) -> Variant:
    def make() -> Floats:
        power = scales ** (sign * (sample.positions if sample.rope.axes == 1 else sample.positions[0])[..., None] / 512)
        cos, sin = sample.table()
        grown = sample.spread(power)
        return sample.by_pairs(*pairs_of(sample.rope), (cos * grown, sin * grown), (cos * grown, sin * grown))

    return Variant("xpos", "as a query" if sign > 0 else "as a key", make)


def _width(rope: Rope) -> int:
    return 2 * len(rope.inv_freq)


# ---- parts of a head


def _of_range(sample: Sample) -> Iterator[Variant]:
    rope = sample.rope
    head, width, first = rope.head_dim, rope.rotary_dim, rope.rotary_offset
    if rope.axes > 1 or head % 2:
        return
    if width < head:
        freqs = rope.inv_freq
        if rope.base is not None and rope.scaling is None:
            over = unscaled(head, rope.base)
            yield Variant("frequencies_over_head", "", partial(sample.by, given, rope, over[: width // 2]))
            yield Variant(
                "rotary_range", f"all {head} elements, expected {width}",
                partial(sample.by, changed, rope, rotary_dim=head, rotary_offset=0),
            )  # fmt: skip
        wide = np.concatenate([freqs, np.zeros(head // 2 - len(freqs))])
        yield Variant(
            "pairs_over_head", f"(i, i + {head // 2}), expected (i, i + {width // 2})",
            partial(sample.by, Rope, head, layout="half", inv_freq=wide),
        )  # fmt: skip
        for other in {0, head - width} - {first}:
            detail = f"elements {other} to {other + width - 1}, expected {first} to {first + width - 1}"
            yield Variant("rotary_range", detail, partial(sample.by, changed, rope, rotary_offset=other))
    for part in (2, 4):
        if (width // part) % 2 == 0 and width // part >= 2 and rope.base is not None:
            detail = f"{width // part} elements, expected {width}"
            yield Variant("rotary_range", detail, partial(sample.by, changed, rope, rotary_dim=width // part))


# ---- several axes


def _of_axes(sample: Sample) -> Iterator[Variant]:
    rope, axis_of = sample.rope, sample.rope.axis_of_freq
    if axis_of is None:
        return
    names = [str(a) for a in range(rope.axes)]
    for order in itertools.permutations(range(rope.axes)):
        if order != tuple(range(rope.axes)) and rope.axes <= 4:
            detail = f"({', '.join(names[a] for a in order)}), expected ({', '.join(names)})"
            yield Variant("swapped_axes", detail, partial(sample.turned, None, sample.positions[list(order)]))
    for a in range(rope.axes):
        same = np.broadcast_to(sample.positions[a], sample.positions.shape)
        yield Variant("one_axis", f"axis {a} for every pair", partial(sample.turned, None, np.array(same)))
    counts = np.bincount(axis_of, minlength=rope.axes)
    orders = dict.fromkeys(itertools.permutations(counts.tolist())) if rope.axes <= 4 else [tuple(counts.tolist())]
    for sections in (tuple(counts.tolist()), *orders):  # its own first
        for name, other in _arranged(sections):
            if not np.array_equal(other, axis_of) and other.max() == rope.axes - 1:
                shown = name if sections == tuple(counts) else f"{list(sections)} {name}, expected {counts.tolist()}"
                yield Variant("sections", shown, partial(sample.by, with_axes, rope, other))
    if rope.layout == "half" and rope.rotary_dim % 2 == 0:
        yield Variant("axes_within_pairs", "sections of the doubled width", partial(_split_doubled, sample, counts))


def _arranged(sections: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Yield which axis turns each pair, by sections one after the other, and in turns."""
    axes = len(sections)
    yield "chunked", np.repeat(np.arange(axes), sections)
    turns = np.zeros(sum(sections), np.int64)
    for a in range(1, axes):
        turns[a : axes * sections[a] : axes] = a
    yield "interleaved", turns


def _split_doubled(sample: Sample, counts: Any) -> Floats:
    """Sections of the doubled table taken without regard to the pairs (HunYuan-VL)."""
    rope, half = sample.rope, len(sample.rope.inv_freq)
    column_axis = np.repeat(np.arange(rope.axes), 2 * counts)
    tables = [sample.table(with_axes(rope, None), sample.positions[a]) for a in range(rope.axes)]
    first, second = (_columns(tables, column_axis[part]) for part in (slice(None, half), slice(half, None)))
    return sample.by_pairs(*pairs_of(rope), first, second)


def _columns(tables: list[tuple[Floats, Floats]], axis_of: Any) -> tuple[Floats, Floats]:
    """Return cosines and sines whose columns come from the tables of their axes."""
    cos, sin = (np.stack([table[part] for table in tables]) for part in (0, 1))
    pair = np.arange(len(axis_of))
    return np.moveaxis(cos[axis_of, ..., pair], 0, -1), np.moveaxis(sin[axis_of, ..., pair], 0, -1)
