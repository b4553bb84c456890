"""Every function of the extension leaves no block and no reference behind, where it returns and where it raises."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import posenc
from posenc import _core

CALLS = 30_000  # of each kind: 240,000 that return and 240,000 that raise
LEAK_SLACK = 1000  # blocks: caches of the interpreter; one object left by each call of one variant gives thousands


@pytest.fixture(scope="module", autouse=True)
def _nothing_older() -> None:
    """Set apart what the modules before this one left: each collection would go through all of it."""
    gc.collect()
    gc.freeze()


def failing(call: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            call()
        except (TypeError, ValueError, IndexError, BufferError):
            return
        raise AssertionError("the call did not fail")

    return run


class Watched:
    """Arguments, right and wrong, with all the references to them counted."""

    def __init__(self) -> None:
        self.x, self.k = np.ones((2, 3, 4, 8), np.float32), np.ones((2, 1, 4, 8), np.float32)
        self.y, self.half = np.empty_like(self.x), np.ones((4, 8), np.float16)
        self.brain = np.ones((4, 8), ml_dtypes.bfloat16)
        self.integers, self.read_only = np.ones((4, 8), int), np.ones((2, 3, 4, 8), np.float32)
        self.read_only.flags.writeable = False
        self.rows, self.few, self.narrow = np.arange(4), np.arange(3), np.arange(4, dtype=np.int16)
        self.offsets, self.floats, self.bad = [1, 2], [1.0, 2.0], np.array([0, 1, np.nan, 2])
        self.inv_freq, self.axes = np.ones(4), np.zeros(4, np.int64)
        self.spec = _core.spec(self.inv_freq, None, 0, 8, 0, 1.0, False)
        self.rope, self.pair = posenc.Rope(8, layout="half"), (self.x, self.k)
        self.cos, self.sin = _core.table(self.spec, 16, False, None, 2**40, 1)
        self.out = (np.empty((4, 4), np.float32), np.empty((4, 4), np.float32))

    def references(self) -> list[int]:
        return [sys.getrefcount(value) for value in vars(self).values()]

    def rotate(self, q: Any, k: Any = None, out: Any = None, rows: Any = None, offset: Any = 0, axis: Any = -2) -> Any:
        return _core.rotate(self.spec, q, k, out, rows, offset, axis, 2**40, 1)

    def apply(self, x: Any, cos: Any, sin: Any, out: Any = None, rows: Any = None, offset: Any = 0) -> Any:
        return _core.apply(x, cos, sin, out, rows, offset, -2, 0, 0, False, 2**40, 1)

    def add(self, x: Any, table: Any, out: Any = None, rows: Any = None, offset: Any = 0, scale: Any = 1.0) -> Any:
        return _core.add(x, table, out, rows, offset, -2, scale, 3, 2**40, 1)

    def sum(self, x: Any, out: Any = None, rows: Any = None, offset: Any = 0) -> Any:
        return _core.add_sinusoid(self.spec, 0, x, out, rows, offset, -2, 1.0, None, 2**40, 1)

    def scatter(self, grad: Any, out: Any, rows: Any = None, offset: Any = 0) -> Any:
        return _core.scatter(grad, out, rows, offset, -2, 1.0, None, 2**40, 1)

    def sines(self, positions: Any, out: Any = None, wide: bool = False) -> Any:
        return _core.sinusoid(self.spec, 1, positions, wide, out, 3, 2**40, 1)

    def table(self, positions: Any, out: Any = None, wide: bool = False) -> Any:
        return _core.table(self.spec, positions, wide, out, 2**40, 1)


def rotate_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: w.rotate(w.x),
        lambda: w.rotate(w.x, w.k),
        lambda: w.rotate(w.x, w.k, (w.x, w.k)),
        lambda: w.rotate(w.x, None, w.y),
        lambda: w.rotate(w.half, rows=w.narrow),
        lambda: w.rotate(w.brain, rows=w.rows),
        lambda: w.rotate(w.x, offset=w.offsets),
        lambda: _core.rotate(w.spec, w.x, None, None, None, 0, -2, 0, 1),
        lambda: w.rope(w.x, w.k, offset=1000, out=w.pair),
        lambda: w.rope(w.x, inverse=True),
        lambda: _core.rotate_call(posenc.Rope.__call__, posenc.Rope._fixed_spec, 1000),
    ]
    wrong = [
        lambda: w.rotate(w.integers),
        lambda: w.rotate(w.offsets),
        lambda: w.rotate(w.x, w.half),
        lambda: w.rotate(w.x, w.k, (w.x,)),
        lambda: w.rotate(w.x, w.k, (w.x, w.integers)),
        lambda: w.rotate(w.x, w.x, (w.x, w.x)),
        lambda: w.rotate(w.x, None, w.x[::-1]),
        lambda: w.rotate(w.x, None, w.read_only),
        lambda: w.rotate(w.x, rows=w.few),
        lambda: w.rotate(w.x, rows=w.bad),
        lambda: w.rotate(w.x, rows=w.narrow[:3]),
        lambda: w.rotate(w.x, rows=w.half[0, :4]),
        lambda: w.rotate(w.x, rows=w.rows, offset=1),
        lambda: w.rotate(w.x, offset=w.floats),
        lambda: w.rotate(w.x, offset=2**70),
        lambda: w.rotate(w.x, axis=9),
        lambda: w.rotate(w.x, axis="1"),
        lambda: _core.rotate(w.x, w.x, None, None, None, 0, -2, 0, 1),
        lambda: _core.rotate(w.x),
        lambda: w.rope(w.x, w.k, out=(w.x, w.integers)),
        lambda: w.rope(w.x, offset=0, axis=9),
    ]
    return right, wrong


def apply_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: w.apply(w.x, w.cos, w.sin),
        lambda: w.apply(w.half, w.cos, w.sin, w.half),
        lambda: w.apply(w.x, w.cos, w.sin, w.y, w.narrow),
        lambda: w.apply(w.x, w.cos, w.sin, offset=w.offsets),
    ]
    wrong = [
        lambda: w.apply(w.offsets, w.cos, w.sin),
        lambda: w.apply(w.x, w.offsets, w.sin),
        lambda: w.apply(w.x, w.cos, w.cos[:3]),
        lambda: w.apply(w.x, w.inv_freq, w.inv_freq),
        lambda: w.apply(w.x, w.cos, w.sin, w.read_only),
        lambda: w.apply(w.x, w.cos, w.sin, None, w.bad),
        lambda: w.apply(w.x, w.cos, w.sin, None, w.rows + 99),
        lambda: w.apply(w.x, w.cos, w.sin, None, w.narrow[:3]),
        lambda: w.apply(w.x, w.cos, w.sin, offset=99),
        lambda: w.apply(w.cos, w.cos[:, :2], w.sin[:, :2], w.cos),
        lambda: _core.apply(w.x),
    ]
    return right, wrong


def gradient_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    total, places = np.zeros(4), np.zeros((1, 1, 4))
    cos, sin = np.zeros((4, 4)), np.zeros((4, 4), np.float32)

    def rotate(x: Any, grad: Any, *wanted: Any, rows: Any = None) -> object:
        return _core.rotate_gradient(w.spec, x, grad, rows, 0, -2, *wanted, 2**40, 1)

    def table(x: Any, grad: Any, *wanted: Any) -> object:
        return _core.table_gradient(x, grad, *wanted, -2, 0, 0, False, 2**40, 1)

    right = [
        lambda: rotate(w.x, w.x, total, places),
        lambda: rotate(w.brain, w.brain, total, None, rows=w.narrow),
        lambda: _core.rotate_gradient(w.spec, w.x, w.x, None, 0, -2, total, None, 0, 1),
        lambda: table(w.x, w.y, cos, sin),
    ]
    wrong = [
        lambda: rotate(w.integers, w.x, total, None),
        lambda: rotate(w.x, w.offsets, total, None),
        lambda: rotate(w.x, w.k, total, None),
        lambda: rotate(w.x, w.x, w.half, None),
        lambda: rotate(w.x, w.x, total, w.read_only),
        lambda: rotate(w.x, w.x, total, None, rows=w.few),
        lambda: rotate(w.x, w.x, total, None, rows=w.bad),
        lambda: table(w.x, w.x, cos, cos),
        lambda: table(w.x, w.x, w.offsets, cos),
        lambda: table(w.x, w.x, cos[:3], sin),
        lambda: _core.table_gradient(w.x),
    ]
    return right, wrong


def bias_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    here, mask, slopes = (None, None, 4), (1, 3.0, np.inf, 1.0), (np.ones((1, 3, 2)), False)
    table, index = np.ones((4, 3), np.float32), np.zeros(5, np.int32)
    looked_up = (table, "nh", index, -2, 1.0)

    def add(x: Any, out: Any = None, where: Any = here, term: Any = slopes) -> object:
        return _core.add_bias(x, out, where, mask, term, 2**40, 1)

    def gradient(x: Any, where: Any = here, term: Any = slopes) -> object:
        return _core.bias_gradient(x, where, mask, term, np.zeros((3, 4)), 2**40, 1)

    right = [
        lambda: add(w.x),
        lambda: add(w.x, w.y),
        lambda: add(w.x, w.x, (w.rows, None, 0)),
        lambda: add(w.x, w.y, (w.narrow, None, 0), looked_up),
        lambda: add(None, w.y, term=looked_up),
        lambda: add(w.brain, term=None),
        lambda: _core.add_bias(w.x, None, here, mask, slopes, 0, 1),
        lambda: gradient(w.x),
        lambda: gradient(w.x, (w.narrow, None, 0), looked_up),
    ]
    wrong = [
        lambda: add(w.integers),
        lambda: add(w.offsets),
        lambda: add(w.x, w.integers),
        lambda: add(w.x, w.read_only),
        lambda: add(w.x, w.x[::-1]),
        lambda: add(w.x, None, (w.few, None, 0)),
        lambda: add(w.x, None, (w.bad, None, 0)),
        lambda: add(w.x, None, (w.half[0, :4], None, 0)),
        lambda: add(w.k),
        lambda: add(w.x, term=(w.integers, "nh", index, -2, 1.0)),
        lambda: add(w.x, term=(table, "hn", index, -2, 1.0)),
        lambda: add(w.x, term=(table, "nh", index + 9, -2, 1.0)),
        lambda: add(w.x, None, (w.bad, None, 0), looked_up),
        lambda: gradient(w.integers),
        lambda: gradient(w.x, (w.few, None, 0)),
        lambda: _core.add_bias(w.x),
    ]
    return right, wrong


def table_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: w.table(4),
        lambda: w.table(w.narrow, wide=True),
        lambda: w.table(w.rows, w.out),
        lambda: _core.table(w.spec, 4, False, None, 0, 1),
    ]
    wrong = [
        lambda: w.table(-1),
        lambda: w.table(w.bad),
        lambda: w.table(w.half),
        lambda: w.table(w.rows, w.out, wide=True),
        lambda: w.table(w.rows, (w.out[0], w.out[0])),
        lambda: w.table(w.rows, (w.out[0], w.offsets)),
        lambda: w.table(w.few, w.out),
        lambda: w.table(w.rows, w.out[0]),
        lambda: _core.table(w.x, 4, False, None, 0, 1),
        lambda: _core.table(w.x),
    ]
    return right, wrong


def add_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    rows = np.ones((16, 8), np.float32)
    right = [
        lambda: w.add(w.x, rows),
        lambda: w.add(w.x, rows, w.x, w.rows),
        lambda: w.add(w.half, w.half, rows=w.narrow),
        lambda: w.add(w.brain, rows, offset=2),
        lambda: w.add(w.x, rows, w.y, offset=w.offsets),
        lambda: w.sum(w.x),
        lambda: w.sum(w.half, w.half, w.rows),
        lambda: w.sum(w.x, offset=w.offsets),
        lambda: w.scatter(w.x, rows),
        lambda: w.scatter(w.half, rows, w.narrow),
        lambda: _core.scatter(w.x, rows, None, 0, -2, 1.0, None, 0, 1),
        lambda: w.sines(4),
        lambda: w.sines(w.rows, np.empty((4, 8), np.float32)),
        lambda: _core.sinusoid(w.spec, 0, 4, False, None, None, 0, 1),
    ]
    wrong = [
        lambda: w.add(w.integers, rows),
        lambda: w.add(w.x, w.half),
        lambda: w.add(w.x, w.offsets),
        lambda: w.add(w.x, rows[:, :4]),
        lambda: w.add(w.x, rows, w.read_only),
        lambda: w.add(w.x, rows, None, w.rows + 99),
        lambda: w.add(w.x, rows, None, w.bad),
        lambda: w.add(w.x, rows, None, w.narrow[:3]),
        lambda: w.add(rows, rows, rows),
        lambda: w.add(w.x, rows, scale="1"),
        lambda: _core.add(w.x),
        lambda: w.sum(w.cos),
        lambda: w.sum(w.x, rows=w.bad),
        lambda: w.sum(w.x, w.read_only),
        lambda: _core.add_sinusoid(w.x, 0, w.x, None, None, 0, -2, 1.0, None, 0, 1),
        lambda: w.scatter(w.x, w.half),
        lambda: w.scatter(w.x, w.cos),
        lambda: w.scatter(w.x, rows, offset=99),
        lambda: w.scatter(rows, rows),
        lambda: w.sines(w.bad),
        lambda: w.sines(w.rows, w.out[0]),
        lambda: w.sines(w.rows, np.empty((4, 8), np.float32), wide=True),
    ]
    return right, wrong


def tally_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    sums = np.zeros(11), np.empty((4, 3)), np.empty((4, 4))
    right = [
        lambda: _core.tally(w.half, 3, 0, *sums),
        lambda: _core.tally(w.x[0, 0], 3, 0, *sums),
        lambda: _core.tally(-w.half, 3, 0, *sums),  # which answers where the bad weight is
    ]
    wrong = [
        lambda: _core.tally(w.x, 3, 0, *sums),
        lambda: _core.tally(w.integers, 3, 0, *sums),
        lambda: _core.tally(w.half, 0, 0, *sums),
        lambda: _core.tally(w.half, "3", 0, *sums),
        lambda: _core.tally(w.half, 3, 0, w.inv_freq, *sums[1:]),
        lambda: _core.tally(w.half, 3, 0, *sums[:2], w.offsets),
        lambda: _core.tally(w.half),
    ]
    return right, wrong


def other_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: _core.spec(w.inv_freq, w.axes, 0, 8, 0, 1.0, False),
        lambda: _core.inv_freq(1e4, 8),
        lambda: _core.float32_powers(1e4, 8),
        lambda: _core.empty_like(w.half),
        _core.runtime,
    ]
    wrong = [
        lambda: _core.spec(w.bad, None, 0, 8, 0, 1.0, False),
        lambda: _core.spec(w.inv_freq, w.rows + 99, 0, 8, 0, 1.0, False),
        lambda: _core.spec(w.inv_freq),
        lambda: _core.inv_freq("1", 8),
        lambda: _core.inv_freq(1e4),
        lambda: _core.empty_like(w.offsets),
        lambda: _core.runtime(1),
    ]
    return right, wrong


def grown(calls: list[Callable[[], object]], count: int) -> int:
    """Return by how many blocks the interpreter's memory grows over that many calls, after some to warm up."""
    rounds = count // len(calls)
    for _ in range(20):
        for call in calls:
            call()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(rounds):
        for call in calls:
            call()
    gc.collect()
    return sys.getallocatedblocks() - before


