"""Gradients of x added to a buffer: the oracle's numbers, one rounding, any memory, nothing as large as x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import posenc
from conftest import assert_refused, assert_same_bits, assert_untouched, guarded_array, outside, owner_of
from posenc import _reference, gradients
from posenc.scaling import Yarn

Array = np.ndarray
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
KINDS = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
#: head_dim, and what else a Rope is made of: tails, inner ranges, an odd head, rows of several chunks
ROPES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (8, {}),
    "wide": (130, {"scaling": Yarn(4.0, 32)}),
    "partial": (40, {"rotary_dim": 6, "rotary_offset": 3}),
    "odd": (7, {}),
    "several axes": (16, {"axis_of_freq": [0, 1, 1, 0, 2, 2, 0, 1]}),
    "largest of one chunk": (2048, {}),
    "chunks": (4100, {"rotary_dim": 2100, "rotary_offset": 1}),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> Array:
    return rng.standard_normal(shape).astype(kind)


def wide(kind: Any) -> Any:
    return np.float64 if kind is np.float64 else np.float32


def once(before: Array, gradient: Array) -> Array:
    """Add in the dtype of the gradient, and round to that of the buffer."""
    return (before.astype(gradient.dtype) + gradient).astype(before.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_rounding(name: str, layout: str, kind: str, rng: np.random.Generator) -> None:
    """The bits of the wide sum; near the oracle; the same by tables, in pairs, and onto the input itself."""
    head_dim, how = ROPES[name]
    rope, dtype = posenc.Rope(head_dim, layout=layout, **how), KINDS[kind]
    grad, before = draw(rng, (2, 3, 7, head_dim), dtype), draw(rng, (2, 3, 7, head_dim), dtype)
    options = {"offset": 5}
    wanted = once(before, gradients.of_x(rope, grad.astype(wide(dtype)), **options))
    place = {"rotary_offset": rope.rotary_offset}
    positions = np.broadcast_to(np.arange(5.0, 12.0), (rope.axes, 7)) if rope.axes > 1 else np.arange(5.0, 12.0)
    axis_of_freq = rope.axis_of_freq if rope.axes > 1 else None
    table = _reference.table(positions, rope.inv_freq, axis_of_freq, rope.attention_factor)
    exact = before.astype(np.float64) + _reference.transposed(grad.astype(np.float64), *table, layout, **place)
    rounding = {"float32": 4e-7, "float64": 1e-14, "float16": 1.01 * 2**-11, "bfloat16": 1.01 * 2**-8}[kind]
    assert np.abs(wanted.astype(np.float64) - exact).max() <= rounding * np.abs(exact).max()

    out, second = before.copy(), before.copy()
    with assert_untouched(grad):
        assert gradients.of_x(rope, grad, out=out, accumulate=True, **options) is out
    assert_same_bits(out, wanted)
    out = before.copy()
    gradients.of_x(rope, grad, grad, out=(out, second), accumulate=True, **options)
    assert_same_bits(out, wanted)
    assert_same_bits(second, wanted)
    out = before.copy()
    tables = rope.table(positions, dtype=wide(dtype))
    gradients.of_x_by_tables(grad, *tables, layout=layout, out=out, accumulate=True, **place)
    assert_same_bits(out, wanted)
    if layout != "interleaved_to_half" or 2 * len(rope.inv_freq) <= 2048:
        wanted = once(grad, gradients.of_x(rope, grad.astype(wide(dtype)), **options))
        gradients.of_x(rope, grad, out=grad, accumulate=True, **options)
        assert_same_bits(grad, wanted)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_memory(layout: str, kind: str, rng: np.random.Generator) -> None:
    """Permuted, reversed, stepped and broadcast; between the elements of the buffer nothing changes."""
    dtype = KINDS[kind]
    rope = posenc.Rope(18, layout=layout, rotary_dim=14, rotary_offset=2)
    grads = (
        draw(rng, (5, 2, 3, 36), dtype).transpose(1, 2, 0, 3)[..., ::2],
        np.broadcast_to(draw(rng, (2, 1, 5, 18), dtype)[:, :, ::-1], (2, 3, 5, 18)),
        draw(rng, (2, 3, 5, 18), dtype)[..., ::-1],
    )
    outs = (
        draw(rng, (2, 5, 3, 18), dtype).swapaxes(1, 2),
        draw(rng, (2, 3, 10, 54), dtype)[:, ::-1, ::2, ::-3],
        draw(rng, (2, 3, 5, 21), dtype)[..., 1:-2],
    )
    offset = np.array([3, 70])
    for grad in grads:
        for out in outs:
            wanted = once(out.copy(), gradients.of_x(rope, grad.astype(wide(dtype)), offset=offset))
            memory = owner_of(out).view(np.uint8).reshape(-1)
            kept, free = memory.copy(), outside(out)
            gradients.of_x(rope, grad, out=out, offset=offset, accumulate=True)
            assert_same_bits(np.ascontiguousarray(out), np.ascontiguousarray(wanted))
            np.testing.assert_array_equal(memory[free], kept[free])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_between_guard_pages(layout: str, kind: str, rng: np.random.Generator) -> None:
    """No kernel reads or writes past a row, whatever its tail."""
    dtype = KINDS[kind]
    for head_dim in (2, 6, 7, 30, 34):
        rope = posenc.Rope(head_dim, layout=layout)
        grad, out = draw(rng, (3, head_dim), dtype), draw(rng, (3, head_dim), dtype)
        wanted = once(out, gradients.of_x(rope, grad.astype(wide(dtype))))
        for side in ("before", "after"):
            target = guarded_array(out, side=side)
            gradients.of_x(rope, guarded_array(grad, side=side), out=target, accumulate=True)
            assert_same_bits(target, wanted)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_threads_give_the_same_bits(kind: str, threads: Callable[[int], None], rng: np.random.Generator) -> None:
    """Above the size at which calls are split, along the sequence and along the batch."""
    dtype = KINDS[kind]
    for shape in ((1, 8, 3000, 96), (1500, 8, 2, 96)):
        rope = posenc.Rope(96, layout="half")
        grad, before = draw(rng, shape, dtype), draw(rng, shape, dtype)
        offset = rng.integers(0, 999, shape[0])
        wanted = once(before, gradients.of_x(rope, grad.astype(np.float32), offset=offset))
        for n in (1, 2, 3):
            threads(n)
            out = before.copy()
            gradients.of_x(rope, grad, out=out, offset=offset, accumulate=True)
            assert_same_bits(out, wanted)


def test_torch(rng: np.random.Generator) -> None:
    """A tensor's memory grows where it lies, and autograd learns of the write."""
    rope = posenc.Rope(16, layout="interleaved")
    grad, before = draw(rng, (2, 5, 16), np.float32), draw(rng, (2, 5, 16), np.float32)
    out = torch.from_numpy(before.copy())
    address, version = out.data_ptr(), out._version
    assert gradients.of_x(rope, torch.from_numpy(grad), out=out, accumulate=True) is out
    assert out.data_ptr() == address
    assert out._version > version
    assert_same_bits(out.numpy(), once(before, gradients.of_x(rope, grad)))


