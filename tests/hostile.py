"""Arguments that are right, all at hand, and tables of calls that are wrong.

A table reads: an exception with its text ("..." stands for anything), then the calls that raise it. The text is part of
the promise: it names the argument, what was expected and what came.
"""

from __future__ import annotations

import builtins
import functools
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

import posenc
from conftest import assert_untouched
from posenc.scaling import InverseFrequencies

LIMIT = "positions must be finite, with |position| and |position * inv_freq| below 2**31"
SHAPE = (2, 3, 4, 8)


class Dynamic:
    """A scaling that asks for the sequence length."""

    depends_on_length = True

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[np.ndarray, float]:
        return np.ones(rotary_dim // 2), 1.0

    def effective_length(self, seq_len: int) -> int:
        return seq_len


class Arrays:
    """Arguments that are right, and the list of all arrays that a refused call must leave alone."""

    def __init__(self) -> None:
        self.watched: list[Any] = []
        self.rope = posenc.Rope(8, layout="half")
        self.x, self.y = self.new(2, 3, 4, 8), self.new(2, 3, 4, 8)
        self.k, self.z = self.new(2, 1, 4, 8), self.new(2, 1, 4, 8)
        self.cos, self.sin = (self.watch(table) for table in self.rope.table(64))
        self.shared = self.new(48)

    def watch(self, array: Any) -> Any:
        self.watched.append(array)
        return array

    def new(self, *shape: int, dtype: Any = np.float32) -> Any:
        return self.watch(np.linspace(-3, 3, int(np.prod(shape))).astype(dtype).reshape(shape))

    def read_only(self, *shape: int) -> Any:
        array = self.new(*shape)
        array.flags.writeable = False
        return array

    def misaligned(self, *shape: int) -> Any:
        return self.watch(np.ndarray(shape, np.float32, np.zeros(4 * int(np.prod(shape)) + 1, np.uint8).data, 1))

    def part(self, start: int) -> Any:
        """Return a (4, 8) view of one buffer that all parts share."""
        return self.shared[start : start + 32].reshape(4, 8)

    def apply(self, *given: Any, **named: Any) -> Any:
        """Call apply_rotary_emb, with what is not given as it should be."""
        arrays = (*given, *(self.x, self.cos, self.sin)[len(given) :])
        return posenc.apply_rotary_emb(*arrays, **{"layout": "half", **named})

    def names(self) -> dict[str, Any]:
        """Return what the calls of the tables can use."""
        return {
            **{name: getattr(self, name) for name in dir(self) if not name.startswith("_")},
            **{
                "np": np,
                "posenc": posenc,
                "bfloat16": ml_dtypes.bfloat16,
                "as_strided": as_strided,
                "InverseFrequencies": InverseFrequencies,
            },
            "Rope": functools.partial(posenc.Rope, layout="half"),
            "table": posenc.rotary_table,
            "permute": posenc.permute_rotary_weights,
            "dynamic": posenc.Rope(8, layout="half", scaling=Dynamic()),
            "grid": posenc.Rope(8, layout="half", axis_of_freq=[0, 1, 0, 1]),
            "swapped": lambda dtype: np.dtype(dtype).newbyteorder("S"),
            "masked": np.ma.masked_array,
            "MaskedSubclass": type("Subclass", (np.ma.MaskedArray,), {}),
            "huge": 2**70,
            "torch": torch,
        }


def refused(table: str) -> pytest.MarkDecorator:
    """Return the parametrization of a table: (exception, text, call)."""
    cases, error, text = [], "", ""
    for line in filter(None, table.splitlines()):
        if line.startswith("# "):
            continue
        if not line.startswith(" "):
            error, text = line.split(": ", 1)
        else:
            cases.append(pytest.param(error, text, line.strip(), id=line.strip()))
    return pytest.mark.parametrize(("error", "text", "call"), cases)


def assert_call_refused(error: str, text: str, call: str) -> None:
    """Exactly this exception, with all of its text, and every array as it was."""
    arrays = Arrays()
    names = arrays.names()
    pattern = re.escape(text).replace(r"\.\.\.", ".*")
    with assert_untouched(*arrays.watched), pytest.raises(Exception) as caught:
        eval(call, names)
    assert caught.type is getattr(builtins, error), f"{caught.type.__name__}: {caught.value}"
    assert re.fullmatch(pattern, str(caught.value), re.DOTALL), f"{caught.value}\ninstead of\n{text}"


class NoAttributes:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class FailsAsArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise ZeroDivisionError("mine")


class FailsAsIndex:
    def __index__(self) -> int:
        raise KeyboardInterrupt("mine")
