"""The machine around a call: fork, threads, interrupts, leaks, the floating-point environment, the cost of importing.

What can take the whole test run down (hang, crash, interrupt) happens in a child process with a time limit.
"""

from __future__ import annotations

import compileall
import ctypes
import gc
import json
import os
import platform
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import posenc
from conftest import PACKAGE_ROOT, assert_same_bits, run_child, run_python
from posenc import _core, runtime

# ---- fork ----

LOADER = """
import sys, warnings
import numpy as np, torch
import posenc

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        assert posenc.get_num_threads() == 1
        return rope(large, offset=i)

torch.set_num_threads(2)
(torch.ones(700, 700) @ torch.ones(700, 700)).relu().sum()      # torch's own threads have run
posenc.set_num_threads(2)
rope, large = posenc.Rope(128, layout="half"), torch.ones(4, 8, 1024, 128)
whole = [rope(large, offset=i) for i in range(8)]               # and so have ours
warnings.simplefilter("ignore")                                 # of forking with threads, from Python 3.12 on
loader = torch.utils.data.DataLoader(Rows(), num_workers=2, multiprocessing_context="fork")
print(all(torch.equal(found[0], wanted) for found, wanted in zip(loader, whole, strict=True)))
"""


def test_data_loader() -> None:
    """Workers forked after torch and posenc ran in parallel rotate large arrays, alone, to the same bits, and end."""
    assert run_python(LOADER, timeout=60) == "True"


FORKS = """
import os, threading, time, warnings
import numpy as np, posenc
warnings.simplefilter("ignore")
posenc.set_num_threads(2)
rope, x = posenc.Rope(64, layout="half"), np.ones((4, 4, 2048, 64), np.float32)
expected, stop = rope(x), threading.Event()

def hammer():
    y = x.copy()
    while not stop.is_set():
        rope(y, out=y)

def child():
    fine = posenc.get_num_threads() == 1 and np.array_equal(rope(x), expected)
    posenc.set_num_threads(4)
    os._exit(0 if fine and posenc.get_num_threads() == 1 and np.array_equal(rope(x), expected) else 1)

def reap(pid):
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "stuck"

threading.Thread(target=hammer, daemon=True).start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        child()
    codes.append(reap(pid))
stop.set()
print(codes == [0] * 20 and np.array_equal(rope(x), expected), codes)
"""


def test_forks_under_load() -> None:
    """Forked while another thread's call is split: the child has one thread and lives; the parent goes on."""
    assert run_python(FORKS, timeout=60).startswith("True")


# ---- threads ----


def race(work: Callable[[int], object], workers: int = 8) -> None:
    """Run work(0) .. work(workers - 1) at once, all starting together; the first exception is raised here."""
    barrier, errors = threading.Barrier(workers), []

    def run(i: int) -> None:
        try:
            barrier.wait(10)
            work(i)
        except BaseException as error:
            errors.append(error)

    pool = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(workers)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join(60)
    assert not any(thread.is_alive() for thread in pool), "a thread hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seq", [3, 257, 4096], ids=["under the GIL", "without the GIL", "split"])
def test_eight_threads_on_the_same_inputs(seq: int, threads: Callable[[int], None], rng: np.random.Generator) -> None:
    """Shared q, k, positions and tables, outputs of their own: every thread gets what one alone gets."""
    threads(2)
    rope = posenc.Rope(64, layout="interleaved", base=12345.0)
    q, k = (rng.standard_normal((2, heads, seq, 64)).astype(np.float32) for heads in (4, 2))
    positions = rng.integers(0, 9999, (2, seq))
    cos, sin = rope.table(10_000)
    expected = rope(q, k, positions=positions)

    def work(i: int) -> None:
        for _ in range(3):
            out = (np.empty_like(q), np.empty_like(k))
            rope(q, k, positions=positions, out=out)
            table = posenc.apply_rotary_emb(q, cos, sin, layout="interleaved", positions=positions)
            for found, wanted in ((out[0], expected[0]), (out[1], expected[1]), (table, expected[0])):
                assert_same_bits(found, wanted)

    race(work)


