"""Let a loaded transformers model make its tables, and turn its heads, by posenc."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc._frequencies import PRECISIONS
from posenc.config import read
from posenc.rotary import Rope
from posenc.torch import _patch_functions as functions
from posenc.torch._rotary import Numbers, has_kernels, numbers_of
from posenc.torch._table_ops import rotary_table

ROTARY = re.compile(r"(Rotary|Rope|RoPE)\w*Embedding$")
TOLERANCE = 1e-5  # of a table at the first positions, where both round float32 angles


@dataclass(frozen=True)
class Replacement:
    """A rotary module that posenc stands in for.

    Attributes
    ----------
    name : str
        Of the module in the model.
    kind : str
        Its class.
    ropes : dict
        Layer type -> Rope; "all" where all layers turn alike.
    functions : tuple of str
        Those that turn heads by posenc when they get this module's tables; where there are none, torch turns them.
    """

    name: str
    kind: str
    ropes: dict[str, Rope]
    functions: tuple[str, ...]


@dataclass
class Patch:
    """What `patch` did, and the way back: call remove(), or use it in a with statement.

    Attributes
    ----------
    replaced : list of Replacement
    left : dict
        Name of a rotary module that was left as it is -> the reason.
    """

    replaced: list[Replacement] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    def remove(self) -> None:
        """Put everything back; once is enough."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def __str__(self) -> str:
        lines = []
        for each in self.replaced:
            lines.append(f"{each.name} ({each.kind}): turned by {', '.join(each.functions) or 'torch'}")
            lines += [f"    {layers}: {rope!r}" for layers, rope in each.ropes.items()]
        lines += [f"{name}: left as it is, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no rotary module found"


def patch(model: nn.Module, *, precision: str = "float32") -> Patch:
    """Let posenc do the rotary position embedding of a loaded transformers model.

    Each rotary module's `forward` makes its tables by posenc, of the form that the model expects; and the model's own
    function that applies them hands tables that came from posenc to its kernels, forward and backward. Nothing is
    assumed of a family: the config says how the model rotates (`posenc.config`), and module and function are compared
    with that on a few tokens first; what does not agree is left as it is, and the report says why. Parameters, buffers
    and the state_dict stay as they are. In torch.compile tables and rotations are posenc's operators, without graph
    breaks; patch before compiling. On other devices, and in torch.compile where frequencies depend on the length, the
    model's own code runs.

    Parameters
    ----------
    model : torch.nn.Module
        A model of transformers.
    precision : {"float32", "exact"}
        "float32": the numbers that the model was trained with, to a few roundings. "exact": see `posenc.Rope`.

    Returns
    -------
    Patch
        The report, which undoes it: `remove()`, or as a context manager.

    Raises
    ------
    TypeError
        For what is no torch module.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaModel
    >>> import posenc.torch
    >>> sizes = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, vocab_size=8)
    >>> model = LlamaModel(LlamaConfig(**sizes))
    >>> with posenc.torch.patch(model) as report:
    ...     print(report)
    rotary_emb (LlamaRotaryEmbedding): turned by apply_rotary_pos_emb
        all: Rope(8, layout='half', base=10000.0, precision='float32')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {check.shown(model)}")
    check.choice("precision", precision, PRECISIONS)
    result = Patch()
    try:
        for name, module in model.named_modules():
            if ROTARY.search(type(module).__name__):
                try:
                    _patch_module(result, name, module, precision)
                except _Left as reason:
                    result.left[name] = str(reason)
    except BaseException:
        result.remove()
        raise
    return result


class _Left(Exception):  # noqa: N818, a reason and no error
    """Why a module is left as it is."""


def _patch_module(result: Patch, name: str, module: nn.Module, precision: str) -> None:
    if "forward" in vars(module):
        raise _Left("its forward has been replaced already")
    parameters = list(inspect.signature(type(module).forward).parameters)[1:]
    if parameters[:2] != ["x", "position_ids"] or not set(parameters[2:]) <= {"layer_type"}:
        raise _Left(f"its forward takes ({', '.join(parameters)})")
    ropes = _ropes_of(module, "layer_type" in parameters, precision)
    original = module.forward
    form, axial = _form_of(module, ropes)
    numbers = {layers: None if rope._varies else numbers_of(rope) for layers, rope in ropes.items()}

    def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
        layers = layer_type if layer_type in ropes else "all"
        fits = layers in ropes and has_kernels(x) and has_kernels(position_ids)
        if not fits or (numbers[layers] is None and torch.compiler.is_compiling()):
            return original(x, position_ids, *([] if layer_type is None else [layer_type]))
        tables = _tables(ropes[layers], numbers[layers], position_ids, axial, x.dtype == torch.float64)
        return functions.tagged(form, tables, x.dtype)

    names = functions.install(sys.modules[type(module).__module__], form, axial, result._undo)
    module.forward = forward
    result._undo.append(lambda: module.__dict__.pop("forward", None))
    result.replaced.append(Replacement(name, type(module).__name__, ropes, names))


def _ropes_of(module: nn.Module, by_layer: bool, precision: str) -> dict[str, Rope]:
    source = getattr(module, "config", None)
    if source is None:
        raise _Left("it has no config")
    try:
        ropes = dict(read(source, precision=precision, strict=False).ropes)
    except Exception as error:
        raise _Left(f"its config cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from error
    if not ropes or ("all" not in ropes and not by_layer):
        raise _Left("its config says that the layers turn differently" if ropes else "its config says nothing of it")
    plain = {name: rope for name, rope in ropes.items() if isinstance(rope, Rope)}
    if len(plain) < len(ropes):
        raise _Left("its config says another kind of rotation")
    return plain


def _tables(
    rope: Rope, numbers: Numbers | None, position_ids: Tensor, axial: bool, wide: bool
) -> tuple[Tensor, Tensor]:
    """Return the tables of a call: by the operator that torch.compile knows, but where the length decides."""
    positions = position_ids.detach()
    if axial:
        positions = positions.T
    elif rope.axes > 1 and positions.ndim == 2:
        positions = positions.expand(rope.axes, -1, -1)
    if numbers is None:
        return rope.table(positions, dtype="float64" if wide else "float32")
    how = (numbers.axis_of_freq, numbers.scale, numbers.as_float32, wide)
    return rotary_table(positions, numbers.inv_freq, *how)  # type: ignore[no-any-return]


def _form_of(module: nn.Module, ropes: dict[str, Rope]) -> tuple[str, bool]:
    """Return the form of the module's tables, whose values posenc's must have, and whether ids are (seq, axes)."""
    generator, forms = torch.Generator().manual_seed(0), set[str | None]()
    by_layer = "layer_type" in inspect.signature(type(module).forward).parameters
    failures: list[str] = []
    for axial in (False, True) if all(rope.axes > 1 for rope in ropes.values()) else (False,):
        forms.clear()
        for layers, rope in ropes.items():
            shape = (12, rope.axes) if axial else (rope.axes, 1, 12) if rope.axes > 1 else (1, 12)
            positions = torch.randint(0, 24, shape, generator=generator, device="cpu")
            try:
                more = [None if layers == "all" else layers] if by_layer else []
                theirs = type(module).forward(module, torch.zeros(1, device="cpu"), positions, *more)
                ours = _tables(rope, None, positions, axial, False)
            except Exception as error:
                failures.append((str(error) or repr(error)).splitlines()[0])
                forms.add(None)
                continue
            forms.add(functions.form_of(theirs, ours, TOLERANCE))
        if len(forms) == 1 and None not in forms:
            return str(forms.pop()), axial
    if failures:
        raise _Left(f"a probe of it failed: {failures[-1]}")
    raise _Left("its tables are not those that its config says")
