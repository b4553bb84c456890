"""What else of attention depends on positions: growing scales of queries, and YaRN's share of the softmax scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc.query_scale import Llama4Scale, MistralScale
from posenc.scaling import mscale_of

if TYPE_CHECKING:
    from posenc.config._family import Config

Parameters = Mapping[str, Any]


def _llama4(config: Config, parameters: Parameters) -> Llama4Scale | None:
    """On layers without RoPE (models/llama4/modeling_llama4.py, `Llama4TextAttention.forward`)."""
    if not config.get("attn_temperature_tuning", True):
        return None
    return Llama4Scale(config.get("attn_scale", 0.1), config.get("floor_scale", 8192.0))


def _mistral(config: Config, parameters: Parameters) -> MistralScale | None:
    """On all layers (models/ministral3/modeling_ministral3.py, `get_llama_4_attn_scale`)."""
    beta = parameters.get("llama_4_scaling_beta")
    if beta is None:
        return None
    length: Any = parameters.get("original_max_position_embeddings") or config.get("max_position_embeddings")
    return MistralScale(length, beta)


QUERY_SCALES: dict[str, Callable[[Config, Parameters], Any]] = {"llama4": _llama4, "mistral": _mistral}


def softmax_scale(parameters: Parameters, scaling: Any) -> float:
    """Return mscale_of(factor, mscale_all_dim) ** 2 where a scaling and that coefficient are given, else 1.

    deepseek-ai/DeepSeek-V3, inference/model.py, `MLA`; transformers, models/deepseek_v3/modeling_deepseek_v3.py.
    """
    coefficient, factor = parameters.get("mscale_all_dim"), getattr(scaling, "factor", None)
    if not coefficient or factor is None:
        return 1.0
    return mscale_of(factor, check.positive("mscale_all_dim", coefficient)) ** 2