def test_eight_threads_meet_torch_and_new_objects() -> None:
    """First calls at once, in a process of its own: of tensors, bfloat16 arrays, new Ropes and worker threads."""
    code = """
import threading, numpy as np, ml_dtypes, torch, posenc
barrier, results = threading.Barrier(8), []
posenc.set_num_threads(2)
x = torch.ones(4, 1024, 512)

def work(i):
    barrier.wait(10)
    y = posenc.Rope(512, layout="half")(x)
    z = posenc.Rope(512, layout="half")(np.ones((3, 512), ml_dtypes.bfloat16))
    results.append((y.numpy().tobytes(), z.tobytes()))

pool = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[thread.start() for thread in pool]
[thread.join(30) for thread in pool]
print(len(results) == 8 and len(set(results)) == 1)
"""
    assert run_python(code) == "True"


ALIVE_AT_EXIT = """
import atexit, threading
atexit.register(lambda: print([thread.name for thread in threading.enumerate()]))    # runs after posenc's own
import numpy as np, posenc
posenc.set_num_threads(3)
posenc.Rope(512, layout="half")(np.ones((4, 1024, 512), np.float32))
"""


def test_no_worker_outlives_the_interpreter() -> None:
    """Workers have ended before Python does: one that it stops inside a C++ destructor takes the process with it."""
    assert run_python(ALIVE_AT_EXIT) == "['MainThread']"


# ---- how many threads ----


