from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Method = TypeVar("_Method", bound=Callable[..., Any])

class _Spec: ...

def rotate(
    spec: _Spec,
    q: Any,
    k: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def apply(
    x: Any,
    cos: Any,
    sin: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    layout: int,
    rotary_offset: int,
    conjugate: bool,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def rotate_onto(
    spec: _Spec,
    q: Any,
    k: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def apply_onto(
    x: Any,
    cos: Any,
    sin: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    layout: int,
    rotary_offset: int,
    conjugate: bool,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def rotate_gradient(
    spec: _Spec,
    x: Any,
    grad: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    inv_freq: Any,
    positions_gradient: Any,
    defer_above: int,
    threads: int,
    /,
) -> int | None: ...
def table_gradient(
    x: Any,
    grad: Any,
    cos: Any,
    sin: Any,
    seq_axis: Any,
    layout: int,
    rotary_offset: int,
    conjugate: bool,
    defer_above: int,
    threads: int,
    /,
) -> int | None: ...
def table(spec: _Spec, positions: Any, float64: bool, out: Any, defer_above: int, threads: int, /) -> Any: ...
def add(
    x: Any,
    table: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    scale: float,
    padding_idx: int | None,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def add_sinusoid(
    spec: _Spec,
    order: int,
    x: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    scale: float,
    padding_idx: int | None,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def scatter(
    grad: Any,
    out: Any,
    positions: Any,
    offset: Any,
    seq_axis: Any,
    scale: float,
    padding_idx: int | None,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def sinusoid(
    spec: _Spec,
    order: int,
    positions: Any,
    float64: bool,
    out: Any,
    padding_idx: int | None,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def rotate_call(function: _Method, slot: Any, defer_above: int, /) -> _Method: ...
def spec(
    inv_freq: npt.NDArray[np.float64],
    axis_of_freq: npt.NDArray[np.int64] | None,
    layout: int,
    head_dim: int,
    rotary_offset: int,
    scale: float,
    as_float32: bool,
    /,
) -> _Spec: ...
def inv_freq(base: float, rotary_dim: int, /) -> npt.NDArray[np.float64]: ...
def float32_powers(base: float, rotary_dim: int, /) -> npt.NDArray[np.float64]: ...
def add_bias(
    scores: Any,
    out: Any,
    where: tuple[Any, Any, int],
    mask: tuple[int, float, float, float],
    term: tuple[Any, ...] | None,
    defer_above: int,
    threads: int,
    /,
) -> Any: ...
def relative_gradient(
    gradient: Any, where: Any, mask: Any, term: Any, first: Any, second: Any, defer_above: int, threads: int, /
) -> int | None: ...
def bias_gradient(
    gradient: Any,
    where: tuple[Any, Any, int],
    mask: tuple[int, float, float, float],
    term: tuple[Any, ...],
    sums: npt.NDArray[np.float64],
    defer_above: int,
    threads: int,
    /,
) -> int | None: ...
def tally(
    map: Any,
    width: int,
    diagonal: int,
    by_offset: npt.NDArray[np.float64],
    mass: npt.NDArray[np.float64],
    sides: npt.NDArray[np.float64],
    /,
) -> tuple[int, int] | None: ...
def empty_like(x: Any, /) -> Any: ...
def runtime() -> tuple[str, tuple[str, ...]]: ...
def forget_threads() -> None: ...
