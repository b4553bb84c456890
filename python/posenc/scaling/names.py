"""One word, several scalings: which system means what, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from posenc.scaling.bands import Llama3, Proportional
from posenc.scaling.given import Divisors, InverseFrequencies, Periods
from posenc.scaling.interpolation import NTK, DynamicLinear, DynamicNTK, Linear, NTKByParts
from posenc.scaling.longrope import LongRope
from posenc.scaling.lookalikes import DiffusersNTK, KerasDynamic, VllmNTK
from posenc.scaling.yarn import DynamicYarn, Yarn

if TYPE_CHECKING:
    from collections.abc import Callable

    from posenc.scaling._protocol import Scaling

#: A plain name is what most systems mean by it; "system:name" is what that system means.
NAMES: dict[str, Callable[..., Scaling]] = {
    "linear": Linear,
    "ntk": NTK,
    "ntk_by_parts": NTKByParts,
    "dynamic": DynamicNTK,
    "dynamic_linear": DynamicLinear,
    "yarn": Yarn,
    "dynamic_yarn": DynamicYarn,
    "longrope": LongRope,
    "su": LongRope,
    "llama3": Llama3,
    "proportional": Proportional,
    "inv_freq": InverseFrequencies,
    "periods": Periods,
    "freq_factors": Divisors,
    "deepseek:yarn": partial(Yarn, mscale_rule="deepseek"),
    "diffusers:linear_factor": Linear,
    "diffusers:ntk_factor": DiffusersNTK,
    "ggml:freq_factors": Divisors,
    "ggml:yarn": partial(Yarn, mscale_rule="ggml"),
    "hunyuan:alpha": NTK,
    "keras_hub:dynamic": KerasDynamic,
    "megatron:yarn": partial(Yarn, mscale_rule="deepseek"),
    "mlx:freqs": Periods,
    "mlx_lm:longrope": partial(LongRope, switch="long"),
    "telechat3:yarn": partial(Yarn, mscale_rule="telechat3"),
    "transformer_engine:dynamic": DynamicLinear,
    "transformers:dynamic": DynamicNTK,
    "vllm:deepseek_yarn": partial(Yarn, mscale_rule="deepseek"),
    "vllm:ntk": VllmNTK,
}

#: Readings that no checkpoint was trained for, as far as is known: a wrong result under a right name.
REFUSED = {
    "keras_hub:yarn": "before its pull request 2981 it clamped positions to the length of training; since then it is "
    "'yarn'",
    "levanter:yarn": "it halves rotary_dim in the ramp, divides both positions and frequencies by the factor, and "
    "takes the root of the attention factor; pass its frequencies as InverseFrequencies if a checkpoint needs them",
    "vllm:dynamic": "it is one table for the largest length: use DynamicNTK and rope.at(max_model_len)",
    "vllm:longrope": "it decides once, by max_model_len: use LongRope with switch='long' or switch='short'",
    "ggml:longrope": "it decides once, by n_ctx: use LongRope with switch='long' or switch='short'",
    "vllm:fope": "FoPE mixes cosines by learned matrices; it is no rotation",
}


def by_name(name: str, *arguments: Any, **parameters: Any) -> Scaling:
    """Return the scaling that a name stands for.

    Parameters
    ----------
    name : str
        "yarn", "llama3", ..; or "system:name" for what one system means by it, such as "vllm:ntk".
    *arguments, **parameters
        Of the scaling.

    Raises
    ------
    ValueError
        For an unknown name, and for one that stands for something refused: the message says why and what to do.

    Examples
    --------
    >>> by_name("vllm:ntk", factor=8.0)
    VllmNTK(factor=8.0, mixed_b=None)
    """
    if name in REFUSED:
        raise ValueError(f"scaling {name!r} is refused: {REFUSED[name]}")
    if name not in NAMES:
        raise ValueError(f"scaling must be one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return NAMES[name](*arguments, **parameters)
