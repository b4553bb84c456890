"""Calls from many threads at once, the end of the workers, and who decides how many there are."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

import posenc
from conftest import assert_same_bits, run_python
from posenc import _core, runtime


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


STARTED = """
import os
import numpy as np, posenc
rope, x = posenc.Rope(512, layout="half"), np.ones((4, 1024, 512), np.float32)
counts = [len(os.listdir("/proc/self/task"))]
for wanted in (1, 3, 3, 2, 4):
    posenc.set_num_threads(wanted)
    rope(x[0, :3])
    counts.append(len(os.listdir("/proc/self/task")))
    rope(x)
    counts.append(len(os.listdir("/proc/self/task")))
print([n - counts[0] for n in counts[1:]])
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_when_workers_are_started() -> None:
    """Not by the import, nor by small calls; by large ones as many as are missing; and the process ends with them."""
    assert run_python(STARTED) == "[0, 0, 0, 2, 2, 2, 2, 2, 2, 3]"


LOOP = """
import os, time
import numpy as np, posenc
rope, x = posenc.Rope(128, layout="half"), np.ones((64, 40, 1, 128), np.float32)
positions = 61 * np.arange(64)[:, None]
expected, out = rope(x[:1], positions=positions[:1]), np.empty_like(x)
before = len(os.listdir("/proc/self/task"))

def loop(seconds, pause):
    # how many threads there are after calls for so long, or until there are more
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(os.listdir("/proc/self/task")) == before:
        for _ in range(200):
            rope(x, positions=positions, out=out)
            time.sleep(pause)
    return len(os.listdir("/proc/self/task")) - before

posenc.set_num_threads(1)
print(loop(0.1, 0), end=" ")
posenc.set_num_threads(2)
print(loop(0.1, 0.002), loop(20, 0), end=" ")
whole = rope(x, positions=positions)
same = True
for i in range(2000):
    out[...] = 0
    rope(x, positions=positions, out=out)
    same &= out.tobytes() == whole.tobytes()
print(same and np.array_equal(whole[:1], expected))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux shows them")
def test_loops_of_calls_of_medium_length() -> None:
    """20 us each: one thread starts no other, calls with pauses between them neither; a loop does, to the same bits."""
    assert run_python(LOOP) == "0 0 1 True"


def heads_first(heads: int, batch: int = 1) -> tuple[int, ...]:
    return batch, heads, 96, 64


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(
    ("q_shape", "k_shape", "seq_axis"),
    [
        (heads_first(32), heads_first(8), -2),  # along the heads, four times as many of q
        (heads_first(32), heads_first(1), -2),
        (heads_first(1), heads_first(40), -2),  # k's heads are nobody's to cut by: along the sequence
        (heads_first(16, 3), heads_first(4, 3), -2),  # along the batch
        ((2, 96, 32, 64), (2, 96, 8, 64), -3),
        ((96, 32, 64), (96, 8, 64), 0),  # packed
        ((32, 32, 1, 128), (32, 8, 1, 128), -2),  # decode
    ],
    ids=str,
)
def test_parts_of_calls_of_medium_length(
    q_shape: tuple[int, ...],
    k_shape: tuple[int, ...],
    seq_axis: int,
    n: int,
    threads: Callable[[int], None],
    rng: np.random.Generator,
) -> None:
    """As a loop of such calls gets them, of arrays in each order in memory: to the bits of one thread."""
    rope = posenc.Rope(q_shape[-1], layout="half")
    batch, seq = q_shape[0], q_shape[seq_axis]
    positions = rng.integers(0, 9999, seq if seq_axis == 0 else (batch, seq))
    for order in "CF":
        q, k = (np.asarray(rng.standard_normal(shape), np.float32, order=order) for shape in (q_shape, k_shape))
        threads(1)
        expected = rope(q, k, positions=positions, seq_axis=seq_axis)
        threads(n)
        found = runtime.on_threads(_core.rotate, rope._spec, q, k, None, positions, 0, seq_axis)
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
        out = q.copy(order="K"), k.copy(order="K")
        runtime.on_threads(_core.rotate, rope._spec, *out, out, positions, 0, seq_axis)
        assert_same_bits(out[0], expected[0])
        assert_same_bits(out[1], expected[1])


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


@pytest.mark.parametrize(
    ("value", "count"), [("4,2", 4), (" 6 ", 6), ("", 1), ("0", 1), ("many", 1), ("-3", 1), ("1024", 1024), ("1025", 1)]
)
def test_values_of_omp_num_threads(value: str, count: int, default_threads: pytest.MonkeyPatch) -> None:
    """The first of nested levels counts; what is no number is OpenMP's business, not ours."""
    default_threads.setattr(os, "sched_getaffinity", lambda pid: {0})
    default_threads.setenv("OMP_NUM_THREADS", value)
    assert posenc.get_num_threads() == count


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "00", "1025", "99999999999999999999", "9" * 99])
def test_values_of_our_own_variable(value: str, default_threads: pytest.MonkeyPatch) -> None:
    default_threads.setenv("POSENC_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"POSENC_NUM_THREADS must be an integer from 1 to 1024, got '{value[:98]}"):
        posenc.get_num_threads()


def test_no_authority_asks_for_more_than_1024(default_threads: pytest.MonkeyPatch) -> None:
    default_threads.setattr(os, "sched_getaffinity", lambda pid: set(range(5000)))
    default_threads.setattr(runtime, "_cgroup_quota", lambda: 5000)
    assert posenc.get_num_threads() == 1024
    default_threads.setitem(sys.modules, "torch", torch)
    default_threads.setattr(torch, "get_num_threads", lambda: 4096)
    assert posenc.get_num_threads() == 1024


@pytest.mark.parametrize("n", [1, 1024, np.int64(3), np.uint8(7)], ids=repr)
def test_numbers_of_threads(n: int, threads: Callable[[int | None], None]) -> None:
    """Any integer type, kept as a plain int."""
    threads(n)
    assert posenc.get_num_threads() == n
    assert type(posenc.get_num_threads()) is int


def test_environment_and_affinity_of_a_process() -> None:
    code = """
import os, posenc
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(posenc.get_num_threads())
"""
    assert run_python(code, POSENC_NUM_THREADS="", OMP_NUM_THREADS="") == "1"
    assert run_python(code, POSENC_NUM_THREADS="3", OMP_NUM_THREADS="2") == "3"
