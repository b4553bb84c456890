"""`posenc.config.diff`: where systems read the same config differently, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.config._families import FAMILIES
from posenc.config._family import ALL
from posenc.config._read import read
from posenc.config._systems import SYSTEMS, Setting, read_by
from posenc.rotary import Rope

if TYPE_CHECKING:
    from posenc.config._model import ModelPositions


@dataclass(frozen=True)
class Difference:
    """One system's reading of one rotation, where it is not the first system's.

    Attributes
    ----------
    layer_type : str
    system, reference : str
    refused : bool
        The system raises an error for the config.
    seq_len : int or None
        The length, in tokens, at which the two differ most among those compared; None where refused.
    inv_freq : float
        The largest relative difference of an inverse frequency at that length.
    angle : float
        The largest difference of an angle at the last position of that length, in radians.
    attention_factor : tuple of float
        That of the reference and of the system, at that length.
    reason : str
        What the system does otherwise, and the reference, and where their code says so.
    """

    layer_type: str
    system: str
    reference: str
    refused: bool
    seq_len: int | None
    inv_freq: float
    angle: float
    attention_factor: tuple[float, float]
    reason: str

    def __str__(self) -> str:
        where = f"{self.layer_type} layers, {self.system} against {self.reference}"
        if self.refused:
            return f"{where}: {self.reason}"
        first, second = self.attention_factor
        factor = f", attention factor {second:.6g} instead of {first:.6g}" if first != second else ""
        return (
            f"{where}: at {self.seq_len:,} tokens frequencies differ by up to {self.inv_freq:.3g} of their size, the "
            f"last angle by {self.angle:.3g} rad{factor}. {self.reason}"
        )


def diff(
    source: Any, as_read_by: Sequence[str] = ("transformers", "vllm", "ggml", "mlx_lm"), **how: Any
) -> tuple[Difference, ...]:
    """List where systems read the same config differently.

    Parameters
    ----------
    source
        As in `read`.
    as_read_by : sequence of str
        Systems, the first one to compare with: "transformers", "vllm", "ggml", "mlx_lm", "megatron", "keras_hub".
    **how
        The other parameters of `read`.

    Returns
    -------
    tuple of Difference
        Empty where all rotate alike. The lengths compared are a short one, that of training, the next one, and the
        whole context.

    Raises
    ------
    ValueError
        For an unknown system or fewer than two, and as `read`.

    Examples
    --------
    >>> yarn = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}
    >>> config = {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "rope_theta": 150000.0,
    ...           "max_position_embeddings": 131072, "rope_scaling": yarn}
    >>> [(d.system, round(d.inv_freq, 2)) for d in diff(config)]
    [('ggml', 0.43), ('mlx_lm', 0.43)]
    """
    systems = [check.choice("as_read_by", system, SYSTEMS) for system in as_read_by]
    if len(set(systems)) < 2 or len(set(systems)) < len(systems):
        raise ValueError(f"as_read_by must name two systems or more, each once, got {systems}")
    model = read(source, **how)
    return tuple(_differences(model, systems))


def _differences(model: ModelPositions, systems: list[str]) -> Iterator[Difference]:
    axes = getattr(FAMILIES.get(model.family), "axes", "")
    for layer_type, rope in model.ropes.items():
        if not isinstance(rope, Rope):
            continue  # towers with a rotation of their own have one implementation
        setting = Setting(model.family, model.max_position_embeddings, layer_type != ALL, axes)
        first, own = read_by(systems[0], rope, setting)
        for system in systems[1:]:
            other, reading = read_by(system, rope, setting)
            reason = "; ".join(filter(None, (reading.reason, own.reason)))
            if other is None or first is None:
                if other is not first:
                    yield Difference(
                        layer_type, system, systems[0], True, None, np.nan, np.nan, (np.nan, np.nan), reason
                    )
            elif other != first:
                found = _compare(first, other, _lengths(rope, model.max_position_embeddings))
                if found is not None:
                    yield Difference(layer_type, system, systems[0], False, *found, reason)


def _lengths(rope: Rope, context: int | None) -> list[int]:
    trained = getattr(rope.scaling, "original_max_position_embeddings", None)
    extended = round(trained * (getattr(rope.scaling, "factor", None) or 1)) if trained else 1
    longest = max(context or 1, extended)
    known = {1, trained or 1, (trained or 0) + 1, extended, longest}
    return sorted(length for length in known if length <= longest)


def _compare(first: Rope, other: Rope, lengths: Iterable[int]) -> tuple[int, float, float, tuple[float, float]] | None:
    """Return (length, relative difference, angle, attention factors) where two Ropes differ most, None if nowhere.

    Lengths come in order.
    """
    worst, most = None, 0.0
    for length in lengths:
        a, b = first.at(length), other.at(length)
        apart = np.abs(a.inv_freq - b.inv_freq)
        relative = float(np.max(apart / np.maximum(np.abs(a.inv_freq), np.abs(b.inv_freq)), initial=0, where=apart > 0))
        factors = (a.attention_factor, b.attention_factor)
        size = max(relative, abs(factors[1] / factors[0] - 1))
        if size > 0 and size >= most:  # where several are alike, the longest
            worst, most = (length, relative, float(apart.max()) * (length - 1), factors), size
    return worst
