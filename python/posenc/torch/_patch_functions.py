"""The functions of transformers' models that turn heads by tables, and what stands in for them.

A table of posenc's carries its half-width float32 rows along, as an attribute of the tensor. A function that gets such
a table turns by those; with any other table, also one that was cut or moved since, the model's own function runs.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

import posenc
from posenc.torch._rotary import apply_rotary_emb, has_kernels, is_plain

Tables = tuple[Tensor, Tensor]
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
#: How a model wants (cos, sin), from half-width ones; "clockwise" ones have another sign, which their function knows.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "twice": lambda t: torch.cat([t, t], -1),
    "twice, clockwise": lambda t: torch.cat([t, t], -1),
    "repeated": lambda t: t.repeat_interleave(2, -1),
    "half": lambda t: t.clone(),
}
COMPLEX = "complex"
_TAG = "_posenc_tables"
_installed: dict[tuple[ModuleType, str], list[Any]] = {}  # -> [original, how many patches want the other one]


def made(form: str, tables: Tables, dtype: torch.dtype) -> Any:
    """Return tables in the form that a model expects."""
    if form == COMPLEX:
        return torch.complex(*tables)
    cos, sin = tables
    return tuple(FORMS[form](t).to(dtype) for t in (cos, -sin if "clockwise" in form else sin))


def tagged(form: str, tables: Tables, dtype: torch.dtype) -> Any:
    """Return the same, with the half-width tables on the first."""
    result = made(form, tables, dtype)
    setattr(result if form == COMPLEX else result[0], _TAG, tables)
    return result


def form_of(theirs: Any, ours: Tables, tolerance: float) -> str | None:
    """Return which form of our tables a model's own are, or None."""
    for form in (*FORMS, COMPLEX):
        wanted = made(form, ours, torch.float32)
        pairs = [(theirs, wanted)] if form == COMPLEX else list(zip(theirs, wanted, strict=False))
        if (form == COMPLEX) != isinstance(theirs, Tensor):
            continue
        if all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs):
            return form
    return None


class How(NamedTuple):
    """What a function was found to do."""

    layout: str
    seq_axis: int  # without unsqueeze_dim
    ndim: int  # of q and k
    operands: int  # q and k, or one at a time
    partial: bool  # takes heads longer than the tables turn


def install(module: ModuleType, form: str, flat: bool, undo: list[Callable[[], None]]) -> tuple[str, ...]:
    """Put a stand-in for every function of a modeling file that turns q and k by such tables; return their names.

    flat: tables are (seq, width), without a batch axis.
    """
    names = []
    for name, function in list(vars(module).items()):
        if not name.startswith("apply_") or "rotary" not in name or not callable(function):
            continue
        key = module, name
        if key not in _installed:
            how = probe(function, form, flat)
            if how is None:
                continue
            _installed[key] = [function, 0]
            setattr(module, name, stand_in(function, how))
        _installed[key][1] += 1
        undo.append(lambda key=key: uninstall(key))  # type: ignore[misc]
        names.append(name)
    return tuple(names)


def uninstall(key: tuple[ModuleType, str]) -> None:
    """Put the original back where nobody else needs the other one."""
    entry = _installed[key]
    entry[1] -= 1
    if entry[1] == 0:
        setattr(key[0], key[1], entry[0])
        del _installed[key]


def _operands(function: Callable[..., Any], form: str) -> int:
    """Return how many tensors a function turns by tables of a form: 2 (q and k), 1, or 0 where it does not."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return 0
    if form == COMPLEX:
        return 2 if len(names) == 3 and names[2] == "freqs_cis" else 0
    for operands in (1, 2):
        rest = names[operands + 2 :]
        if names[operands : operands + 2] == ["cos", "sin"] and set(rest) <= {"position_ids", "unsqueeze_dim"}:
            return operands
    return 0


def probe(function: Callable[..., Any], form: str, flat: bool) -> How | None:
    """Find what a function does with q and k, by what it makes of random ones."""
    operands = _operands(function, form)
    if not operands:
        return None
    how: dict[str, Any] = {"generator": torch.Generator().manual_seed(0), "device": "cpu"}
    angles = torch.rand(*(() if flat else (1,)), 5, 4, **how) * 6
    tables = angles.cos(), angles.sin()
    given = made(form, tables, torch.float32)
    given = (given,) if form == COMPLEX else given
    for seq_axis, shape in ((-2, (2, 3, 5)), (-3, (2, 5, 3)), (-3, (5, 3)))[: 3 if flat else 2]:
        for layout in LAYOUTS:
            fits = [
                _agrees(function, torch.randn(*shape, dim, **how), given, tables, layout, seq_axis, operands)
                for dim in (8, 12)
            ]
            if fits[0]:
                return How(layout, seq_axis, 1 + len(shape), operands, fits[1])
    return None


def _agrees(
    function: Callable[..., Any],
    q: Tensor,
    given: tuple[Tensor, ...],
    tables: Tables,
    layout: str,
    seq_axis: int,
    operands: int,
) -> bool:
    k = q[..., :1, :] if seq_axis == -3 else q[:, :1]
    try:
        found = function(*(q, k)[:operands], *given)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False
    pairs = zip((q, k), found if operands == 2 else (found,), strict=False)
    return all(
        theirs.shape == x.shape
        and torch.allclose(theirs, apply_rotary_emb(x, *tables, layout=layout, seq_axis=seq_axis), rtol=0, atol=1e-5)
        for x, theirs in pairs
    )


def stand_in(original: Callable[..., Any], how: How) -> Callable[..., Any]:
    """Return a function of the same signature, which turns tagged tables by posenc."""
    names = list(inspect.signature(original).parameters)
    known = frozenset(names)

    @functools.wraps(original)
    def rotate(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        xs: list[Any] = [given.get(name) for name in names[: how.operands]]
        tables = getattr(given.get(names[how.operands]), _TAG, None)
        if tables is None or len(given) != len(args) + len(kwargs) or not known.issuperset(given):
            return original(*args, **kwargs)  # which knows what is wrong with its arguments
        seq_axis = {1: -2, 2: -3}.get(given.get("unsqueeze_dim", 1)) if "unsqueeze_dim" in names else how.seq_axis
        if seq_axis is None or not all(_fits(x, tables, how, seq_axis) for x in xs):
            return original(*args, **kwargs)
        turned = [_turn(x, tables, how.layout, seq_axis) for x in xs]
        return tuple(turned) if how.operands == 2 else turned[0]

    return rotate


def _fits(x: Any, tables: Tables, how: How, seq_axis: int) -> bool:
    if not isinstance(x, Tensor) or not has_kernels(x) or x.ndim != how.ndim:
        return False
    width, seq = 2 * tables[0].shape[-1], tables[0].shape[-2]
    wide = (x.dtype == torch.float64) == (tables[0].dtype == torch.float64)
    batch = tables[0].ndim == 2 or tables[0].shape[0] in (1, x.shape[0])
    width_fits = x.shape[-1] == width or (how.partial and x.shape[-1] > width)
    return wide and batch and width_fits and x.shape[seq_axis] == seq


def _turn(x: Tensor, tables: Tables, layout: str, seq_axis: int) -> Tensor:
    """Rotate; recorded only where there is something to record."""
    call = posenc.apply_rotary_emb if is_plain(x) else apply_rotary_emb
    return call(x, *tables, layout=layout, seq_axis=seq_axis)
