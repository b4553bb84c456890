"""ggml's rope operator, through its shared library.

The environment variable POSENC_BENCH_GGML names libggml.so (see README.md). Only functions of ggml's
public headers are called; its structures are not known here, but for the parameters of ggml_init.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Unavailable

Array = npt.NDArray[Any]

_TYPES = {"float32": 0, "float16": 1, "int32": 26}  # enum ggml_type
_MODES = {"interleaved": 0, "half": 2}  # GGML_ROPE_TYPE_NORMAL, _NEOX
_POINTER, _INT, _SIZE, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_float
_ALIGNMENT = 64

# ggml_rope_ext_inplace: context, tensor, positions, factors, dims, mode, original length, then six numbers
_ROPE = [_POINTER] * 4 + [_INT] * 3 + [_FLOAT] * 6


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", _SIZE), ("mem_buffer", _POINTER), ("no_alloc", ctypes.c_bool))


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_init": (_POINTER, [_InitParams]),
    "ggml_new_tensor_4d": (_POINTER, [_POINTER, _INT] + [ctypes.c_int64] * 4),
    "ggml_new_tensor_1d": (_POINTER, [_POINTER, _INT, ctypes.c_int64]),
    "ggml_permute": (_POINTER, [_POINTER, _POINTER] + [_INT] * 4),
    "ggml_rope_ext_inplace": (_POINTER, _ROPE),
    "ggml_new_graph": (_POINTER, [_POINTER]),
    "ggml_build_forward_expand": (None, [_POINTER, _POINTER]),
    "ggml_backend_cpu_init": (_POINTER, []),
    "ggml_backend_cpu_set_n_threads": (None, [_POINTER, _INT]),
    "ggml_backend_cpu_buffer_from_ptr": (_POINTER, [_POINTER, _SIZE]),
    "ggml_backend_tensor_alloc": (_INT, [_POINTER, _POINTER, _POINTER]),
    "ggml_backend_graph_compute": (_INT, [_POINTER, _POINTER]),
}


@functools.cache
def load() -> ctypes.CDLL:
    """Load and bind the library.

    Raises
    ------
    Unavailable
        Where POSENC_BENCH_GGML names none.
    """
    path = os.environ.get("POSENC_BENCH_GGML")
    if not path:
        raise Unavailable("POSENC_BENCH_GGML names no libggml.so")
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise Unavailable(str(error)) from error
    return library


class Rope:
    """One graph that rotates arrays where they lie, cosines and sines made in the call.

    What ggml allocates for it stays until the process ends.

    Parameters
    ----------
    layout : {"half", "interleaved"}
    positions : ndarray of integers, shape (tokens,)
    base : float
    threads : int
    """

    def __init__(self, layout: str, positions: Array, base: float, threads: int) -> None:
        self._lib, self._mode, self._base = load(), _MODES[layout], base
        memory = _InitParams(1 << 20, None, True)
        self._context = self._lib.ggml_init(memory)
        self._graph = self._lib.ggml_new_graph(self._context)
        self._backend = self._lib.ggml_backend_cpu_init()
        self._lib.ggml_backend_cpu_set_n_threads(self._backend, threads)
        self._keep: list[Array] = []
        self._positions = self._place(_aligned_int32(positions), 1)

    def _place(self, array: Array, ndim: int) -> Any:
        """Return a tensor over the array's memory; ggml counts axes from the last."""
        if array.ctypes.data % _ALIGNMENT:
            raise Unavailable(f"needs memory aligned to {_ALIGNMENT} bytes")
        new = getattr(self._lib, f"ggml_new_tensor_{ndim}d")
        tensor = new(self._context, _TYPES[array.dtype.name], *reversed(array.shape))
        buffer = self._lib.ggml_backend_cpu_buffer_from_ptr(array.ctypes.data, array.nbytes)
        self._lib.ggml_backend_tensor_alloc(buffer, tensor, array.ctypes.data)
        self._keep.append(array)
        return tensor

    def add(self, x: Array, tokens_axis: int) -> None:
        """Add an array (4 axes) to the graph; its axis `tokens_axis`, 1 or 2, holds the tokens."""
        tensor = self._place(x, 4)
        if tokens_axis == 2:  # ggml wants dim, heads, tokens, batch, counted from the last
            tensor = self._lib.ggml_permute(self._context, tensor, 0, 2, 1, 3)
        numbers = (self._base, 1.0, 0.0, 1.0, 32.0, 1.0)
        rotated = self._lib.ggml_rope_ext_inplace(
            self._context, tensor, self._positions, None, x.shape[-1], self._mode, 0, *numbers
        )
        self._lib.ggml_build_forward_expand(self._graph, rotated)

    def call(self) -> Callable[[], None]:
        """Return the call that computes the graph; it keeps all of this alive."""
        compute, backend, graph = self._lib.ggml_backend_graph_compute, self._backend, self._graph

        def once(_keep: object = self) -> None:
            compute(backend, graph)

        return once


def _aligned_int32(values: Array) -> Array:
    raw = np.empty(values.size + _ALIGNMENT // 4, np.int32)
    start = -raw.ctypes.data % _ALIGNMENT // 4
    raw[start : start + values.size] = values
    return raw[start : start + values.size]