@pytest.fixture
def default_threads(monkeypatch: pytest.MonkeyPatch, threads: Callable[[int | None], None]) -> pytest.MonkeyPatch:
    """Take away what would decide before the processors do."""
    threads(None)
    for name in ("POSENC_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    return monkeypatch


def test_who_decides_the_number_of_threads(default_threads: pytest.MonkeyPatch) -> None:
    """From the last authority to the first, each overruling those before it."""
    default_threads.setattr(os, "sched_getaffinity", lambda pid: set(range(1)))
    assert posenc.get_num_threads() == 1
    default_threads.setitem(sys.modules, "torch", torch)
    default_threads.setattr(torch, "get_num_threads", lambda: 7)
    assert posenc.get_num_threads() == 7
    default_threads.setenv("OMP_NUM_THREADS", "5")
    assert posenc.get_num_threads() == 5
    default_threads.setenv("POSENC_NUM_THREADS", "3")
    assert posenc.get_num_threads() == 3
    posenc.set_num_threads(2)
    assert posenc.get_num_threads() == 2
    posenc.set_num_threads(None)
    assert posenc.get_num_threads() == 3


@pytest.mark.parametrize(("value", "count"), [("4,2", 4), (" 6 ", 6), ("", 1), ("0", 1), ("many", 1), ("-3", 1)])
def test_values_of_omp_num_threads(value: str, count: int, default_threads: pytest.MonkeyPatch) -> None:
    """The first of nested levels counts; what is no number is OpenMP's business, not ours."""
    default_threads.setattr(os, "sched_getaffinity", lambda pid: {0})
    default_threads.setenv("OMP_NUM_THREADS", value)
    assert posenc.get_num_threads() == count


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_values_of_our_own_variable(value: str, default_threads: pytest.MonkeyPatch) -> None:
    default_threads.setenv("POSENC_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"POSENC_NUM_THREADS must be a positive integer, got '{value}'"):
        posenc.get_num_threads()


def test_environment_and_affinity_of_a_process() -> None:
    code = """
import os, posenc
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(posenc.get_num_threads())
"""
    assert run_python(code, POSENC_NUM_THREADS="", OMP_NUM_THREADS="") == "1"
    assert run_python(code, POSENC_NUM_THREADS="3", OMP_NUM_THREADS="2") == "3"


# ---- interrupts ----

INTERRUPT = """
import json, os, signal, sys, threading, time
import numpy as np, posenc

posenc.set_num_threads(int(sys.argv[1]))
rope = posenc.Rope(2, layout="half")        # one pair: little memory for much work

def time_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

def long_enough(make):
    # a call on so many tokens that it takes a fifth of a second here, and the time it takes
    n = 1 << 20
    n *= 1 + int(0.2 / min(time_of(make(n)) for _ in range(3)))
    while True:
        call = make(n)
        whole = min(time_of(call), time_of(call))
        if whole > 0.17 or n > 1 << 27:
            return call, whole
        n *= 2

def rotate(n):
    x = np.ones((n, 2), np.float16)
    return lambda: rope(x, out=x)

def table(n):
    out = np.ones((n, 1)), np.ones((n, 1))
    return lambda: rope.table(n, dtype=np.float64, out=out)

def answer(call, delay):
    sent = []
    def interrupt():
        time.sleep(delay)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    inside = None
    try:
        thread.start()
        call()
        inside = False
        thread.join()
    except KeyboardInterrupt:
        inside = inside is None
    answered = time.perf_counter()
    thread.join()
    return answered - sent[0] if inside else None

found = {}
for make in (rotate, table):
    call, whole = long_enough(make)
    found[make.__name__] = {"whole": whole, "answers": [answer(call, 0.2 * whole) for _ in range(5)]}
small = np.ones((3, 2), np.float32)
found["next call"] = bool(np.array_equal(rope(small, out=small.copy()), rope(small)))
time.sleep(0.1)
x = np.ones((1 << 22, 2), np.float16)
last = rope(x[:1], offset=len(x) - 1)[0]
found["next large call"] = bool(np.array_equal(rope(x, out=x)[-1], last))
print(json.dumps(found))
"""
PROMISE = 0.050  # seconds: a look at the signals every 25 ms, and the MiB or the slice under way
TOLERANCE = 0.030  # the interpreter's switch interval (5 ms) and a scheduler's time slice or two on a busy machine


@pytest.mark.parametrize("count", [1, 2])
def test_interrupts_are_answered(count: int) -> None:
    """SIGINT after a fifth of a long call raises KeyboardInterrupt long before its end; the next calls are right.

    The median of five, so that one answer delayed by the machine does not count; a call that never looked would answer
    after the other four fifths, each time.
    """
    found = json.loads(run_python(INTERRUPT, count, timeout=120))
    for name in ("rotate", "table"):
        whole, answers = found[name]["whole"], found[name]["answers"]
        assert None not in answers, f"{name}: not interrupted inside the call, {found[name]}"
        assert 0.8 * whole > 1.5 * (PROMISE + TOLERANCE), f"{name} is too short to show anything: {whole} s"
        # other work on the machine only adds to an answer; two that are quick were not luck
        assert sorted(answers)[1] < PROMISE + TOLERANCE, f"{name}: {found[name]}"
    assert found["next call"]
    assert found["next large call"]


def interrupt_at(event: int, done: list[int]) -> int | None:
    """Interrupt a split call before the given line that its own code runs on this thread.

    Return how many of its parts had been done when KeyboardInterrupt came out, or None if the call has fewer lines.
    """
    count = 0

    def line(frame: Any, kind: str, argument: object) -> Any:
        nonlocal count
        count += kind == "line"
        if count == event:
            count += 1
            raise KeyboardInterrupt
        return line

    def enter(frame: Any, kind: str, argument: object) -> Any:
        return line if frame.f_code.co_filename == runtime.__file__ else None

    def part(i: int) -> None:
        time.sleep(0.001)
        done.append(i)

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        runtime.run_parts(part, 6, 3)
    except KeyboardInterrupt:
        return len(done)
    finally:
        sys.settrace(before)
    return None


def test_no_part_runs_after_an_interrupt() -> None:
    """Wherever the interrupt strikes, nobody writes into the caller's arrays once it has come out."""
    runtime.run_parts(lambda i: None, 6, 3)  # workers are there
    for event in range(1, 500):
        done: list[int] = []
        reported = interrupt_at(event, done)
        if reported is None:
            assert event > 20
            return
        time.sleep(0.005)
        assert len(done) == reported, f"interrupted at line {event}, {len(done) - reported} parts were done afterwards"
    pytest.fail("the call never ended")


# ---- leaks ----

CALLS = 100_000
LEAK_SLACK = 1000  # blocks: caches of the interpreter; one object left by each call of one variant gives thousands


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
        self.cos, self.sin = _core.table(self.spec, 16, False, None, 2**40, False)
        self.out = (np.empty((4, 4), np.float32), np.empty((4, 4), np.float32))

    def references(self) -> list[int]:
        return [sys.getrefcount(value) for value in vars(self).values()]

    def rotate(self, q: Any, k: Any = None, out: Any = None, rows: Any = None, offset: Any = 0, axis: Any = -2) -> Any:
        return _core.rotate(self.spec, q, k, out, rows, offset, axis, 2**40, False)

    def apply(self, x: Any, cos: Any, sin: Any, out: Any = None, rows: Any = None, offset: Any = 0) -> Any:
        return _core.apply(x, cos, sin, out, rows, offset, -2, 0, 0, False, 2**40, False)

    def table(self, positions: Any, out: Any = None, wide: bool = False) -> Any:
        return _core.table(self.spec, positions, wide, out, 2**40, False)


def rotate_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: w.rotate(w.x),
        lambda: w.rotate(w.x, w.k),
        lambda: w.rotate(w.x, w.k, (w.x, w.k)),
        lambda: w.rotate(w.x, None, w.y),
        lambda: w.rotate(w.half, rows=w.narrow),
        lambda: w.rotate(w.brain, rows=w.rows),
        lambda: w.rotate(w.x, offset=w.offsets),
        lambda: _core.rotate(w.spec, w.x, None, None, None, 0, -2, 0, False),
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
        lambda: _core.rotate(w.x, w.x, None, None, None, 0, -2, 0, False),
        lambda: _core.rotate(w.x),
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


def table_calls(w: Watched) -> tuple[list[Callable[[], object]], list[Callable[[], object]]]:
    right = [
        lambda: w.table(4),
        lambda: w.table(w.narrow, wide=True),
        lambda: w.table(w.rows, w.out),
        lambda: _core.table(w.spec, 4, False, None, 0, False),
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
        lambda: _core.table(w.x, 4, False, None, 0, False),
        lambda: _core.table(w.x),
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
    before, nones = watched.references(), sys.getrefcount(None)
    blocks = grown(calls, count)
    assert blocks < LEAK_SLACK, f"{blocks} blocks were left by {count} calls"
    assert watched.references() == before
    assert abs(sys.getrefcount(None) - nones) < LEAK_SLACK


@pytest.mark.parametrize("make", [rotate_calls, apply_calls, table_calls, other_calls])
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


# ---- instruction sets, floating point, import ----


def test_unknown_instruction_set() -> None:
    child = run_child("import posenc", POSENC_ISA="sse9")
    assert child.returncode == 1
    text = "ImportError: POSENC_ISA=sse9 names no instruction set level that this processor can run"
    assert text in child.stderr.splitlines()[-1]


def test_every_instruction_set_can_be_forced() -> None:
    _, levels = _core.runtime()
    assert levels[-1] == "scalar"
    for level in (*levels, ""):
        used = run_python("import posenc; print(posenc._core.runtime()[0])", POSENC_ISA=level)
        assert used == (level or levels[0])


SUBNORMALS = """
import numpy as np
import posenc
small = np.array([1e-45, 2e-40, -1e-44, 1e-38], np.float32)
assert (small * np.float32(1) == small).all() and (small[:1] + small[1:2] > small[1]).all(), "flushed to zero"
assert np.float64(5e-324) * 1 == 5e-324 and np.float64(2e-308) / 4 != 0
print("kept")
"""


def test_subnormals_after_import() -> None:
    """Loading the extension does not make this process flush subnormals to zero."""
    assert run_python(SUBNORMALS) == "kept"


@pytest.mark.parametrize("layout", ["half", "interleaved", "interleaved_to_half"])
def test_subnormals_are_rotated(layout: str) -> None:
    """Position 0 keeps them, a quarter turn moves them, whole; none is read or written as zero."""
    rope = posenc.Rope(40, layout=layout, inv_freq=[0.0] * 20)
    quarter = (np.zeros((3, 20)), np.ones((3, 20)))
    for dtype, bits in ((np.float32, "u4"), (np.float64, "u8"), (np.float16, "u2"), (ml_dtypes.bfloat16, "u2")):
        x = np.arange(1, 121).astype(bits).view(dtype).reshape(3, 40)
        moved = rope(x)
        assert np.array_equal(np.sort(moved.view(bits), -1), x.view(bits))
        tables = [table.astype(np.float64 if dtype is np.float64 else np.float32) for table in quarter]
        turned = posenc.apply_rotary_emb(x, *tables, layout=layout)
        sign = 1 << (8 * x.itemsize - 1)
        assert np.array_equal(np.sort(turned.view(bits) & ~np.array(sign, bits), -1), x.view(bits))


def floating_point_control() -> tuple[int, ...]:
    """Return rounding mode, traps and flush-to-zero of this thread, without the sticky flags."""
    libm = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(128)
    assert libm.fegetenv(buffer) == 0
    if platform.machine() != "x86_64":
        return (libm.fegetround(),)
    x87, mxcsr = struct.unpack_from("<H", buffer.raw, 0)[0], struct.unpack_from("<I", buffer.raw, 28)[0]
    return libm.fegetround(), x87, mxcsr & ~0x3F


def ordinary_calls() -> Iterator[Callable[[], object]]:
    for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        for layout in ("half", "interleaved", "interleaved_to_half"):
            for head_dim in (3, 8, 34, 127, 130):
                rope, x = posenc.Rope(head_dim, layout=layout), np.ones((2, 5, head_dim)).astype(dtype)
                yield lambda rope=rope, x=x: rope(x, offset=3)
                yield lambda rope=rope, x=x: rope(x, inverse=True, positions=[1e9, -3.5, 0, 2, 2**31 - 1], out=x)
                yield lambda rope=rope: rope.table(50, dtype=np.float64)
                yield lambda rope=rope: rope.table([0.5, 3e5, -1e9])


@pytest.mark.parametrize("mode", range(4))
def test_floating_point_control_stays(mode: int) -> None:
    """Under each rounding mode, calls leave the mode, the traps and flush-to-zero as they find them."""
    libm = ctypes.CDLL(None)
    known = {"x86_64": 0x400, "aarch64": 0x400000}
    direction = mode * known.get(platform.machine(), 0)
    calls = list(ordinary_calls())
    assert libm.fesetround(direction) == 0
    try:
        before = floating_point_control()
        for call in calls:
            call()
        after = floating_point_control()
    finally:
        libm.fesetround(0)
    assert before[0] == direction
    assert after == before


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the flags' bits are these processors'")
def test_no_spurious_floating_point_exceptions() -> None:
    """Ordinary input raises no flag but inexact: no invalid operation, division by zero or overflow in a spare lane."""
    libm = ctypes.CDLL(None)
    inexact = {"x86_64": 0x20, "aarch64": 0x10}[platform.machine()]
    everything = {"x86_64": 0x3D, "aarch64": 0x1F}[platform.machine()]
    for call in ordinary_calls():
        libm.feclearexcept(everything)
        call()
        assert libm.fetestexcept(everything) & ~inexact == 0


IMPORT = """
import time
import numpy
start = time.perf_counter()
import posenc
print(time.perf_counter() - start)
"""
IMPORT_SECONDS = 0.010


def test_import_cost(tmp_path: Path) -> None:
    """At most 10 ms beyond NumPy, compiled as an installer leaves it.

    The fastest of up to ten processes, since other work on the machine only makes it slower.
    """
    shutil.copytree(PACKAGE_ROOT / "posenc", tmp_path / "posenc", ignore=shutil.ignore_patterns("data", "__pycache__"))
    assert compileall.compile_dir(tmp_path / "posenc", quiet=1)
    times = []
    while len(times) < 10 and min(times, default=1) > IMPORT_SECONDS:
        times.append(float(run_python(IMPORT, PYTHONPATH=str(tmp_path))))
    assert min(times) <= IMPORT_SECONDS, f"importing posenc takes {1000 * min(times):.1f} ms"


def test_import_starts_nothing() -> None:
    """No thread, no warning, no file opened but modules."""
    code = """
import sys, threading
import numpy
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import posenc
print(threading.active_count(), [name for name in opened if "posenc" not in name and "/lib/python" not in name])
"""
    assert run_python(code) == "1 []"
