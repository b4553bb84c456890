"""How other systems read the same config: for each, what becomes of a rotation that transformers reads in one way.

Only facts of code that was read: transformers 5.23 (modeling_rope_utils.py), vLLM 0.32
(model_executor/layers/rotary_embedding), mlx-lm (mlx_lm/models/rope_utils.py), llama.cpp (convert_hf_to_gguf.py and
ggml-cpu/ops.cpp), Megatron-LM (yarn_rotary_pos_embedding.py), KerasHub (rotary_embedding.py). A system that is not
named here for a scaling reads it alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.scaling import DynamicNTK, InverseFrequencies, KerasDynamic, LongRope, Yarn

if TYPE_CHECKING:
    from posenc.rotary import Rope


@dataclass(frozen=True)
class Reading:
    """What a system makes of a rotation.

    Attributes
    ----------
    scaling : Scaling or None
        None for frequencies that are not scaled. Not read where `refused`.
    reason : str
        What the system does otherwise, and where its code says so; "" where it reads alike.
    refused : bool
        The system raises an error for this config.
    """

    scaling: Any
    reason: str = ""
    refused: bool = False


@dataclass(frozen=True)
class Setting:
    """What a reading may depend on besides the scaling."""

    family: str
    context: int | None  # max_position_embeddings
    by_layer_type: bool = False  # the rope dictionary stands under the name of a type of layers
    axes: str = ""  # how several position axes share the frequencies, as in _axes.SCHEMES


Reader = Callable[[Any, Setting], Reading]

#: Families whose own code, and vLLM's, computes the attention factor by DeepSeek's rule.
DEEPSEEK = ("deepseek_v2", "deepseek_v3")


def _same(scaling: Any, setting: Setting) -> Reading:
    return Reading(scaling)


def _deepseek_rule(scaling: Yarn, who: str) -> Reading:
    read = replace(scaling, mscale_rule="deepseek")
    if read.attention() == scaling.attention():
        return Reading(scaling)
    return Reading(
        read,
        f"{who} takes mscale 1 and mscale_all_dim 0 where they are absent, and a coefficient of 0 as it is",
    )


def _without_truncate(reading: Reading, who: str) -> Reading:
    if reading.scaling.truncate:
        return reading
    reason = f"{who} does not read truncate: it always rounds the ends of YaRN's ramp to whole pairs"
    return Reading(replace(reading.scaling, truncate=True), "; ".join(filter(None, (reading.reason, reason))))


def _transformers_yarn(scaling: Yarn, setting: Setting) -> Reading:
    where = "transformers 5.23, looking beside the dictionaries of the types of layers (_compute_yarn_parameters),"
    return _without_truncate(Reading(scaling), where) if setting.by_layer_type else Reading(scaling)


def _vllm_yarn(scaling: Yarn, setting: Setting) -> Reading:
    if setting.family in DEEPSEEK and scaling.attention_factor is None:
        return _deepseek_rule(scaling, "vLLM's deepseek_yarn (deepseek_scaling_rope.py)")
    return Reading(scaling)


def _vllm_dynamic(scaling: DynamicNTK, setting: Setting) -> Reading:
    return Reading(
        None,
        "vLLM makes one table for its largest length, with the base of max_position / max_trained_positions; a config "
        "without max_trained_positions gets max_position for it, which scales nothing (dynamic_ntk_scaling_rope.py)",
    )


def _vllm_longrope(scaling: LongRope, setting: Setting) -> Reading:
    trained, context = scaling.original_max_position_embeddings, setting.context or 0
    chosen = "long" if context > trained else "short"
    reason = (
        f"vLLM chooses once, by max_model_len; for the whole context that is the {chosen} list "
        "(phi3_long_rope_scaled_rope.py)"
    )
    return _longrope(scaling, chosen, context / trained, reason)


def _mlx_longrope(scaling: LongRope, setting: Setting) -> Reading:
    factor = (setting.context or 0) / scaling.original_max_position_embeddings
    return _longrope(scaling, "long", factor, "mlx-lm always uses the long list (rope_utils.py, SuScaledRoPE)")


def _longrope(scaling: LongRope, switch: str, factor: float, reason: str) -> Reading:
    """The attention factor comes from the lengths alone: factor and attention_factor of the config are not read."""
    if scaling.attention_factor is not None:
        reason += ", and reads no attention_factor"
    return Reading(replace(scaling, switch=switch, factor=max(factor, 1.0), attention_factor=None), reason)


def _ggml_longrope(scaling: LongRope, setting: Setting) -> Reading:
    chosen = "long" if (setting.context or 0) > scaling.original_max_position_embeddings else "short"
    return Reading(
        replace(scaling, switch=chosen),
        f"llama.cpp chooses once, by n_ctx; for the whole context that is the {chosen} list",
    )


def _refuses(who: str, what: str) -> Reader:
    def read(scaling: Any, setting: Setting) -> Reading:
        return Reading(None, f"{who} raises an error for {what}", refused=True)

    return read


def _ggml_dynamic(scaling: DynamicNTK, setting: Setting) -> Reading:
    return Reading(None, "llama.cpp's conversion writes no scaling for dynamic (convert_hf_to_gguf.py)")


def _ggml_yarn(scaling: Yarn, setting: Setting) -> Reading:
    return _without_truncate(Reading(scaling), "ggml (ggml_rope_yarn_corr_dims)")


def _mlx_yarn(scaling: Yarn, setting: Setting) -> Reading:
    reading = Reading(scaling)
    if scaling.attention_factor is None:
        reading = _deepseek_rule(scaling, "mlx-lm (rope_utils.py, YarnRoPE)")
    return _without_truncate(reading, "mlx-lm")


def _megatron_yarn(scaling: Yarn, setting: Setting) -> Reading:
    return Reading(scaling) if scaling.attention_factor is not None else _deepseek_rule(scaling, "Megatron-LM")


def _keras_dynamic(scaling: DynamicNTK, setting: Setting) -> Reading:
    return Reading(
        KerasDynamic(scaling.factor), "KerasHub divides every frequency by factor ** (r / (r - 2)), whatever the length"
    )


#: system -> type of scaling -> how it reads that
SYSTEMS: dict[str, dict[type, Reader]] = {
    "transformers": {Yarn: _transformers_yarn},
    "vllm": {Yarn: _vllm_yarn, DynamicNTK: _vllm_dynamic, LongRope: _vllm_longrope},
    "ggml": {Yarn: _ggml_yarn, DynamicNTK: _ggml_dynamic, LongRope: _ggml_longrope},
    "mlx_lm": {Yarn: _mlx_yarn, DynamicNTK: _refuses("mlx-lm", "rope_type dynamic"), LongRope: _mlx_longrope},
    "megatron": {Yarn: _megatron_yarn},
    "keras_hub": {DynamicNTK: _keras_dynamic},
}


def _ggml_leftover(rope: Rope, reading: Reading) -> tuple[Rope, Reading]:
    """Pairs that three sections leave over, as text has them: transformers turns them by time, ggml by nothing."""
    axis = np.zeros(len(rope.inv_freq)) if rope.axis_of_freq is None else rope.axis_of_freq
    left = np.flatnonzero((axis == 0) & (np.arange(len(axis)) % 3 > 0))
    if not len(left):
        return rope, reading
    inv_freq = rope.inv_freq.copy()
    inv_freq[left] = 0
    reason = (
        f"ggml turns the pairs {', '.join(map(str, left))} by a fourth axis, which llama.cpp leaves at 0 for text "
        "(ggml-cpu/ops.cpp, GGML_ROPE_TYPE_IMROPE)"
    )
    scaling = InverseFrequencies(tuple(inv_freq.tolist()), rope.attention_factor)
    joined = "; ".join(filter(None, (reading.reason, reason)))
    return rope._replace(scaling=scaling), Reading(scaling, joined)


#: (system, how axes share the frequencies) -> what else becomes of a rotation
AXES: dict[tuple[str, str], Callable[[Rope, Reading], tuple[Rope, Reading]]] = {
    ("ggml", "mrope_interleaved"): _ggml_leftover,
}


def read_by(system: str, rope: Rope, setting: Setting) -> tuple[Rope | None, Reading]:
    """Return what a system makes of a Rope, None where it refuses it, and its reading."""
    reading = SYSTEMS[system].get(type(rope.scaling), _same)(rope.scaling, setting)
    if reading.refused:
        return None, reading
    found = rope if reading.scaling == rope.scaling else rope._replace(scaling=reading.scaling)
    further = AXES.get((system, setting.axes))
    return (found, reading) if further is None else further(found, reading)