def assert_no_leak(calls: list[Callable[[], object]], watched: Watched, count: int = CALLS) -> None:
    """No block is left, and every argument has as many references as before."""
    for call in calls:
        call()
    gc.collect()  # what tests before this one left holds None too
    before, nones = watched.references(), sys.getrefcount(None)
    blocks = grown(calls, count)
    if blocks >= LEAK_SLACK:  # what is made once shows in the first alone
        blocks = grown(calls, count)
    assert blocks < LEAK_SLACK, f"{blocks} blocks were left by {count} calls"
    assert watched.references() == before
    assert abs(sys.getrefcount(None) - nones) < LEAK_SLACK


@pytest.mark.parametrize(
    "make",
    [rotate_calls, apply_calls, add_calls, gradient_calls, bias_calls, table_calls, tally_calls, other_calls],
)
@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
def test_no_leaks(make: Callable[[Watched], tuple[list[Any], list[Any]]], fails: bool) -> None:
    """Every function of the extension, on every path that returns and every path that raises."""
    watched = Watched()
    calls = make(watched)[fails]
    assert_no_leak([failing(call) for call in calls] if fails else calls, watched)


def test_no_leaks_of_tensors() -> None:
    w = Watched()
    w.x, w.k, w.y = (torch.from_numpy(np.array(a)) for a in (w.x, w.k, w.y))
    w.rows, w.offsets = torch.arange(4), torch.tensor([1, 2])
    w.integers, w.tensor = torch.ones(4, 8, dtype=torch.int32), torch.ones(4, 8, requires_grad=True)
    right = [
        lambda: w.rotate(w.x),
        lambda: w.rotate(w.x, w.k, (w.x, w.k)),
        lambda: w.rotate(w.x, None, w.y, w.rows),
        lambda: w.rotate(w.x, offset=w.offsets),
        lambda: w.apply(w.x, w.cos, w.sin, w.x, w.rows),
        lambda: w.table(w.rows, tuple(torch.from_numpy(part) for part in w.out)),
    ]
    wrong = [
        lambda: w.rotate(w.tensor),
        lambda: w.rotate(w.integers),
        lambda: w.rotate(w.x, w.k, (w.x, w.tensor)),
        lambda: w.rotate(w.x, None, w.y[:1].expand(2, 3, 4, 8)),
        lambda: w.rotate(w.x, rows=w.rows[:3]),
        lambda: w.rotate(w.x, rows=w.rows.half()),
        lambda: w.rotate(w.x, offset=w.rows[:3]),
    ]
    assert_no_leak(right, w, CALLS // 5)
    assert_no_leak([failing(call) for call in wrong], w, CALLS // 5)


def test_the_leak_tests_see_a_leak() -> None:
    """One object kept, and one reference kept, by one variant of many."""
    kept: list[object] = []
    watched = Watched()
    calls = [lambda: None] * 9
    with pytest.raises(AssertionError, match="blocks were left"):
        assert_no_leak([*calls, lambda: kept.append(object())], watched)
    with pytest.raises(AssertionError):
        assert_no_leak([*calls, lambda: kept.append(watched.x)], watched, 1000)
