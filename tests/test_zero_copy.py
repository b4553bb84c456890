"""Nothing is copied: no call makes a temporary of its input's size, and results lie where the caller put them.

Two instruments: tracemalloc counts what Python and NumPy allocate, the kernel's high-water mark of resident memory sees
everything else. Both are shown to see a copy before they are believed.
"""

from __future__ import annotations

import ctypes
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

import posenc

MIB = 2**20
BYTES = 32 * MIB  # of every array here
TRACED_SLACK = 2 * MIB  # the slices and worker threads of a split call, and the positions of its parts
RESIDENT_SLACK = 4 * MIB  # stacks, pages of the allocator; an eighth of what a copy takes
LIBC = ctypes.CDLL(None)
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")

pytestmark = pytest.mark.skipif(not CLEAR_REFS.exists(), reason="resident memory is read from Linux's /proc")


def resident(field: str) -> int:
    """Return VmRSS (now) or VmHWM (the most since the last reset), in bytes."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1])


def peaks(call: Callable[[], object]) -> tuple[int, int]:
    """Return the most memory in use during a call beyond what was before it: traced, resident.

    Free memory that the allocator holds goes back to the kernel first: a copy into it would not grow the process.
    """
    LIBC.malloc_trim(0)
    CLEAR_REFS.write_text("5")  # the mark starts again from what is resident now
    before = resident("VmRSS")
    tracemalloc.start()
    try:
        result = call()
        traced = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = resident("VmHWM") - before
    del result
    return traced, most


def assert_no_copy(call: Callable[[], object]) -> None:
    """The call uses a small fraction of its arrays' size, also the second time."""
    for _ in range(2):
        traced, most = peaks(call)
        assert traced < TRACED_SLACK, f"{traced / MIB:.1f} MiB were allocated"
        assert most < RESIDENT_SLACK, f"{most / MIB:.1f} MiB became resident"


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def _threads(request: pytest.FixtureRequest, threads: Callable[[int], None]) -> None:
    threads(request.param)


def filled(*shape: int, dtype: type = np.float32) -> np.ndarray:
    """Return an array of BYTES whose pages exist."""
    array = np.ones(shape, dtype)
    assert array.nbytes == BYTES
    return array


def test_the_instruments_see_a_copy() -> None:
    x = filled(2, 32, 1024, 128)
    held = [np.ones(2**12, np.uint8) for _ in range(2**14)]  # 64 MiB that the allocator keeps
    last = np.ones(2**12, np.uint8)
    del held
    for copy in (x.copy, lambda: posenc.Rope(128, layout="half")(x)):
        traced, most = peaks(copy)
        assert traced >= BYTES
        assert most >= BYTES // 2  # sampled: the peak itself can be missed
    assert last.all()


VIEWS: dict[str, Callable[[], np.ndarray]] = {
    "contiguous": lambda: filled(2, 32, 1024, 128),
    "float16": lambda: filled(2, 64, 1024, 128, dtype=np.float16),
    "bfloat16": lambda: filled(2, 64, 1024, 128, dtype=ml_dtypes.bfloat16),
    "float64": lambda: filled(2, 16, 1024, 128, dtype=np.float64),
    "heads behind the sequence": lambda: filled(2, 1024, 32, 128).transpose(0, 2, 1, 3),
    "backwards": lambda: filled(2, 32, 1024, 128)[:, ::-1, ::-1],
    "strided last axis": lambda: filled(2, 16, 1024, 256)[..., ::2],
    "a part of each head": lambda: filled(2, 16, 1024, 256)[..., 100:228],
}


@pytest.mark.parametrize("layout", ["half", "interleaved", "interleaved_to_half"])
@pytest.mark.parametrize("name", VIEWS)
def test_in_place(name: str, layout: str) -> None:
    x, rope = VIEWS[name](), posenc.Rope(128, layout=layout)
    address = x.ctypes.data
    assert_no_copy(lambda: rope(x, offset=7, out=x))
    assert rope(x, out=x).ctypes.data == address


@pytest.mark.parametrize("name", VIEWS)
def test_into_a_given_array(name: str) -> None:
    x, out = VIEWS[name](), VIEWS[name]()
    rope, address = posenc.Rope(128, layout="half"), out.ctypes.data
    assert_no_copy(lambda: rope(x, positions=np.arange(1024)[::-1], out=out))
    assert rope(x, out=out).ctypes.data == address


def test_a_new_array_is_all_there_is() -> None:
    """Out of place, one array of the input's size and no second one."""
    x, rope = filled(2, 32, 1024, 128), posenc.Rope(128, layout="half")
    traced, most = peaks(lambda: rope(x))
    assert BYTES <= traced < BYTES + TRACED_SLACK
    assert most < BYTES + RESIDENT_SLACK


def test_q_and_k_of_one_packed_array() -> None:
    qkv, rope = filled(2, 1024, 64, 64), posenc.Rope(64, layout="half")
    q, k = qkv[:, :, :48], qkv[:, :, 48:56]
    assert_no_copy(lambda: rope(q, k, seq_axis=1, offset=[3, 1000], out=(q, k)))


def test_an_odd_head_makes_no_padded_copy() -> None:
    x = filled(2, 32, 1024, 128)[..., :127]
    rope = posenc.Rope(127, layout="half")
    assert_no_copy(lambda: rope(x, out=x))


