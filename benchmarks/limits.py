"""Load limits.c: compile it with the C compiler at hand, bind it, and make calls of it."""

import ctypes
import functools
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Unavailable

Array = npt.NDArray[Any]

KINDS = ("scale", "copy", "copy_stream", "fill", "fill_stream")
_ALIGNMENT = 64  # what non-temporal stores of 512 bits need


class _Region(ctypes.Structure):
    _fields_ = (("y", ctypes.c_void_p), ("x", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


def compiler() -> list[str]:
    """Return the C compiler's command: the environment's CC, else cc."""
    return shlex.split(os.environ.get("CC", "cc"))


@functools.cache
def load() -> ctypes.CDLL:
    """Compile limits.c into a temporary directory and load it.

    Raises
    ------
    Unavailable
        Without a working C compiler.
    """
    source = Path(__file__).with_name("limits.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "limits.so"
        flags = ["-std=gnu11", "-O3", "-shared", "-fPIC", "-pthread", "-Wall", "-Wextra"]
        try:
            subprocess.run([*compiler(), *flags, str(source), "-o", str(library)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"limits.c does not compile: {error}") from error
        loaded = ctypes.CDLL(str(library))
    loaded.limits_isa.restype = ctypes.c_char_p
    loaded.limits_start.restype = ctypes.c_bool
    loaded.limits_run.restype = None
    loaded.limits_run.argtypes = [
        ctypes.c_int,
        ctypes.POINTER(_Region),
        ctypes.c_int,
        ctypes.c_float,
        ctypes.c_int,
    ]
    return loaded


def isa() -> str:
    """Return the name of the vectors that the limits are written with here."""
    return bytes(load().limits_isa()).decode()


def _region(y: Array, x: Array | None, streams: bool) -> _Region:
    for array in (y,) if x is None else (y, x):
        if not array.flags.c_contiguous or array.nbytes != y.nbytes or array.nbytes % 4:
            raise ValueError("limits take contiguous arrays of equal size, in whole 4 bytes")
    if streams and y.ctypes.data % _ALIGNMENT:
        raise ValueError(f"non-temporal stores need memory aligned to {_ALIGNMENT} bytes")
    return _Region(y.ctypes.data, None if x is None else x.ctypes.data, y.nbytes)


def call(kind: str, outputs: Sequence[Array], inputs: Sequence[Array] = (), threads: int = 1) -> Callable[[], None]:
    """Return a call that runs one limit over arrays, q and k for instance.

    Parameters
    ----------
    kind : {"scale", "copy", "copy_stream", "fill", "fill_stream"}
        "scale" multiplies by one in place; "_stream" means non-temporal stores.
    outputs : sequence of ndarray
        Written; kept alive by the call that is returned.
    inputs : sequence of ndarray
        Read by a copy, as many as outputs.
    threads : int
        On how many threads the bytes are split.

    Returns
    -------
    callable
        Without arguments.
    """
    library = load()
    if threads > 1 and not library.limits_start(threads):
        raise Unavailable(f"limits.c could not start {threads} threads")
    sources: Sequence[Array | None] = inputs or [None] * len(outputs)
    pairs = zip(outputs, sources, strict=True)
    found = [_region(y, x, kind.endswith("_stream")) for y, x in pairs]
    regions = (_Region * len(found))(*found)
    run, code, count = library.limits_run, KINDS.index(kind), len(found)
    keep = (outputs, inputs)

    def once(_keep: object = keep) -> None:
        run(code, regions, count, 1.0, threads)

    return once


def empty_c_call() -> Callable[[], object]:
    """Return a method in C that takes nothing and does nothing: the floor of any call."""
    return sys.is_finalizing


def aligned(shape: Sequence[int], dtype: npt.DTypeLike, shift: int = 0) -> Array:
    """Return an array at a multiple of 64 bytes plus `shift`, its pages touched.

    Memory comes from NumPy, so that large arrays lie on huge pages where the system gives them.
    """
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + 2 * _ALIGNMENT, np.uint8)
    raw.fill(0)
    start = -raw.ctypes.data % _ALIGNMENT + shift
    return raw[start : start + size].view(kind).reshape(shape)
