"""What is rotated: the shapes, the data, and the right answer in float64."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Candidate, Unavailable
from benchmarks.limits import aligned

Array = npt.NDArray[Any]
Pair = tuple[Array, Array]

BASE = 10000.0
EPSILON = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # half an ulp of 1
LARGEST = 8.0  # no rotated normal deviate is larger in these sizes


@dataclass(frozen=True)
class Work:
    """One rotation of queries and keys.

    Attributes
    ----------
    layout : {"half", "interleaved"}
    axes : {"BHSD", "BSHD"}
        Batch, heads, sequence, dim in memory order.
    dtype : {"float32", "float16", "bfloat16"}
    batch, seq, dim : int
    heads : tuple of int
        Of q and of k.
    first : int
        The position of the first token; of the first batch row where rows have their own.
    stride : int
        Positions of consecutive batch rows differ by this much; zero means that all are alike.
    shift : int
        Bytes by which the arrays miss a multiple of 64.
    """

    layout: Literal["half", "interleaved"] = "half"
    axes: Literal["BHSD", "BSHD"] = "BHSD"
    dtype: str = "float32"
    batch: int = 1
    seq: int = 4096
    dim: int = 128
    heads: tuple[int, int] = (32, 8)
    first: int = 0
    stride: int = 0
    shift: int = 0

    @property
    def seq_axis(self) -> int:
        """The sequence axis, counted from the end."""
        return self.axes.index("S") - 4

    def shape(self, heads: int) -> tuple[int, ...]:
        """Return the shape of an array with that many heads."""
        lengths = {"B": self.batch, "H": heads, "S": self.seq, "D": self.dim}
        return tuple(lengths[axis] for axis in self.axes)

    def positions(self) -> Array:
        """Return the positions in tokens, int64 (batch or 1, seq)."""
        rows = np.arange(self.batch if self.stride else 1)[:, None]
        return self.first + self.stride * rows + np.arange(self.seq)

    def inv_freq(self) -> Array:
        """Return float64 (dim/2,), in radians per token."""
        return BASE ** (-np.arange(0, self.dim, 2) / self.dim)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of that name; bfloat16 is that of ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def rotate_float64(x: Array, cos: Array, sin: Array, layout: str) -> Array:
    """Rotate by the formula; cos and sin broadcast against the halves of x."""
    a, b = split(x.astype(np.float64), layout)
    return join(a * cos - b * sin, b * cos + a * sin, layout)


def split(x: Array, layout: str) -> Pair:
    """Return the first and the second elements of all pairs, as views."""
    if layout == "interleaved":
        return x[..., 0::2], x[..., 1::2]
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def join(a: Array, b: Array, layout: str) -> Array:
    """Return the array whose pairs these are."""
    if layout == "interleaved":
        return np.stack([a, b], -1).reshape(*a.shape[:-1], -1)
    return np.concatenate([a, b], -1)


class Data:
    """The arrays of a work, which all candidates share, and the answer.

    In-place candidates all rotate the very same memory, the limits read and write it too, and
    given outputs are the same ones for all: nobody is luckier with pages than another.
    Repeated in place, a rotation keeps every norm, so values stay what real ones are.

    Attributes
    ----------
    work : Work
    threads : int
    q, k : ndarray
        What is rotated.
    q_out, k_out : ndarray
        Given outputs, touched.
    positions : ndarray of int64, shape (batch or 1, seq)
    cos, sin : ndarray of float32, shape (positions, dim/2)
        Ready tables, from position 0 on, correctly rounded or nearly so.
    """

    def __init__(self, work: Work, threads: int) -> None:
        self.work, self.threads = work, threads
        dtype = numpy_dtype(work.dtype)
        shapes = [work.shape(heads) for heads in work.heads]
        self.q, self.k = (aligned(shape, dtype, work.shift) for shape in shapes)
        self.q_out, self.k_out = (aligned(shape, dtype, work.shift) for shape in shapes)
        random = np.random.default_rng(0)
        self._first = [random.standard_normal(shape, dtype=np.float32).astype(dtype) for shape in shapes]
        self.positions = work.positions()
        angles = np.arange(self.positions.max() + 1)[:, None] * work.inv_freq()
        self.cos, self.sin = (f(angles).astype(np.float32) for f in (np.cos, np.sin))

    def refresh(self) -> None:
        """Put q and k back to their first values."""
        np.copyto(self.q, self._first[0])
        np.copyto(self.k, self._first[1])

    @property
    def rows(self) -> Pair:
        """Cosines and sines of the positions, (batch or 1, seq, dim/2)."""
        return self.cos[self.positions], self.sin[self.positions]

    @property
    def broadcast_rows(self) -> Pair:
        """The same, with an axis of length 1 where q and k have their heads."""
        cos, sin = self.rows
        heads = self.work.axes.index("H")
        return np.expand_dims(cos, heads), np.expand_dims(sin, heads)

    @functools.cached_property
    def expected(self) -> list[Array]:
        """The rotated q and k, computed in float64, as float32."""
        angles = np.expand_dims(self.positions, self.work.axes.index("H"))[..., None]
        angles = angles * self.work.inv_freq()
        cos, sin = np.cos(angles), np.sin(angles)
        return [rotate_float64(x, cos, sin, self.work.layout).astype(np.float32) for x in self._first]

    def tolerance(self, candidate: Candidate) -> float:
        """Return the largest error that a right answer may have.

        Tables may have been rounded to the data's own type. Peers that make their own angles do it
        by float32 products and recurrences, wrong by about a millionth of the position.
        """
        rounding = 6 * EPSILON[self.work.dtype]
        exact = candidate.name.startswith("posenc")
        angle = 0.0 if exact else 1e-6 * float(self.positions.max())
        return LARGEST * (rounding + angle)

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless a candidate has rotated q and k."""
        if candidate.output not in ("in place", "given", "new"):
            return
        found = {"in place": (self.q, self.k), "given": (self.q_out, self.k_out)}.get(candidate.output, result)
        bound = self.tolerance(candidate)
        for name, mine, right in zip("qk", found, self.expected, strict=True):
            error = float(np.abs(to_float32(mine).reshape(right.shape) - right).max())
            if not error <= bound:
                raise AssertionError(f"{name} is off by {error:.2g}, allowed is {bound:.2g}")
        self.q_out.fill(np.nan)
        self.k_out.fill(np.nan)

    def by_token(self, x: Array) -> Array:
        """Return x as (batch, seq, heads, dim), where that is how it lies in memory."""
        if self.work.axes == "BHSD" and self.work.seq > 1:
            raise Unavailable("takes (batch, seq, heads, dim), not (batch, heads, seq, dim)")
        return x.reshape(self.work.batch, self.work.seq, -1, self.work.dim)

    def need(self, **limits: tuple[str, ...]) -> None:
        """Raise Unavailable unless the work's attributes are among those given."""
        for name, allowed in limits.items():
            value = getattr(self.work, name)
            if value not in allowed:
                raise Unavailable(f"takes {name} {' or '.join(allowed)}, not {value}")


def to_float32(x: Any) -> Array:
    """Return any library's array as float32 NumPy."""
    if type(x).__module__ == "torch":
        x = x.detach().float().numpy()
    return np.asarray(x).astype(np.float32, copy=False)


def as_torch(x: Array) -> Any:
    """Return a torch tensor over the same memory."""
    import torch

    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)
