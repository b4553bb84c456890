"""Random choices, and arrays and tensors in every way that their memory can lie."""

from __future__ import annotations

import random
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

try:
    import torch
except ImportError:
    torch = None

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
TORCH_FLOATS = ("float32", "float64", "float16", "bfloat16")
NOISE = np.random.default_rng(0).standard_normal(1 << 16)
#: more elements than fit in 32 bits, for calls that must not come to allocate a result
HUGE = [np.broadcast_to(np.float32(1), shape) for shape in ((2**45, 4, 8), (4, 2**45, 8), (2**45, 8), (2, 2**45))]


class Choices(random.Random):
    """Random choices, made cheap: they are most of what a call costs."""

    def __new__(cls, seed: int, junk: list[Any]) -> Choices:
        return super().__new__(cls, seed)

    def __init__(self, seed: int, junk: list[Any]) -> None:
        super().__init__(seed)
        self.junk = junk

    def pick(self, options: Any) -> Any:
        return options[int(self.random() * len(options))]

    def maybe(self, chance: float) -> bool:
        return self.random() < chance

    def given(self, options: Any, chance: float = 0.02) -> Any:
        """Return one of the options, or junk."""
        return self.pick(self.junk if self.random() < chance else options)

    def output_for(self, x: Any, outputs: list[Any]) -> Any:
        """Return an `out`: x itself, another array, or none."""
        kind = self.random()
        return x if kind < 0.4 else self.given(outputs) if kind < 0.9 else None

    def where(self, positions: list[Any], offsets: list[Any]) -> dict[str, Any]:
        """Return arguments that say where the rows are; rarely both ways at once."""
        kind = self.random()
        if kind < 0.45:
            return {"positions": self.given(positions)}
        if kind < 0.9:
            return {"offset": self.given(offsets)}
        return {} if kind < 0.98 else {"positions": self.given(positions), "offset": self.given(offsets)}


def noise(choose: Choices, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    count = int(np.prod(shape))
    start = int(choose.random() * (len(NOISE) - min(count, len(NOISE) - 1)))
    return np.resize(NOISE[start : start + max(count, 1)], shape).astype(dtype)


def array(choose: Choices, shape: tuple[int, ...], dtype: Any, *, output: bool = False) -> np.ndarray:
    """Return a view of a larger buffer: permuted, stepped, reversed, and for inputs broadcast."""
    order = list(range(len(shape)))
    if choose.maybe(0.5):
        choose.shuffle(order)
    steps = [choose.pick((1, 1, 1, 2, -1, -3)) for _ in shape]
    lengths = [n * abs(step) + choose.pick((0, 0, 1, 3)) for n, step in zip(shape, steps, strict=True)]
    buffer = noise(choose, tuple(lengths[axis] for axis in order), dtype)
    view = np.moveaxis(buffer, range(len(order)), order)
    cuts = [
        slice(0, n * step, step) if step > 0 else slice(None, None, step) for n, step in zip(shape, steps, strict=True)
    ]
    view = view[tuple(cuts)][tuple(slice(n) for n in shape)]
    if not output and choose.maybe(0.15) and view.size:
        axis = choose.pick(range(view.ndim))
        view = np.broadcast_to(view.take([0], axis), shape)
    if 1 in shape and choose.maybe(0.5):
        garbage = choose.pick((2**62 + 8, -(2**61), 0))
        strides = [stride if n > 1 else garbage for n, stride in zip(shape, view.strides, strict=True)]
        view = as_strided(view, shape, strides, writeable=view.flags.writeable)
    return view


def tensor(choose: Choices, shape: tuple[int, ...], name: str, *, output: bool = False) -> Any:
    """Return a tensor that is a view of a larger one: permuted, stepped, and for inputs expanded."""
    order = list(range(len(shape)))
    if choose.maybe(0.5):
        choose.shuffle(order)
    steps = [choose.pick((1, 1, 1, 2)) for _ in shape]
    lengths = [n * step + choose.pick((0, 0, 3)) for n, step in zip(shape, steps, strict=True)]
    buffer = torch.from_numpy(noise(choose, tuple(lengths[axis] for axis in order), np.float64)).to(
        getattr(torch, name)
    )
    view = buffer.permute([order.index(axis) for axis in range(len(shape))])
    view = view[tuple(slice(0, n * step, step) for n, step in zip(shape, steps, strict=True))]
    if not output and choose.maybe(0.15) and view.numel():
        axis = choose.pick(range(view.ndim))
        view = view.narrow(axis, 0, 1).expand(shape)
    return view
