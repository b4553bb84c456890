"""The function under test: how it is called, and what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

KINDS = ("numpy", "torch")


def kind_of(like: Any, fn: Any = None) -> str:
    """Return "numpy" or "torch" from `like`: a name, an array or tensor, or None for what the function asks for."""
    if like is None:
        like = getattr(fn, "like", "numpy")
    if isinstance(like, str):
        return check.choice("like", like, KINDS)
    if not hasattr(like, "detach") and not isinstance(like, np.ndarray):
        raise TypeError(f"like must be 'numpy', 'torch', an array or a tensor, got {check.shown(like)}")
    return "torch" if hasattr(like, "detach") else "numpy"


class Caller:
    """A rotation as a function of NumPy arrays, whatever it takes; its answers are float64, or of their own dtype.

    Parameters
    ----------
    fn : callable
        fn(x, positions) -> rotated x; x of shape (1, heads, seq, head_dim), positions int64 of shape (seq,), or
        (axes, seq) with several axes.
    like : {"numpy", "torch"}, array or tensor, optional
        What it is called with.
    heads : int, optional
        The only number of heads that it takes; default: any.
    """

    def __init__(self, fn: Callable[..., Any], *, like: Any = None, heads: int | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn must be a callable(x, positions), got {check.shown(fn)}")
        self.fn, self.kind = fn, kind_of(like, fn)
        self.heads = None if heads is None else check.integer("heads", heads, 1)
        self.calls = 0

    def __call__(self, x: Array, positions: Array) -> Array:
        """Return fn(x, positions) as float64, for float32 x of any number of heads."""
        step = self.heads or x.shape[1]
        parts = [self._padded(x[:, first : first + step], positions, step) for first in range(0, x.shape[1], step)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _padded(self, x: Array, positions: Array, heads: int) -> Array:
        missing = heads - x.shape[1]
        full = np.concatenate([x, np.zeros((1, missing, *x.shape[2:]), x.dtype)], axis=1) if missing else x
        return as_float64(self.raw(full, positions))[:, : x.shape[1]]

    def raw(self, x: Array, positions: Array) -> Any:
        """Return what the function answers, its shape checked."""
        self.calls += 1
        given, where = np.array(x, order="C"), np.array(positions, np.int64)  # copies: it may write into them
        with self._no_grad():
            if self.kind == "torch":
                given, where = map(self._torch().from_numpy, (given, where))
            y = self.fn(given, where)
        shape = tuple(getattr(y, "shape", ()))
        if shape != x.shape:
            what = check.shown(y) if not shape else f"shape {shape}"
            raise ValueError(f"fn must return an array of x's shape {x.shape}, got {what}")
        return y

    def _no_grad(self) -> contextlib.AbstractContextManager[Any]:
        return self._torch().no_grad() if self.kind == "torch" else contextlib.nullcontext()

    @staticmethod
    def _torch() -> Any:
        import torch

        return torch


def as_float64(array: Any) -> npt.NDArray[np.float64]:
    """Return an array or tensor of any float dtype as float64."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().double().numpy()
    return np.asarray(array).astype(np.float64)


def dtype_name(array: Any) -> str:
    """Return the name of an array's or tensor's dtype, as NumPy writes it."""
    return str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")
