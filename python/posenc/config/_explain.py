"""`posenc.config.explain`: what a config says about positions, in words and numbers."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.config._read import read
from posenc.rotary import Rope

if TYPE_CHECKING:
    from posenc.config._model import ModelPositions


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; `str` is for people, `as_dict` for programs.

    Attributes
    ----------
    model : ModelPositions
    """

    model: ModelPositions

    def as_dict(self) -> dict[str, Any]:
        """Return everything as dictionaries, lists, strings and numbers, ready for JSON; an infinity is null."""
        model = self.model
        return {
            "family": model.family,
            "kind": model.kind,
            "part": model.part,
            "parts": list(model.parts),
            "max_position_embeddings": model.max_position_embeddings,
            "rotations": [
                {"layer_type": name, **_facts(piece, model.max_position_embeddings)}
                for name, rope in model.ropes.items()
                for piece in _pieces(rope)
            ],
            "layers": list(model.layers),
            "axes": model.axes,
            "query_scale": None if model.query_scale is None else repr(model.query_scale),
            "softmax_scale": model.softmax_scale,
            "details": {key: _plain(value) for key, value in model.details.items()},
            "notes": list(model.notes),
        }

    def __str__(self) -> str:
        model = self.model
        context = f", context {model.max_position_embeddings:,}" if model.max_position_embeddings else ""
        if model.ropes and not context:
            context = ", context not given (max_position_embeddings)"
        lines = [f"{model.family}: {model.kind}{context}"]
        if model.parts:
            lines.append(f"  part {model.part!r} of {', '.join(map(repr, model.parts))}")
        for name, rope in model.ropes.items():
            lines += _rotation_lines(name, rope, model)
        lines += [f"  layers: {_plan(model.layers)}"] if model.layers else []
        lines += [f"  position axes: {model.axes}"] if model.axes else []
        lines += [f"  {key}: {value}" for key, value in model.details.items()]
        lines += [f"  queries are scaled by position: {model.query_scale!r}"] if model.query_scale is not None else []
        if model.softmax_scale != 1.0:
            lines.append(f"  softmax scale times {model.softmax_scale:.6g}, in attention and not in the rotation")
        return "\n".join(lines + [f"  note: {note}" for note in model.notes])


def explain(source: Any, **how: Any) -> Explanation:
    """Explain what a config says about positions.

    Parameters
    ----------
    source
        As in `read`: a path, a dictionary, a transformers config object.
    **how
        The other parameters of `read`.

    Returns
    -------
    Explanation
        Its `str`: the kind of encoding; for each rotation its Rope, the wavelengths, which pairs never complete a turn
        within the lengths of training and of the context, and the attention factor; which layers turn how; and what
        else of attention depends on positions.

    Examples
    --------
    >>> config = {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2,
    ...           "max_position_embeddings": 2048, "rope_theta": 10000.0}
    >>> print(explain(config))
    llama: rope, context 2,048
      all layers: Rope(64, layout='half', base=10000.0)
        32 pairs, wavelengths 6.283 to 47,117 tokens
        pairs 21 to 31 never complete a turn within the context of 2,048 tokens
        attention factor 1
      layers: all x 2
    """
    return Explanation(read(source, **how))


# ---- numbers ----


def _pieces(rope: Any) -> tuple[Rope, ...]:
    """Return the Ropes of a rotation: itself, or what it is made of."""
    if isinstance(rope, Rope):
        return (rope,)
    return tuple(rope.ropes) if hasattr(rope, "ropes") else (rope.first, rope.second)


def _facts(rope: Rope, context: int | None) -> dict[str, Any]:
    trained = getattr(rope.scaling, "original_max_position_embeddings", None)
    lengths = {"training": trained, "context": context}
    return {
        "head_dim": rope.head_dim,
        "layout": rope.layout,
        "rotary_dim": rope.rotary_dim,
        "rotary_offset": rope.rotary_offset,
        "base": rope.base,
        "scaling": None if rope.scaling is None else repr(rope.scaling),
        "depends_on_length": bool(rope.scaling is not None and rope.scaling.depends_on_length),
        "precision": rope.precision,
        "position_axes": rope.axes,
        "axis_of_freq": None if rope.axis_of_freq is None else rope.axis_of_freq.tolist(),
        "inv_freq": rope.inv_freq.tolist(),
        "wavelengths": [_plain(value) for value in rope.wavelengths.tolist()],
        "never_turn_within": {name: unturned(rope, length) for name, length in lengths.items() if length is not None},
        "attention_factor": rope.attention_factor,
        "attention_factor_applied": "to cosine and sine, so q.k grows by its square",
    }


