"""A rotary module of transformers as a function of x and positions, by its own tables and its own file's apply."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from posenc import _parameters as check

_APPLIES = re.compile(r"^(apply_rotary|vision_apply|apply_multidimensional)")
_VISION = re.compile(r"vision|2d|multidim")


class HFRotation:
    """What `wrap_hf` returns: called as fn(x, positions) with tensors.

    Attributes
    ----------
    module : torch.nn.Module
    apply : callable
        The function of its file that rotates.
    axes : int
        Position axes.
    like : str
        "torch".
    """

    like = "torch"

    def __init__(self, module: Any, apply: Callable[..., Any], axes: int, layer_type: str | None) -> None:
        self.module, self.apply, self.axes = module, apply, axes
        self._forward = inspect.signature(type(module).forward).parameters
        self._extra = {} if layer_type is None else {"layer_type": layer_type}
        self._names = list(inspect.signature(apply).parameters)
        self._source = inspect.getsource(apply)
        self._axial = "compute_axial_rope_parameters" in inspect.getsource(type(module))
        self.__name__ = f"{type(module).__name__} with {apply.__name__}"

    def __call__(self, x: Any, positions: Any) -> Any:
        """Return x of shape (1, heads, seq, head_dim) rotated, for positions (seq,) or (axes, seq)."""
        tables = self.module(x, self._ids(positions), **self._extra)
        widths = dict.fromkeys((x.shape[-1], *((n * _width(tables)) for n in (1, 2))))
        error: Exception | None = None
        for width in (w for w in widths if w <= x.shape[-1]):  # attention splits what the function would not
            try:
                turned = self._rotate(x[..., :width], tables, positions)
            except (RuntimeError, ValueError) as caught:
                error = error or caught
                continue
            if tuple(turned.shape) == tuple(x[..., :width].shape):
                return turned if width == x.shape[-1] else _joined(turned, x[..., width:])
        raise ValueError(f"{self.__name__} rotates no head of {x.shape[-1]} elements") from error

    def _ids(self, positions: Any) -> Any:
        if self._axial:
            return positions.T[None] if "gemma4" in type(self.module).__module__ else positions.T
        return positions[None] if self.axes == 1 else positions[:, None]

    def _rotate(self, x: Any, tables: Any, positions: Any) -> Any:
        """Call the function with the shapes that its file gives it."""
        names, apply = self._names, self.apply
        by_token = x.transpose(1, 2)
        if not isinstance(tables, tuple):
            return self._complex(x, by_token, tables)
        cos, sin = tables
        if names[0] == "hidden_states":
            return apply(x[0], cos, sin)[None] if cos.ndim == 3 else apply(x, cos, sin)
        if names[0] == "x":
            if "position_ids" in names:
                return apply(by_token, cos, sin, positions.T[None]).transpose(1, 2)
            return apply(x, cos, sin)
        if "v" in names:
            import torch

            return apply(x, x, x, cos, sin, torch.arange(x.shape[2])[None])[0]
        flat = (
            names == ["q", "k", "cos", "sin"] and "unsqueeze(-2)" in self._source
        ) or "cos[:, None, :]" in self._source
        if flat:  # (seq, heads, head_dim)
            return apply(by_token[0], by_token[0], cos, sin)[0].transpose(0, 1)[None]
        if cos.ndim == 2 and "unsqueeze_dim" in names:
            cos, sin = cos[None], sin[None]
        return apply(x, x, cos, sin)[0]

    def _complex(self, x: Any, by_token: Any, turns: Any) -> Any:
        if "freqs_ci" in self._names or "llama4" in type(self.module).__module__:
            where = turns if turns.ndim > 2 else turns[:, None]
            return self.apply(by_token, by_token, where)[0].transpose(1, 2)
        return self.apply(x, x, turns)[0]


def _width(tables: Any) -> int:
    return int((tables[0] if isinstance(tables, tuple) else tables).shape[-1])


def _joined(turned: Any, rest: Any) -> Any:
    import torch

    return torch.cat([turned, rest], -1)


def wrap_hf(
    module: Any, *, layer_type: str | None = None, axes: int | None = None, apply: Callable[..., Any] | None = None
) -> HFRotation:
    """Return a rotary module of transformers as the function that checks take: fn(x, positions) -> rotated x.

    The tables are those of the module's own forward, the rotation is that of its own modeling file, as its attention
    calls it. Where attention splits a head and rotates a part, so does this.

    Parameters
    ----------
    module : torch.nn.Module
        A `...RotaryEmbedding` of transformers, built from its config.
    layer_type : str, optional
        For modules that have several: "full_attention", "sliding_attention".
    axes : int, optional
        Position axes; default: 2 for axial ones, 3 where the config has `mrope_section`, else 1.
    apply : callable, optional
        The function that rotates; default: the one of the module's file.

    Returns
    -------
    HFRotation
        A callable with `axes` and `like`, which the checks read.

    Raises
    ------
    TypeError
        For a module whose forward does not take (x, position_ids), or whose file has no such function: give `apply`, or
        write the function yourself.

    Examples
    --------
    >>> from transformers import LlamaConfig
    >>> from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    >>> module = LlamaRotaryEmbedding(LlamaConfig(hidden_size=256, num_attention_heads=4))
    >>> posenc.checks.identify(wrap_hf(module), 64).name
    'half, base 10000'
    """
    forward = list(inspect.signature(type(module).forward).parameters)[1:]
    if forward[:2] != ["x", "position_ids"]:
        raise TypeError(
            f"module's forward must take (x, position_ids), got {type(module).__name__}({', '.join(forward)})"
        )
    if layer_type is not None and "layer_type" not in forward:
        raise TypeError(f"{type(module).__name__} has no layer types, got layer_type={layer_type!r}")
    config = getattr(module, "config", None)
    if axes is None:
        axes = _axes_of(module, config)
    if apply is None:
        apply = _apply_of(module, config)
    return HFRotation(module, apply, check.integer("axes", axes, 1, check.MAX_AXES), layer_type)


def _axes_of(module: Any, config: Any) -> int:
    if "compute_axial_rope_parameters" in inspect.getsource(type(module)):
        return 2
    sections = getattr(module, "mrope_section", None) or (getattr(config, "rope_parameters", None) or {}).get(
        "mrope_section"
    )
    return len(sections) if sections else 1


def _apply_of(module: Any, config: Any) -> Callable[..., Any]:
    """Return the function of the module's file that its attention calls."""
    file = sys.modules[type(module).__module__]
    names = sorted((name for name in vars(file) if _APPLIES.search(name)), key=lambda name: (len(name), name))
    axial = "compute_axial_rope_parameters" in inspect.getsource(type(module)) or "Vision" in type(module).__name__
    names = [n for n in names if bool(_VISION.search(n)) == axial] or [n for n in names if "interleave" not in n]
    both = {"interleave" in n for n in names} == {True, False}
    if both and getattr(config, "rope_interleave", None) is None:
        raise TypeError(f"{file.__name__} has several functions that rotate ({', '.join(names)}): give apply=")
    found = [n for n in names if ("interleave" in n) == bool(config.rope_interleave)] if both else names
    if not found:
        raise TypeError(f"{file.__name__} has no function that applies rotary tables: give apply=")
    return getattr(file, found[0])  # type: ignore[no-any-return]