def test_ready_tables() -> None:
    """Neither x nor tables as large as x are copied: by rows, by positions, conjugated, strided."""
    x = filled(64, 1024, 128)
    cos, sin = np.ones((64, 1024, 64), np.float32), np.ones((64, 1024, 64), np.float32)
    rows = np.arange(1024)[::-1].copy()

    def call(c: np.ndarray, s: np.ndarray, **how: object) -> None:
        posenc.apply_rotary_emb(x, c, s, layout="interleaved", out=x, **how)

    assert_no_copy(lambda: call(cos, sin))
    assert_no_copy(lambda: call(cos, sin, positions=rows))
    assert_no_copy(lambda: call(cos[:, ::-1], sin, conjugate=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_making_tables(dtype: type) -> None:
    cos = np.zeros((BYTES // 64 // np.dtype(dtype).itemsize, 64), dtype)
    sin = np.zeros_like(cos) + 0.0
    cos += 0.0
    rope = posenc.Rope(128, layout="half")
    assert_no_copy(lambda: rope.table(len(cos), dtype=dtype, out=(cos, sin)))


@pytest.mark.parametrize("name", VIEWS)
def test_adding_positions(name: str) -> None:
    """Nothing of the size of the embeddings, and no copy of a table as large as they are."""
    x, out = VIEWS[name](), VIEWS[name]()
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    table, rows = np.ones((BYTES // 128 // np.dtype(dtype).itemsize, 128), dtype), np.arange(1024)[::-1].copy()
    assert_no_copy(lambda: posenc.add_positions(x, table, offset=7, out=x))
    assert_no_copy(lambda: posenc.add_positions(x, table[:, ::-1], positions=rows, padding_idx=3, out=out))
    assert_no_copy(lambda: posenc.add_sinusoidal(x, convention="fairseq", positions=rows, out=x))
    assert_no_copy(lambda: posenc.add_sinusoidal(x, offset=70, out=out))
    gradient = np.ones_like(table[:1024])
    assert_no_copy(lambda: posenc.position_table_gradient(x, positions=rows, out=gradient))


def test_making_sinusoidal_tables() -> None:
    out = np.ones((BYTES // 4 // 512, 512), np.float32)
    for convention in ("paper", "cos_first"):
        assert_no_copy(lambda name=convention: posenc.sinusoidal_table(len(out), 512, convention=name, out=out))
        spread = out.reshape(-1, 1024)[:, ::2]
        assert_no_copy(
            lambda name=convention, out=spread: posenc.sinusoidal_table(len(out), 512, convention=name, out=out)
        )


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_adding_gradients(dtype: type) -> None:
    """Rows where they lie, rows gathered from strides, rows whose pairs move."""
    grad = filled(BYTES // np.dtype(dtype).itemsize // (1024 * 128), 1024, 128, dtype=dtype)
    out = np.ones_like(grad)
    of_x = posenc.gradients.of_x
    for layout in ("half", "interleaved_to_half"):
        rope = posenc.Rope(128, layout=layout)
        tables = rope.table(1024)
        assert_no_copy(lambda rope=rope: of_x(rope, grad, out=out, accumulate=True))
        assert_no_copy(
            lambda layout=layout, tables=tables: posenc.gradients.of_x_by_tables(
                grad[..., ::-1], *tables, layout=layout, out=out, accumulate=True
            )
        )


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def tensor(request: pytest.FixtureRequest) -> torch.Tensor:
    size = 4 if request.param is torch.float32 else 2
    return torch.ones(BYTES // size // (1024 * 128), 1024, 128, dtype=request.param)


def test_tensors(tensor: torch.Tensor) -> None:
    rope, out = posenc.Rope(128, layout="half"), torch.ones_like(tensor)
    address, other = tensor.data_ptr(), out.data_ptr()
    assert_no_copy(lambda: rope(tensor, out=tensor))
    assert_no_copy(lambda: rope(tensor, out=out))
    turned = tensor.transpose(0, 1)
    assert_no_copy(lambda: rope(turned, seq_axis=0, out=turned))
    assert tensor.data_ptr() == turned.data_ptr() == address
    assert out.data_ptr() == other


SCORES: dict[str, Callable[[], np.ndarray]] = {
    "contiguous": lambda: filled(2, 4, 1024, 1024),
    "bfloat16": lambda: filled(2, 8, 1024, 1024, dtype=ml_dtypes.bfloat16),
    "heads behind the queries": lambda: filled(2, 1024, 4, 1024).transpose(0, 2, 1, 3),
    "strided": lambda: filled(2, 4, 1024, 1024)[..., ::-1, ::-1],
}


@pytest.mark.parametrize("name", SCORES)
def test_biases(name: str) -> None:
    """In place, and into a given array; nothing of the scores' size, nor of a head's (4 MiB), is built."""
    x, out = SCORES[name](), SCORES[name]()
    heads, table, address = x.shape[1], np.ones((32, x.shape[1]), np.float32), x.ctypes.data
    slopes, key = posenc.alibi_slopes(heads), np.arange(1024)[::-1]
    for target in (x, out):
        assert_no_copy(lambda target=target: posenc.add_alibi(x, slopes, causal=True, out=target))
        assert_no_copy(lambda target=target: posenc.add_alibi(x, slopes, key_positions=key, window=9, out=target))
        assert_no_copy(lambda target=target: posenc.add_t5_bias(x, table, bidirectional=True, out=target))
        assert_no_copy(lambda target=target: posenc.mask_scores(x, causal=True, window=100, sinks=4, out=target))
    assert_no_copy(lambda: posenc.bias.gradients.of_slopes(x))
    assert_no_copy(lambda: posenc.bias.gradients.of_t5_table(x, bidirectional=True))
    assert posenc.add_alibi(x, slopes, out=x).ctypes.data == address