def unturned(rope: Rope, length: int) -> list[int]:
    """Return the pairs whose wavelength is longer than a length: no training showed them a whole turn."""
    if not hasattr(rope, "wavelengths"):
        raise TypeError(f"rope must be a posenc.Rope, got {check.shown(rope)}")
    return np.flatnonzero(rope.wavelengths > check.positive("length", length)).tolist()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)


# ---- words ----


def _rotation_lines(name: str, rope: Any, model: ModelPositions) -> list[str]:
    lines = []
    for piece in _pieces(rope):
        at = piece if model.max_position_embeddings is None else piece.at(model.max_position_embeddings)
        varies = not np.array_equal(at.inv_freq, piece.inv_freq)
        lines.append(f"  {name} layers: {_short(repr(piece))}")
        lines.append(f"    {_wavelengths(piece)}{' in a short sequence' if varies else ''}")
        if varies:
            lines.append(f"    {_wavelengths(at)} in the whole context")
        lines += [f"    {line}" for line in _turns(piece, model)]
        lines.append(f"    attention factor {_attention(piece, at)}")
    return lines


def _wavelengths(rope: Rope) -> str:
    finite = rope.wavelengths[np.isfinite(rope.wavelengths)]
    still = len(rope.wavelengths) - len(finite)
    if not len(finite):
        return f"{still} pairs, none of which turns"
    found = f"{len(rope.wavelengths)} pairs, wavelengths {_tokens(finite.min())} to {_tokens(finite.max())} tokens"
    return found + (f", {still} that do not turn" if still else "")


def _tokens(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def _short(text: str) -> str:
    """Return a repr without what is as it would be by default, and without the numbers of long lists."""
    text = re.sub(r"\((?:[-+.\de]+, ){8,}[-+.\de]+,?\)", lambda m: f"<{m[0].count(',') + 1} numbers>", text)
    return re.sub(r", \w+=None", "", text)


def _turns(rope: Rope, model: ModelPositions) -> list[str]:
    trained = getattr(rope.scaling, "original_max_position_embeddings", None)
    lengths = (("length of training", trained), ("context", model.max_position_embeddings))
    return [
        f"pairs {_ranges(pairs)} never complete a turn within the {what} of {length:,} tokens"
        for what, length in lengths
        if length is not None and (pairs := unturned(rope, length))
    ]


def _ranges(numbers: list[int]) -> str:
    """Return 3, 5 to 9 for 3, 5, 6, 7, 8, 9."""
    runs = [[n for _, n in run] for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _attention(rope: Rope, at: Rope) -> str:
    found = [_grows(rope.attention_factor)]
    if at.attention_factor != rope.attention_factor:
        found = [f"{found[0]} in a short sequence", f"{_grows(at.attention_factor)} in the whole context"]
    return "; ".join(found)


def _grows(factor: float) -> str:
    return "1" if factor == 1 else f"{factor:.6g} in cosine and sine, so q.k grows by {factor**2:.6g}"


def _plan(layers: tuple[str | None, ...]) -> str:
    """Return the layers in order, runs of one kind counted, and a pattern that repeats once with its number."""
    runs = [(kind or "no rotation", len(list(run))) for kind, run in itertools.groupby(layers)]
    for period in range(1, len(runs) // 2 + 1):
        times = next((n for n in range(len(runs) // period, 1, -1) if runs[: n * period] == runs[:period] * n), 1)
        if times > 1:
            rest = _counted(runs[times * period :])
            return f"({_counted(runs[:period])}) x {times}" + (f", {rest}" if rest else "")
    return _counted(runs)


def _counted(runs: list[tuple[str, int]]) -> str:
    return ", ".join(f"{kind} x {n}" for kind, n in runs)
