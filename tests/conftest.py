"""What all tests share: a printed seed, arrays between guard pages, and the assertion that memory did not change."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import secrets
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.array_utils import byte_bounds

import posenc

SEED = int(os.environ.get("POSENC_TEST_SEED") or secrets.randbits(32))
PACKAGE_ROOT = Path(posenc.__file__).parents[1]
PROT_NONE = 0
Child = subprocess.CompletedProcess[str]

Guarded = Callable[..., np.ndarray]


def pytest_report_header() -> str:
    return f"random seed: POSENC_TEST_SEED={SEED}"


gc.disable()  # while torch and transformers are imported and their sources read: little of that is garbage


def pytest_collection_finish() -> None:
    """Modules stay until the end: no search for garbage need walk through them again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Repeat the seed where -q hides the header and something failed."""
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"random seed: POSENC_TEST_SEED={SEED}")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator of its own for every test, so that a test alone draws what it drew in the whole suite."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


# ---- memory that must not change ----


def owner_of(array: np.ndarray) -> np.ndarray:
    """Return the array whose allocation this one views, also through the proxy that as_strided leaves between them."""
    for owner in (array.base, getattr(array.base, "base", None)):
        if isinstance(owner, np.ndarray):
            return owner_of(owner)
    return array


def memory_of(array: Any) -> np.ndarray:
    """Return a copy of all bytes of the allocation behind an array or a tensor, not only those of the view."""
    if hasattr(array, "untyped_storage"):
        import torch

        return torch.empty(0, dtype=torch.uint8).set_(array.untyped_storage()).numpy().copy()
    return np.frombuffer(owner_of(array).tobytes("A"), np.uint8)


def outside(*views: Any) -> np.ndarray:
    """Return which bytes of the allocation behind some arrays or tensors belong to none of their elements."""
    start = first_byte(views[0])
    free = np.ones(len(memory_of(views[0])), bool)
    for view in views:
        is_tensor = hasattr(view, "untyped_storage")
        strides = [n * view.element_size() for n in view.stride()] if is_tensor else view.strides
        offsets = np.int64((view.data_ptr() if is_tensor else view.__array_interface__["data"][0]) - start)
        for length, stride in zip(view.shape, strides, strict=True):
            offsets = np.add.outer(offsets, np.arange(length) * (stride if length > 1 else 0))
        for byte in range(view.itemsize):
            free[offsets.ravel() + byte] = False
    return free


def first_byte(array: Any) -> int:
    """Return where the allocation behind an array or a tensor begins."""
    if hasattr(array, "untyped_storage"):
        return array.untyped_storage().data_ptr()
    return byte_bounds(owner_of(array))[0]


@contextlib.contextmanager
def assert_untouched(*arrays: Any) -> Iterator[None]:
    """Not one byte of the allocations behind these arrays changes meanwhile."""
    before = [memory_of(array) for array in arrays]
    yield
    for i, array in enumerate(arrays):
        changed = np.flatnonzero(memory_of(array) != before[i])
        assert not len(changed), f"array {i}: {len(changed)} bytes changed, the first at byte {changed[0]}"


def assert_refused(error: type[BaseException], message: str, call: Callable[[], object], *arrays: Any) -> None:
    """The call raises exactly this type, its text contains the message, and the arrays stay as they are."""
    with assert_untouched(*arrays), pytest.raises(error) as caught:
        call()
    assert caught.type is error, f"{caught.type.__name__} is not {error.__name__}: {caught.value}"
    assert message in str(caught.value)


def assert_same_bits(found: Any, wanted: Any) -> None:
    """Same shape, same dtype, same bits in every element (so NaN and -0 count)."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    found, wanted = bits(found), bits(wanted)
    different = np.argwhere(found != wanted)
    where = tuple(int(i) for i in different[0]) if len(different) else ()
    assert not len(different), f"{len(different)} of {found.size} elements differ, the first at {where}"


def bits(array: Any) -> np.ndarray:
    """Return the elements as unsigned integers."""
    if hasattr(array, "untyped_storage"):
        import torch

        kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[array.element_size()]
        array = array.detach().contiguous().view(kind).numpy()
    array = np.ascontiguousarray(array)
    return array.view(f"u{array.dtype.itemsize}")


# ---- guard pages ----


def _protect(buffer: mmap.mmap, start: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) + start
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")


def guarded_array(source: Any, *, side: str = "after") -> np.ndarray:
    """Return a contiguous copy whose last ("after") or first ("before") byte touches a page that nobody may touch.

    Any access outside it on that side ends the process. A guard page stands on the far side too.
    """
    source = np.ascontiguousarray(source)
    page = mmap.PAGESIZE
    inner = -(-max(source.nbytes, 1) // page) * page
    buffer = mmap.mmap(-1, inner + 2 * page)
    start = page if side == "before" else page + inner - source.nbytes
    array = np.ndarray(source.shape, source.dtype, buffer=buffer, offset=start)
    array[...] = source
    _protect(buffer, 0, page)
    _protect(buffer, page + inner, page)
    return array


@pytest.fixture
def guarded() -> Guarded:
    """Return the factory of guarded arrays."""
    return guarded_array


# ---- another library ----


class OtherArray:
    """Another library's CPU array: __dlpack__ and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


# ---- another process ----


def run_child(
    code: str, *arguments: object, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a child Python, warnings being errors, and return what became of it."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def run_python(code: str, *arguments: object, timeout: float = 60, **environment: str) -> str:
    """Return what the code printed in a child Python that ended well."""
    child = run_child(code, *arguments, timeout=timeout, **environment)
    assert child.returncode == 0, f"exit code {child.returncode}\n{child.stdout}\n{child.stderr}"
    return child.stdout.strip()


# ---- torch ----


@pytest.fixture
def quiet_torch() -> Iterator[None]:
    """Leave torch's own deprecations of torch.jit alone, and its threads, which small sums only make slower."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        yield
    torch.set_num_threads(threads)


# ---- threads ----


@pytest.fixture
def threads() -> Iterator[Callable[[int | None], None]]:
    """Return set_num_threads; the number goes back to the default afterwards."""
    yield posenc.set_num_threads
    posenc.set_num_threads(None)
