"""The process around a call: instruction sets, the floating-point environment, the cost of importing."""

from __future__ import annotations

import compileall
import ctypes
import platform
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import posenc
from conftest import PACKAGE_ROOT, run_child, run_python
from posenc import _core


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


# ---- the floating-point environment ----

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


# ---- import ----

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
