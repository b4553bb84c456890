"""The same bits on every processor: one committed hash for each group of outputs, reached in every way there is.

Tables and rotations of every kind are computed from inputs that integer arithmetic makes, and hashed. The hashes in
tests/data/hashes.json must come out at every instruction set of this processor, with one thread and with two, from
aligned and misaligned memory, from the whole and from slices of it. Where a change of the numbers is meant, write the
file again, from the scalar level, and say in the commit which numbers moved and why:

    python tests/test_same_bits.py --write
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import posenc
from posenc import _core, runtime

Array = np.ndarray
HASHES = Path(__file__).resolve().parent / "data" / "hashes.json"
LEVELS = _core.runtime()[1]
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


WAYS = (Way(), Way(shift=1), Way(shift=3, pieces=4), Way(shift=2, threads=2), Way(pieces=3, threads=2))

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


def biases(way: Way, kind: str) -> Iterator[Array]:
    """Lines, lookups and masks: counted positions and listed ones, few queries and many; one call above 4 MiB."""
    slopes, table = posenc.alibi_slopes(6), numbers("float32", (32, 6), key=70)
    mask = {"causal": True, "window": 50, "sinks": 2}
    for queries, keys in ((37, 75), (3, 2100), (9, 130)):
        x = placed(numbers(kind, (2, 6, queries, keys), key=keys), way.shift)
        where = {"query_positions": integers(queries, 4000, key=71), "key_positions": integers(keys, 4000, key=72)}
        for options in ({}, mask, {**where, **mask}):
            rows = [(part, dict(options)) for part in slices(way, queries)]
            for part, own in rows:
                own["query_positions"] = own.get("query_positions", np.arange(keys - queries, keys))[part]
            yield joined(posenc.add_alibi(x[:, :, part], slopes, **own) for part, own in rows)
            yield joined(posenc.add_t5_bias(x[:, :, part], table, bidirectional=True, **own) for part, own in rows)
            yield posenc.add_alibi(x[..., ::-1], slopes, form="key", **options)
    many = placed(numbers(kind, (1, 6, 520, 2050 if kind != "float64" else 1025), key=73), way.shift)
    yield posenc.add_alibi(many, slopes, right_slopes=slopes[::-1], out=many)
    yield posenc.add_t5_bias(many, table, bidirectional=False, causal=True, out=many)


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


def sinusoids(way: Way) -> Iterator[Array]:
    """Tables of every convention, odd and wide, in both precisions and dtypes."""
    for name, convention in posenc.additive.CONVENTIONS.items():
        for dim in (6, 34, 63, 128, 2050, 4099):
            if dim % 2 and convention.odd == "refused":
                continue
            how = {"convention": name, "precision": "exact" if dim % 4 else "float32"}
            for positions in POSITIONS.values():
                for dtype in (np.float32, np.float64):
                    yield joined(
                        posenc.sinusoidal_table(placed(positions[part], way.shift), dim, dtype=dtype, **how)
                        for part in slices(way, len(positions))
                    )
    yield posenc.timestep_embedding(POSITIONS["fractions"][:20], 321, downscale_freq_shift=0.5, scale=1.5)
    yield posenc.sinusoidal_grid((5, 7), 32, convention="detr", normalise=True)


def sums(way: Way, kind: str) -> Iterator[Array]:
    """Rows of a table and rows that are made, added: by range, by position, strided, in place; and gradients."""
    dtype = np.float64 if kind == "float64" else np.float32
    for dim in (1, 31, 64, 130, 700):
        x = placed(numbers(kind, (2, 3, 41, dim), key=80 + dim), way.shift)
        table = placed(posenc.sinusoidal_table(60, dim, dtype=dtype), way.shift)
        rows, how = integers(41, 60, key=81), {"table_scale": 0.7}
        own = integers(2 * 41, 60, key=82).reshape(2, 41)
        yield joined(posenc.add_positions(x[:, :, p], table, offset=p.start, **how) for p in slices(way, 41))
        yield joined(posenc.add_positions(x[:, :, p], table, positions=rows[p], **how) for p in slices(way, 41))
        yield posenc.add_positions(x, table[:, ::-1], positions=own, padding_idx=7)
        yield posenc.add_positions(x, table.astype(x.dtype), positions=own)
        yield joined(posenc.add_sinusoidal(x[:, :, p], offset=999 + p.start, **how) for p in slices(way, 41))
        yield posenc.add_sinusoidal(x.transpose(2, 0, 1, 3), positions=np.resize(POSITIONS["hard"], 2), seq_axis=1)
        yield posenc.position_table_gradient(x, 60, positions=own, **how)
        yield posenc.add_positions(x[..., ::-1], table, out=x[..., ::-1])
    large = placed(numbers(kind, (3, 1500, 1100 // x.itemsize), key=83), way.shift)
    yield posenc.add_sinusoidal(large, out=large)
    yield posenc.position_table_gradient(large, 1500)


def streamed(way: Way) -> Iterator[Array]:
    """Above 32 MiB, where results are written past the caches: whole calls only."""
    for kind in ("float32", "bfloat16"):
        x = placed(numbers(kind, (2, 4400, 32 * 4 // KINDS[kind].itemsize, 31), key=60), way.shift)
        yield posenc.Rope(31, layout="half", rotary_dim=30)(x, seq_axis=1)
    yield posenc.Rope(120, layout="half").table(37000)[0]


GROUPS: dict[str, Callable[[Way], Iterator[Array]]] = {
    "frequencies": lambda _: (
        posenc.Rope(width, layout="half", base=base, precision=precision).inv_freq
        for base in (1e2, 1e4, 1.5e5, 5e5, 1e6, 12345.5)
        for width in (2, 64, 80, 128, 510)
        for precision in ("exact", "float32")
    ),
    "tables float32": lambda way: table_arrays(way, np.float32),
    "tables float64": lambda way: table_arrays(way, np.float64),
    "tables float32 recipe": lambda way: table_arrays(way, np.float32, precision="float32"),
    "tables float64 of float32 recipe": lambda way: table_arrays(way, np.float64, precision="float32"),
    "tables scaled": lambda way: table_arrays(way, np.float32, scale=1.3465735902799727),
    "tables out float32": lambda way: table_arrays_out(way, np.float32),
    "tables out float64": lambda way: table_arrays_out(way, np.float64),
    **{f"rotations {kind}": lambda way, kind=kind: rotations(way, kind) for kind in KINDS},
    **{f"strided {kind}": lambda way, kind=kind: strided(way, kind) for kind in KINDS},
    **{f"own positions {kind}": lambda way, kind=kind: own_positions(way, kind) for kind in KINDS},
    **{f"by tables {kind}": lambda way, kind=kind: by_tables(way, kind) for kind in KINDS},
    **{f"biases {kind}": lambda way, kind=kind: biases(way, kind) for kind in KINDS},
    **{f"large {kind}": lambda way, kind=kind: large(way, kind) for kind in KINDS},
    "large tables": large_tables,
    "sinusoids": sinusoids,
    **{f"sums {kind}": lambda way, kind=kind: sums(way, kind) for kind in KINDS},
}
STREAMED = {"streamed": streamed}


def digest(arrays: Iterator[Array]) -> str:
    """Hash the bits in little-endian order, with width and shape."""
    sha = hashlib.sha256()
    for x in arrays:
        words = bits_of(x)
        sha.update(f"{words.itemsize}{words.shape}".encode())
        sha.update(words.astype(words.dtype.newbyteorder("<"), copy=False))
    return sha.hexdigest()


def digests(way: Way, groups: dict[str, Callable[[Way], Iterator[Array]]]) -> dict[str, str]:
    posenc.set_num_threads(way.threads)
    try:
        return {name: digest(group(way)) for name, group in groups.items()}
    finally:
        posenc.set_num_threads(None)


def at_level(level: str, *arguments: str) -> Any:
    """Run this file in a process of its own at an instruction set, and return what it prints."""
    environment = {**os.environ, "POSENC_ISA": level, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", __file__, *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def committed() -> dict[str, str]:
    return json.loads(HASHES.read_text(encoding="utf-8"))


def assert_same(found: dict[str, str], wanted: dict[str, str]) -> None:
    """A failure names the groups whose bits differ."""
    assert found.keys() == wanted.keys()
    different = [name for name in found if found[name] != wanted[name]]
    assert not different, f"other bits in: {', '.join(different)}"


def part_of(names: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in committed().items() if name in names}


def test_every_group_is_committed() -> None:
    assert committed().keys() == {*GROUPS, *STREAMED}


@pytest.mark.parametrize(
    "way", [WAYS[-1], *(pytest.param(way, marks=pytest.mark.broad) for way in WAYS[:-1])], ids=repr
)
def test_every_way(way: Way) -> None:
    """In this process, at the level it runs at."""
    assert_same(digests(way, GROUPS), part_of(GROUPS))


@pytest.mark.parametrize("threads", [1, 2])
def test_results_written_past_the_caches(threads: int) -> None:
    assert_same(digests(Way(shift=1, threads=threads), STREAMED), part_of(STREAMED))


@pytest.mark.broad
@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(level: str) -> None:
    """In a process of its own: everything whole with two threads, and everything small from misaligned slices."""
    shown = at_level(level, "--show")
    assert shown["level"] == level
    assert_same(shown["whole"], committed())
    assert_same(shown["sliced"], part_of(shown["sliced"]))
    assert len(shown["sliced"]) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_large_calls_are_split(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two threads every call of the groups named large runs in parts, on both."""
    seen: list[tuple[int, int]] = []
    run_parts = runtime.run_parts

    def counting(run: Callable[[int], object], parts: int, threads: int) -> None:
        seen.append((parts, threads))
        run_parts(run, parts, threads)

    monkeypatch.setattr(runtime, "run_parts", counting)
    digests(Way(threads=2), {kind: GROUPS[f"large {kind}"], "tables": GROUPS["large tables"]})
    assert len(seen) == 7 + 4
    assert min(parts for parts, _ in seen) >= 2
    assert {threads for _, threads in seen} == {2}


def test_a_hash_sees_one_bit() -> None:
    """One unit in the last place of one element, a zero's sign, a shape: each changes the digest."""
    x = numbers("float32", (3, 4), key=70)
    other, turned = x.copy(), x.reshape(4, 3)
    other[2, 3] = np.nextafter(other[2, 3], np.float32(9))
    zeros = np.zeros(2, np.float32)
    assert len({digest(iter([a])) for a in (x, other, turned, zeros, -zeros)}) == 5
    with pytest.raises(AssertionError, match="other bits in: b"):
        assert_same({"a": "0", "b": "1"}, {"a": "0", "b": "2"})


def show() -> dict[str, Any]:
    small = {name: group for name, group in GROUPS.items() if not name.startswith("large")}
    return {
        "level": _core.runtime()[0],
        "whole": digests(Way(threads=2), {**GROUPS, **STREAMED}),
        "sliced": digests(Way(shift=3, pieces=3), small),
    }


def write() -> None:
    HASHES.write_text(json.dumps(at_level("scalar", "--show")["whole"], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--show"]:
        print(json.dumps(show()))
    elif sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.exit(__doc__)
