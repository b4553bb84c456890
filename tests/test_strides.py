"""Any strides: every view gives, bit for bit, what a contiguous copy gives, and nothing around it changes.

Views are made over a buffer that holds more than their elements, so that the rest of it serves as a canary; contiguous
arrays lie against pages that end the process when they are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import posenc
from conftest import Guarded, assert_refused, assert_same_bits, assert_untouched, memory_of, outside, run_child

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
SHAPE = (2, 3, 5, 8)  # batch, heads, seq, head_dim
GARBAGE = 2**62 + 24  # a stride that no address survives


def noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


# ---- views: each takes a maker of contiguous arrays, and returns a view of SHAPE ----

Make = Callable[..., np.ndarray]


def field_of_a_record(make: Make) -> np.ndarray:
    """Every element behind another one of 8 bytes, as in an array of structs."""
    values = make(*SHAPE)
    records = np.zeros(SHAPE, np.dtype([("weight", "f8"), ("x", values.dtype)], align=True))
    records["x"] = values
    return records["x"]


def with_garbage_strides(make: Make) -> np.ndarray:
    """Axes of length 1 whose strides mean nothing, which NumPy allows and produces."""
    x = make(3, 8)
    return as_strided(x, (1, 3, 1, 8), (GARBAGE, x.strides[0], -GARBAGE, x.strides[1]))


VIEWS: dict[str, Callable[[Make], np.ndarray]] = {
    "contiguous": lambda make: make(*SHAPE),
    "reversed batch": lambda make: make(*SHAPE)[::-1],
    "reversed heads": lambda make: make(*SHAPE)[:, ::-1],
    "reversed sequence": lambda make: make(*SHAPE)[:, :, ::-1],
    "reversed head": lambda make: make(*SHAPE)[..., ::-1],
    "all reversed": lambda make: make(*SHAPE)[::-1, ::-1, ::-1, ::-1],
    "every other token": lambda make: make(2, 3, 10, 8)[:, :, ::2],
    "every other element": lambda make: make(2, 3, 5, 16)[..., ::2],
    "every third element, backwards": lambda make: make(2, 3, 5, 24)[..., ::-3],
    "inner elements": lambda make: make(2, 3, 5, 20)[..., 7:15],
    "inner tokens and heads": lambda make: make(2, 7, 9, 8)[:, 2:5, 1:6],
    "heads and sequence exchanged": lambda make: make(2, 5, 3, 8).transpose(0, 2, 1, 3),
    "sequence first": lambda make: make(5, 2, 3, 8).transpose(1, 2, 0, 3),
    "head_dim first": lambda make: np.moveaxis(make(8, 2, 3, 5), 0, -1),
    "Fortran order": lambda make: make(8, 5, 3, 2).T,
    "Fortran order, backwards": lambda make: make(8, 5, 3, 2).T[:, ::-1, :, ::-1],
    "field of a record": field_of_a_record,
    "new axis first": lambda make: make(3, 5, 8)[None],
    "new axis inside": lambda make: make(2, 5, 8)[:, None],
    "one token": lambda make: make(2, 3, 9, 8)[:, :, 4:5],
    "one row of a transpose": lambda make: make(2, 5, 3, 8).transpose(0, 2, 1, 3)[:1],
    "garbage strides": with_garbage_strides,
}
BROADCAST: dict[str, Callable[[Make], np.ndarray]] = {
    "one batch row": lambda make: np.broadcast_to(make(1, 3, 5, 8), SHAPE),
    "one head": lambda make: np.broadcast_to(make(2, 1, 5, 8), SHAPE),
    "one token": lambda make: np.broadcast_to(make(2, 3, 1, 8), SHAPE),
    "one element": lambda make: np.broadcast_to(make(2, 3, 5, 1), SHAPE),
    "one number": lambda make: np.broadcast_to(make(), SHAPE),
    "sliding window": lambda make: sliding_window_view(make(2, 3, 12), 8, axis=-1),
}
EVERY = {**VIEWS, **{f"broadcast {name}": view for name, view in BROADCAST.items()}}


@pytest.fixture(params=FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def make(request: pytest.FixtureRequest, rng: np.random.Generator) -> Make:
    return lambda *shape: noise(rng, shape, request.param)


#: every layout over the whole head and over an inner range, and an odd head
ROPES = [
    posenc.Rope(head_dim, layout=layout, **how)
    for layout in LAYOUTS
    for head_dim, how in ((8, {}), (8, {"rotary_dim": 4, "rotary_offset": 2}), (7, {}))
]


def fitting(x: np.ndarray, rope: posenc.Rope) -> np.ndarray:
    return x[..., : rope.head_dim]


def assert_writes_only(call: Callable[[], object], *views: np.ndarray) -> None:
    """The call changes nothing in the allocation behind the views except their own elements."""
    free, before = outside(*views), memory_of(views[0])
    call()
    changed = np.flatnonzero((memory_of(views[0]) != before) & free)
    assert not len(changed), f"{len(changed)} bytes outside the arrays changed, the first at byte {changed[0]}"


def assert_same_order(found: np.ndarray, x: np.ndarray) -> None:
    """The axes of the result lie in memory in the order of x's, packed, as NumPy's own functions keep it."""
    kept = np.empty_like(x, subok=False)
    long = [i for i, length in enumerate(x.shape) if length > 1]
    assert [found.strides[i] for i in long] == [kept.strides[i] for i in long]


@pytest.mark.parametrize("name", EVERY)
def test_into_new_arrays(name: str, make: Make) -> None:
    """The right bits, in the memory order of the input, which stays as it is."""
    view = EVERY[name](make)
    before = view.copy()
    for rope in ROPES:
        x = fitting(view, rope)
        found = rope(x, offset=3)
        assert_same_bits(found, rope(np.ascontiguousarray(x), offset=3))
        assert_same_order(found, x)
    assert_same_bits(view, before)


@pytest.mark.parametrize("name", VIEWS)
def test_in_place(name: str, make: Make) -> None:
    """Written where they lie, and nowhere else."""
    for rope in ROPES:
        x = fitting(VIEWS[name](make), rope)
        expected = rope(np.ascontiguousarray(x), offset=7)
        assert_writes_only(lambda rope=rope, x=x: rope(x, offset=7, out=x), x)
        assert_same_bits(x, expected)


@pytest.mark.parametrize("name", VIEWS)
def test_into_given_views(name: str, make: Make, rng: np.random.Generator) -> None:
    """From every kind of view into every kind of view: here from some drawn at random into the named one."""
    sources = rng.choice(list(EVERY), len(ROPES))
    for rope, source in zip(ROPES, sources, strict=True):
        out, x = fitting(VIEWS[name](make), rope), fitting(EVERY[source](make), rope)
        if x.shape != out.shape:
            x = np.broadcast_to(x[:1, :1, :1], out.shape)
        expected = rope(np.ascontiguousarray(x))
        assert_writes_only(lambda rope=rope, x=x, out=out: rope(x, out=out), out)
        assert_same_bits(out, expected)


@pytest.mark.parametrize("name", EVERY)
def test_any_sequence_axis(name: str, make: Make) -> None:
    """The sequence may be any axis but the last, with positions and with one offset for each batch row."""
    view = EVERY[name](make)
    rope, plain = posenc.Rope(8, layout="half"), np.ascontiguousarray(view)
    for axis in range(3):
        positions = np.arange(view.shape[axis])[::-1] * 11
        found = rope(view, positions=positions, seq_axis=axis)
        assert_same_bits(found, rope(plain, positions=positions, seq_axis=axis))
        moved = rope(np.moveaxis(plain, axis, -2), positions=positions)
        assert_same_bits(found, np.moveaxis(moved, -2, axis))
    rows = np.arange(view.shape[0])[::-1]
    assert_same_bits(rope(view, offset=rows, seq_axis=1), rope(plain, offset=rows, seq_axis=1))


# ---- tables and positions ----


def table_views(dtype: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tables of 16 rows and 4 pairs, of every kind of strides, sometimes differing between cos and sin."""
    cos, sin = posenc.Rope(8, layout="half").table(16, dtype=dtype)
    yield cos, sin
    both = np.concatenate([cos, sin], -1)
    yield both[:, :4], both[:, 4:]
    woven = np.stack([cos, sin], -1)
    yield woven[..., 0], woven[..., 1]
    yield np.asfortranarray(cos), sin
    yield cos[::-1].copy()[::-1], sin.T.copy().T
    yield cos[:, ::-1].copy()[:, ::-1], np.asfortranarray(sin)
    row = cos.strides[0]
    yield as_strided(cos, (1, 16, 4), (GARBAGE, row, row // 4)), as_strided(sin, (1, 16, 4), (-GARBAGE, row, row // 4))
    yield np.broadcast_to(cos, (2, 16, 4)), np.stack([sin, sin])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_table_views(layout: str, make: Make) -> None:
    """Tables of any strides, by their own rows, by positions, by offsets, conjugated."""
    x = make(*SHAPE)
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    plain = posenc.Rope(8, layout="half").table(16, dtype=dtype)
    for how in ({}, {"positions": [3, 0, 15, 2, 2]}, {"offset": [1, 11]}, {"conjugate": True, "offset": 2}):
        expected = posenc.apply_rotary_emb(x, *plain, layout=layout, **how)
        for cos, sin in table_views(dtype):
            with assert_untouched(cos, sin):
                found = posenc.apply_rotary_emb(x, cos, sin, layout=layout, **how)
            assert_same_bits(found, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("precision", ["exact", "float32"])
def test_tables_into_views(dtype: Any, precision: str) -> None:
    """cos and sin written side by side, interleaved, backwards, transposed, each into strides of its own."""
    rope = posenc.Rope(8, layout="half", precision=precision)
    cos, sin = rope.table(40, dtype=dtype)
    whole = np.zeros((2, 50, 11), dtype)
    for out in (
        (whole[0, :40, :4], whole[0, :40, 5:9]),
        (whole[1, 5:45, :8:2], whole[1, 5:45, 1:9:2]),
        (whole[0, 44:4:-1, 3::-1], whole[1, :40, 10:2:-2]),
        (whole.ravel()[:160].reshape(4, 40).T, whole[1, 9:49, 2:6]),
    ):
        assert_writes_only(lambda out=out: rope.table(40, dtype=dtype, out=out), *out)
        assert_same_bits(out[0], cos)
        assert_same_bits(out[1], sin)


def position_views(values: np.ndarray) -> Iterator[np.ndarray]:
    """Positions (batch, seq) with every kind of strides."""
    yield values
    yield values[::-1, ::-1].copy()[::-1, ::-1]
    yield np.asfortranarray(values)
    yield np.repeat(values, 3, axis=1)[:, ::3]
    yield np.stack([values, values], -1)[..., 1]
    yield as_strided(values.copy(), values.shape, values.strides)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64, np.float32, np.int16])
def test_position_views(dtype: Any, rng: np.random.Generator) -> None:
    rope, x = posenc.Rope(8, layout="half"), noise(rng, SHAPE, np.float32)
    values = rng.integers(-1000, 1000, (2, 5)).astype(dtype)
    expected = rope(x, positions=values)
    for positions in position_views(values):
        assert_same_bits(rope(x, positions=positions), expected)
        assert_same_bits(rope(x, positions=np.broadcast_to(positions[:1], (2, 5)))[:1], expected[:1])
    for one in (np.broadcast_to(values[0, 0], 5), as_strided(values, (1, 5), (GARBAGE, values.itemsize))):
        assert_same_bits(rope(x, positions=one), rope(x, positions=one.copy()))


def test_axes_of_position_views(rng: np.random.Generator) -> None:
    """Several position axes, in any memory order."""
    rope = posenc.Rope(8, layout="half", axis_of_freq=[0, 2, 1, 2])
    x, values = noise(rng, SHAPE, np.float32), rng.integers(0, 99, (3, 2, 5))
    expected = rope(x, positions=values)
    for positions in (
        values.T.copy().T,
        values[::-1].copy()[::-1],
        np.moveaxis(np.moveaxis(values, 1, 0).copy(), 0, 1),
    ):
        assert_same_bits(rope(x, positions=positions), expected)
    spread = np.broadcast_to(values[:, :1], values.shape)
    assert_same_bits(rope(x, positions=spread), rope(x, positions=np.ascontiguousarray(spread)))


def test_garbage_strides_of_every_argument(rng: np.random.Generator) -> None:
    """No address is ever made with them: a sanitizer that watches pointers sees it (negative ones: they wrap)."""
    rope, row = posenc.Rope(64, layout="half"), 64 * 4
    x = as_strided(noise(rng, (16, 1024, 64), np.float32), (16, 1, 1024, 64), (1024 * row, -GARBAGE, row, 4))
    for axis in range(3):  # large enough to be fetched ahead
        assert_same_bits(rope(x, seq_axis=axis), rope(x.copy(), seq_axis=axis))
    cos, sin = rope.table(1)
    out = [as_strided(np.empty(64, np.float32)[32:], (1, 32), (-GARBAGE, stride)) for stride in (4, -4)]
    rope.table(1, out=out)
    assert_same_bits(out[0], cos)
    assert_same_bits(out[1], sin)
    one = as_strided(np.ones(8, np.float32), (8, 1), (4, -GARBAGE))
    turned = posenc.apply_rotary_emb(x[:, 0, :8], one, -one, layout="interleaved", rotary_offset=62)
    assert_same_bits(turned[..., :62], x[:, 0, :8, :62])
    none, table = np.ones((3, 0, 64), np.float32), as_strided(cos, cos.shape, (-GARBAGE, 4))
    assert posenc.apply_rotary_emb(none, table, table, layout="half", offset=2**60).shape == none.shape


# ---- q and k inside one array ----


def assert_pair_in_place(rope: posenc.Rope, q: np.ndarray, k: np.ndarray, **how: Any) -> None:
    """Q and k, views of one array, rotated by one call; everything else in the array stays."""
    expected = rope(np.ascontiguousarray(q), **how), rope(np.ascontiguousarray(k), **how)
    assert_writes_only(lambda: rope(q, k, out=(q, k), **how), q, k)
    assert_same_bits(q, expected[0])
    assert_same_bits(k, expected[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_qkv(layout: str, make: Make) -> None:
    """(batch, seq, 3, heads, head_dim), and its (batch, heads, seq, head_dim) view."""
    rope, qkv = posenc.Rope(8, layout=layout), make(2, 5, 3, 4, 8)
    assert_pair_in_place(rope, qkv[:, :, 0], qkv[:, :, 1], seq_axis=-3)
    q, k = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in (0, 1))
    assert_pair_in_place(rope, q, k, offset=[5, 9])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_heads(layout: str, make: Make) -> None:
    """(batch, seq, q heads + 2 k heads, head_dim), heads split off a flat last axis, and q, k, v woven per head."""
    rope = posenc.Rope(8, layout=layout)
    packed = make(2, 5, 6 + 2 * 2, 8)
    assert_pair_in_place(rope, packed[:, :, :6], packed[:, :, 6:8], seq_axis=1)
    flat = make(2, 5, 10 * 8)
    heads = flat.reshape(2, 5, 10, 8)
    assert_pair_in_place(rope, heads[:, :, :6], heads[:, :, 6:8], seq_axis=1)
    woven = make(2, 5, 4, 3, 8)
    assert_pair_in_place(rope, woven[..., 0, :], woven[..., 1, :], seq_axis=1)
    elements = make(2, 5, 4, 8, 3)
    assert_pair_in_place(rope, elements[..., 0], elements[..., 1], seq_axis=1)


def test_packed_halves_that_touch(make: Make) -> None:
    """One element apart is disjoint; one element shared is not."""
    rope, whole = posenc.Rope(8, layout="half"), make(5, 16)
    q, k, shifted = whole[:, :8], whole[:, 8:], whole[:, 7:15]
    assert_pair_in_place(rope, q, k)
    assert_refused(ValueError, "overlap in memory", lambda: rope(q, shifted, out=(q, shifted)), whole)


# ---- guard pages ----


def assert_guarded(guarded: Guarded, rope: posenc.Rope, x: np.ndarray, side: str) -> None:
    """Inputs, outputs, tables and positions against guard pages: an access outside ends the process."""
    positions = guarded(np.arange(x.shape[-2])[::-1] * 3, side=side)
    expected = rope(x, positions=positions)
    a, out = guarded(x, side=side), guarded(x, side=side)
    assert_same_bits(rope(a, positions=positions, out=out), expected)
    assert_same_bits(rope(a, positions=positions), expected)
    assert_same_bits(rope(a, positions=positions, out=a), expected)
    wide = np.float64 if x.dtype == np.float64 else np.float32
    cos, sin = (guarded(table, side=side) for table in rope.table(positions, dtype=wide))
    rope.table(positions, dtype=wide, out=(cos, sin))
    how = {"layout": rope.layout, "rotary_offset": rope.rotary_offset}
    assert_same_bits(posenc.apply_rotary_emb(guarded(x, side=side), cos, sin, **how), expected)
    assert_same_bits(posenc.apply_rotary_emb(b := guarded(x, side=side), cos, sin, out=b, **how), expected)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("head_dim", [1, 2, 3, 6, 7, 16, 34, 62, 96, 127, 130, 257])
def test_guard_pages(head_dim: int, side: str, guarded: Guarded, make: Make) -> None:
    for layout in LAYOUTS:
        assert_guarded(guarded, posenc.Rope(head_dim, layout=layout), make(3, 5, head_dim), side)
        if head_dim > 6:
            inner = posenc.Rope(head_dim, layout=layout, rotary_dim=head_dim // 4 * 2, rotary_offset=1)
            assert_guarded(guarded, inner, make(2, 3, head_dim), side)


TOUCH = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from conftest import guarded_array
side = sys.argv[1]
a = guarded_array(np.zeros(10, np.float32), side=side)
a.sum()
print("inside", flush=True)
start = a.__array_interface__["data"][0]
np.ctypeslib.ctypes.string_at(start - 1 if side == "before" else start + a.nbytes, 1)
print("outside", flush=True)
"""


@pytest.mark.parametrize("side", ["before", "after"])
def test_guard_pages_bite(side: str) -> None:
    """One byte too far is a segmentation fault, else the tests above would prove nothing."""
    child = run_child(TOUCH, side, Path(__file__).parent)
    assert child.returncode != 0  # a signal, or what a sanitizer makes of it
    assert child.stdout.split() == ["inside"]