def test_nothing_to_add() -> None:
    rope = posenc.Rope(8, layout="half")
    for shape in ((2, 0, 8), (0, 5, 8)):
        empty = np.empty(shape, np.float32)
        assert gradients.of_x(rope, empty, out=empty, accumulate=True) is empty


def test_wrong_input(rng: np.random.Generator) -> None:
    rope = posenc.Rope(8, layout="half")
    grad, out = draw(rng, (2, 5, 8), np.float32), draw(rng, (2, 5, 8), np.float32)
    tables = rope.table(5)

    def of_x(**more: Any) -> object:
        return gradients.of_x(rope, grad, **{"out": out, "accumulate": True, **more})

    def by_tables(**more: Any) -> object:
        return gradients.of_x_by_tables(grad, *tables, layout="half", **{"out": out, "accumulate": True, **more})

    frozen, arrays = out.copy(), (grad, out, *tables)
    frozen.flags.writeable = False
    for of in (of_x, by_tables):
        assert_refused(TypeError, "out must be given", lambda of=of: of(out=None), *arrays)
        assert_refused(TypeError, "accumulate must be True or False", lambda of=of: of(accumulate=1), *arrays)
        assert_refused(TypeError, "out", lambda of=of: of(out=out.astype(np.float64)), *arrays)
        assert_refused(ValueError, "out", lambda of=of: of(out=out[:1]), *arrays)
        assert_refused(BufferError, "read-only", lambda of=of: of(out=frozen), *arrays)
        assert_refused(ValueError, "overlap", lambda of=of: of(out=grad[::-1]), *arrays)
        assert_refused(ValueError, "positions", lambda of=of: of(positions=[1]), *arrays)
    assert_refused(IndexError, "", lambda: by_tables(positions=[0, 1, 2, 3, 5]), *arrays)
    assert_refused(ValueError, "finite", lambda: of_x(positions=[np.nan] * 5), *arrays)
    assert_refused(ValueError, "overlap", lambda: of_x(grad_k=grad, out=(out, out)), *arrays)
    assert_refused(TypeError, "out must be given", lambda: of_x(grad_k=grad, out=None), *arrays)
