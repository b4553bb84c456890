"""What test_same_bits.py hashes: inputs that integer arithmetic makes, and tables and rotations of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

import posenc

Array = np.ndarray
KIND_NAMES = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
KINDS = {name: np.dtype(getattr(ml_dtypes if name == "bfloat16" else np, name)) for name in KIND_NAMES}
# angles within 2^-82 of a multiple of pi/2, relative (test_exactness.py searches for such): the slow path runs
HARD = [float.fromhex("0x1.b951f1572eba5p+25"), float.fromhex("0x1.b951f1572eba5p+29"), 534483448.0]


@dataclass(frozen=True)
class Way:
    """How to come to a result: `shift` elements past a 64-byte boundary, in `pieces` slices of the sequence."""

    shift: int = 0
    pieces: int = 1
    threads: int = 1


# ---- inputs: Philox and integer arithmetic, no libm, exact conversions ----


def raw(key: int, n: int) -> Array:
    return np.random.Philox(key=key).random_raw(n)


def numbers(kind: str, shape: tuple[int, ...], key: int) -> Array:
    """Finite numbers of many magnitudes and either sign; 16-bit ones are all patterns below 2, subnormals too."""
    bits = raw(key, int(np.prod(shape)))
    if KINDS[kind].itemsize == 2:
        return (bits & 0xBFFF).astype(np.uint16).view(KINDS[kind]).reshape(shape)
    mantissa = (bits >> 16).astype(np.int64) - 2**47
    if kind == "float32":
        mantissa >>= 24
    power_of_two = (1 << (bits & 15).astype(np.int64)).astype(np.float64)
    return (mantissa.astype(np.float64) / power_of_two).astype(KINDS[kind]).reshape(shape)


def integers(n: int, below: int, key: int) -> Array:
    return (raw(key, n) % below).astype(np.int64)


def placed(x: Array, shift: int) -> Array:
    """Return a copy that starts `shift` elements past a 64-byte boundary."""
    memory = np.empty(x.nbytes + 256, np.uint8)
    start = -memory.ctypes.data % 64 + shift * x.itemsize
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


def slices(way: Way, n: int) -> Iterator[slice]:
    """Yield uneven parts."""
    cuts = [0, *sorted({(n * (2 * i + 1)) // (2 * way.pieces + 1) for i in range(1, way.pieces)}), n]
    yield from (slice(a, b) for a, b in itertools.pairwise(cuts))


def bits_of(x: Array) -> Array:
    return np.ascontiguousarray(x).view(f"u{x.itemsize}")


def joined(parts: Iterator[Array]) -> Array:
    """Put slices of a sequence together again, as bits."""
    return np.concatenate([bits_of(part) for part in parts], axis=-2)


# ---- outputs ----

POSITIONS = {
    "counting": np.arange(70),
    "far": integers(70, 2**31 - 200, key=1),
    "fractions": integers(70, 2**48, key=2) / 2**20 - 2**27,
    "hard": np.array(HARD),
}


def table_arrays(way: Way, dtype: type, **options: Any) -> Iterator[Array]:
    """Both tables of every kind of positions, several widths."""
    for base, width in ((1e4, 128), (5e5, 34), (12345.678, 2), (1e6, 18)):
        inv_freq = posenc.Rope(width, layout="half", base=base).inv_freq
        for positions in POSITIONS.values():
            for i in (0, 1):
                tables = [
                    posenc.rotary_table(placed(positions[part], way.shift), inv_freq, dtype=dtype, **options)[i]
                    for part in slices(way, len(positions))
                ]
                yield np.concatenate(tables)


def table_arrays_out(way: Way, dtype: type) -> Iterator[Array]:
    """Strided outputs, several axes, per-batch positions, rows wider than a tile."""
    inv_freq = posenc.Rope(64, layout="half").inv_freq
    out = tuple(np.zeros((70, 64), dtype)[:, ::2] for _ in range(2))
    yield from posenc.rotary_table(POSITIONS["far"], inv_freq, dtype=dtype, out=out)
    axes = integers(32, 3, key=3)
    positions = placed(integers(3 * 2 * 9, 100000, key=4).reshape(3, 2, 9), way.shift)
    yield from posenc.rotary_table(positions, inv_freq, axis_of_freq=axes, dtype=dtype, scale=1.25)
    wide = posenc.Rope(4102, layout="half").inv_freq
    yield from posenc.rotary_table(POSITIONS["far"][:5], wide, dtype=dtype)


def rotated(way: Way, kind: str, layout: str, head_dim: int, key: int, **how: Any) -> Array:
    """Rotate (2, 3, 41, head_dim) by a Rope, out of place."""
    inverse = how.pop("inverse", False)
    rope = posenc.Rope(head_dim, layout=layout, **how)
    x = placed(numbers(kind, (2, 3, 41, head_dim), key), way.shift)
    return joined(rope(x[:, :, part], offset=1000 + part.start, inverse=inverse) for part in slices(way, 41))


def rotations(way: Way, kind: str) -> Iterator[Array]:
    """Every layout: widths with tails, an inner range, odd heads, the inverse, the float32 recipe."""
    for layout in LAYOUTS:
        for head_dim in (2, 6, 18, 34, 64, 66, 98, 128, 130):
            yield rotated(way, kind, layout, head_dim, key=head_dim)
        yield rotated(way, kind, layout, 80, key=10, rotary_dim=34, rotary_offset=7)
        yield rotated(way, kind, layout, 21, key=11)
        yield rotated(way, kind, layout, 63, key=12, base=5e5)
        yield rotated(way, kind, layout, 64, key=13, inverse=True)
        yield rotated(way, kind, layout, 96, key=14, precision="float32")
        given = posenc.scaling.InverseFrequencies(tuple(1 / 3**i for i in range(32)), 1.25)
        yield rotated(way, kind, layout, 64, key=15, scaling=given)
        yield rotated(way, kind, layout, 4100, key=16, rotary_dim=4098)


def strided(way: Way, kind: str) -> Iterator[Array]:
    """Transposed, reversed, every second element; in place and with outputs of another stride."""
    for layout in LAYOUTS:
        rope = posenc.Rope(48, layout=layout)
        x = placed(numbers(kind, (2, 29, 3, 48), key=20), way.shift)
        yield joined(rope(x[:, part].transpose(0, 2, 1, 3), offset=part.start) for part in slices(way, 29))
        yield rope(x, seq_axis=-3)
        yield rope(x[:, ::-1], seq_axis=1)
        y = placed(numbers(kind, (2, 29, 96), key=21), way.shift)
        yield rope(y[..., ::2])
        yield rope(y[..., ::-2], out=y[..., ::2])
        yield y
        yield rope(x, seq_axis=1, out=x)


def own_positions(way: Way, kind: str) -> Iterator[Array]:
    """Positions and offsets for each batch row, several axes, fractions, the hard ones."""
    for layout in LAYOUTS:
        x = placed(numbers(kind, (4, 2, 33, 72), key=30), way.shift)
        rope = posenc.Rope(72, layout=layout)
        rows = integers(4 * 33, 2**30, key=31).reshape(4, 33)
        yield joined(rope(x[:, :, part], positions=rows[:, part]) for part in slices(way, 33))
        starts = integers(4, 2**30, key=32)
        yield joined(rope(x[:, :, part], offset=starts + part.start) for part in slices(way, 33))
        yield rope(x[:, :, :3], positions=np.array(HARD))
        tokens = placed(numbers(kind, (67, 3, 1, 72), key=35), way.shift)
        yield rope(tokens, offset=integers(67, 2**30, key=36))
        yield rope(tokens, tokens[:, :2], offset=integers(67, 2**30, key=37))[1]
        yield rope(x, positions=POSITIONS["fractions"][:33])
        by_axis = posenc.Rope(72, layout=layout, axis_of_freq=integers(36, 3, key=33))
        places = integers(3 * 4 * 33, 5000, key=34).reshape(3, 4, 33)
        yield joined(by_axis(x[:, :, part], positions=places[..., part]) for part in slices(way, 33))


def by_tables(way: Way, kind: str) -> Iterator[Array]:
    """Ready tables: longer than the sequence, conjugated, looked up, strided, per batch row."""
    dtype = np.float64 if kind == "float64" else np.float32
    cos, sin = (placed(t, way.shift) for t in posenc.Rope(40, layout="half").table(64, dtype=dtype))
    x = placed(numbers(kind, (2, 3, 31, 43), key=40), way.shift)
    for layout in LAYOUTS:
        how = {"layout": layout, "rotary_offset": 1}
        yield joined(apply(x[:, :, part], cos, sin, offset=part.start, **how) for part in slices(way, 31))
        yield apply(x, cos, sin, conjugate=True, **how)
        yield apply(x, cos, sin, positions=integers(31, 64, key=41), **how)
        yield apply(x, cos[::-2], sin[::-2], **how)
        yield apply(x, np.stack([cos, sin]), np.stack([sin, cos]), **how)
        yield apply(x, np.asfortranarray(cos), np.asfortranarray(sin), **how)


apply = posenc.apply_rotary_emb


def large(way: Way, kind: str) -> Iterator[Array]:
    """Above 4 MiB, where calls are split."""
    heads = 32 // KINDS[kind].itemsize
    shape, shape_bshd = (1, heads, 4100, 40), (1, 4100, heads, 40)
    x, y = (placed(numbers(kind, s, key=50), way.shift) for s in (shape, shape_bshd))
    rope = posenc.Rope(40, layout="half")
    yield joined(rope(x[:, :, part], x[:, :1, part], offset=part.start)[0] for part in slices(way, 4100))
    yield posenc.Rope(40, layout="interleaved")(y, seq_axis=-3, out=y)
    yield apply(y, *rope.table(4100, dtype=np.float64 if kind == "float64" else np.float32), layout="half", seq_axis=1)
    many = placed(numbers(kind, (2100, heads, 2, 40), key=51), way.shift)
    yield rope(many, offset=integers(2100, 2**30, key=52))
    rows = integers(2100 * 2, 2**30, key=54).reshape(2100, 2)
    yield rope(many, positions=rows)
    yield apply(many, *rope.table(rows, dtype=np.float64 if kind == "float64" else np.float32), layout="half")
    by_axis = posenc.Rope(40, layout="interleaved_to_half", axis_of_freq=integers(20, 3, key=55))
    yield by_axis(many, positions=integers(3 * 2100 * 2, 5000, key=56).reshape(3, 2100, 2))


def large_tables(way: Way) -> Iterator[Array]:
    rope = posenc.Rope(128, layout="half")
    positions = integers(12000, 2**31 - 200, key=53)
    for dtype in (np.float32, np.float64):
        yield joined(rope.table(positions[part], dtype=dtype)[0] for part in slices(way, 12000))
        yield rope.table(12000, dtype=dtype)[1]


def streamed(way: Way) -> Iterator[Array]:
    """Above 32 MiB, where results are written past the caches: whole calls only."""
    for kind in ("float32", "bfloat16"):
        x = placed(numbers(kind, (2, 4400, 32 * 4 // KINDS[kind].itemsize, 31), key=60), way.shift)
        yield posenc.Rope(31, layout="half", rotary_dim=30)(x, seq_axis=1)
    yield posenc.Rope(120, layout="half").table(37000)[0]
