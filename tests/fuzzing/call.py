"""A call of a public function, and the judgement of what it did to memory and of its numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from conftest import OtherArray, memory_of, outside, owner_of
from fuzzing.memory import Choices, torch

ROUNDING = {"float32": 2**-22, "float64": 2**-50, "float16": 2**-10, "bfloat16": 2**-7}
#: what the reference says of each result, and how far a result may be from it
Expected = list[tuple[np.ndarray, float]]


class Scene(Protocol):
    """Arguments that fit together."""

    def arrays(self) -> list[Any]:
        """Return all arrays that calls are given, also in lists among what is no array."""


@dataclasses.dataclass
class Call:
    """A function with its arguments; `expected` gives the numbers of a successful one, `written` its outputs."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    expected: Callable[[], Expected | None] | None = None

    def __repr__(self) -> str:
        given = [shown(value) for value in self.arguments]
        given += [f"{name}={shown(value)}" for name, value in self.named.items()]
        return f"{getattr(self.function, '__qualname__', self.function)}({', '.join(given)})"

    def outputs(self) -> list[Any]:
        out = self.named.get("out")
        return list(out) if isinstance(out, (tuple, list)) else [] if out is None else [out]


def shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"<{value.dtype} {value.shape} strides {value.strides}>"
    if isinstance(value, (tuple, list)) and len(value) < 5:
        return f"({', '.join(map(shown, value))})"
    return repr(value)[:200]


@dataclasses.dataclass
class Verb:
    """What a verb brings: how its scenes are drawn, and its calls, each with how often it is made."""

    scene: Callable[[Choices], Scene]
    calls: tuple[tuple[int, Callable[[Choices, Any], Call]], ...]


# ---- memory ----


def in_memory(arrays: list[Any]) -> list[Any]:
    """Return those whose memory can be compared."""
    return [a for a in arrays if isinstance(a, np.ndarray) or (torch and type(a) is torch.Tensor)]


def assert_unwritten(a: Any, old: np.ndarray, written: list[Any]) -> None:
    """The memory behind an array is as before, except for the elements of the outputs."""
    now = memory_of(a)
    if np.array_equal(now, old):
        return
    free = np.ones(len(now), bool)
    for out in written:
        if same_memory(a, out):
            free &= outside(out)
    assert not (free & (now != old)).any(), f"bytes changed outside the outputs, in the memory of {shown(a)}"


def same_memory(a: Any, out: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(out, np.ndarray):
        return owner_of(a) is owner_of(out)
    if torch and type(a) is type(out) is torch.Tensor:
        return a.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
    return False


# ---- numbers ----


class NoReferenceError(Exception):
    """The reference does not know such a call, right or wrong."""


def reference_of(call: Call) -> Expected | Exception | None:
    """Return what the reference says, or what it raised: a wrong call may be nonsense to it, a right one may not."""
    if call.expected is None:
        return None
    try:
        with np.errstate(all="ignore"):
            return call.expected()
    except NoReferenceError:
        return None
    except Exception as error:
        return error


def as_float64(x: Any) -> np.ndarray:
    if isinstance(x, OtherArray):
        x = x.array
    if torch and isinstance(x, torch.Tensor) and not x.is_complex():
        x = x.double().numpy()
    x = np.asarray(x)
    if x.dtype.kind not in "biufV" or x.size > 1 << 20:
        raise NoReferenceError
    return x.astype(np.float64)


def dtype_name(x: Any) -> str:
    return str((x.array if isinstance(x, OtherArray) else x).dtype).removeprefix("torch.")


def tolerance_of(x: Any, slack: float, factor: float) -> float:
    """Return how far a result may be off: rounding of the element type, and what its factors are off."""
    values = np.abs(as_float64(x))
    largest = float(values.max(initial=0, where=np.isfinite(values))) * max(1.0, factor)
    return 4 * largest * (ROUNDING[dtype_name(x)] + slack) + 1e-7 * (dtype_name(x) == "float16")


def assert_close(found: Any, wanted: np.ndarray, tolerance: float) -> None:
    """Within the tolerance wherever the reference is finite and fits the element type."""
    name = dtype_name(found)
    found = as_float64(found)
    assert found.shape == wanted.shape, f"shape {found.shape}, not {wanted.shape}"
    fits = np.isfinite(wanted) & (np.abs(wanted) < (6e4 if name == "float16" else 1e38))
    with np.errstate(invalid="ignore"):  # infinities that both have
        wrong = fits & ~(np.abs(found - wanted) <= tolerance)
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} elements differ, by up to {np.abs(found - wanted).max()}"
