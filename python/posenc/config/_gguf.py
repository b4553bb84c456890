"""The metadata of a GGUF file: another set of keys, and other pairs for the same model.

llama.cpp reorders query and key weights of some families when it converts them, so layouts are its own:
src/llama-model.cpp, `llama_model_rope_type` ("NORM" pairs neighbours, "NEOX" halves, "MROPE" and "IMROPE" halves with
several axes); keys and defaults as `llama_model::load_hparams` reads them, names as gguf-py's constants.py has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posenc.config._family import ALL, Entry, Family, Kind, Other, rotary

if TYPE_CHECKING:
    from posenc.config._report import Report

_LAYOUTS = {
    "interleaved": (
        "arcee arctic baichuan bailingmoe chameleon chatglm cohere2 cohere2moe command-r deci deepseek "
        "deepseek2 deepseek2-ocr deepseek32 ernie4_5 ernie4_5-moe glm-dsa glm4 granite granitehybrid granitemoe "
        "internlm2 llada llama llama-embed llama4 maincoder minicpm mistral3 mistral4 neo-bert olmo plm smollm3 "
        "starcoder xverse"
    ),
    "half": (
        "afmoe apertus bailingmoe2 bert bitnet codeshell cogvlm dbrx dots1 dream eurobert exaone exaone-moe exaone4 "
        "falcon falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 glm4moe gpt-oss gptneox grok grovemoe "
        "hunyuan-dense hunyuan-moe jais2 jina-bert-v3 laguna lfm2 lfm2moe llada-moe mellum mimo2 minicpm3 minimax-m2 "
        "modern-bert nemotron nomic-bert nomic-bert-moe olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 "
        "phimoe plamo plamo2 plamo3 qwen qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl "
        "qwen3vlmoe rnd1 seed_oss smallthinker stablelm starcoder2 step35"
    ),
}
LAYOUTS = {arch: layout for layout, names in _LAYOUTS.items() for arch in names.split()}
AXES = {
    **dict.fromkeys(("qwen2vl", "paddleocr"), "mrope"),
    **dict.fromkeys(("qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"), "mrope_interleaved_ggml"),
}
_NONE = (
    "arwkv7 bloom gpt2 gptj jais jamba jina-bert-v2 kimi-linear mamba mamba2 mpt nemotron_h nemotron_h_moe refact "
    "rwkv6 rwkv6qwen2 rwkv7 t5 t5encoder wavtokenizer-dec"
)
NONE = frozenset(_NONE.split())
#: Families of which only a part of each head, stored apart, turns.
LATENT = frozenset({"deepseek2", "deepseek2-ocr", "deepseek32", "glm-dsa", "minicpm3", "mistral4", "plm"})
#: Families whose sliding layers have a base that llama.cpp knows by heart where the file has no freq_base_swa.
SLIDING_BASE = {"gemma3": 10_000.0, "gemma3n": 10_000.0, "gemma-embedding": 10_000.0, "modern-bert": 10_000.0}

#: Families of which some layers turn nothing.
NOT_ALL_LAYERS = frozenset({"afmoe", "cohere2", "cohere2moe", "exaone4", "exaone-moe", "llama4", "smollm3"})

_KNOWN = {
    "freq_base": "rope_theta",
    "freq_base_swa": "local_rope_theta",
    "dimension_count": "rotary_dim",
    "dimension_sections": "mrope_section",
}
_SCALING = {
    "type": "rope_type",
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "attn_factor": "attn_factor",
    "yarn_attn_factor": "attn_factor",
    "yarn_ext_factor": "extrapolation_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
    "yarn_log_multiplier": "yarn_log_multiplier",
    "finetuned": "finetuned",
    "alpha": "alpha",
}
#: Tensors that are no metadata but divide the frequencies; they may be put beside it.
TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def is_metadata(config: Mapping[str, Any]) -> bool:
    """Return whether a dictionary holds the metadata of a GGUF file."""
    return "general.architecture" in config


def translated(metadata: Mapping[str, Any], layout: str | None, report: Report) -> tuple[str, Entry, dict[str, Any]]:
    """Return the name, the family and the config that metadata amount to.

    Raises
    ------
    ValueError
        For an architecture that is not known, and for one whose scaling stands in tensors that are not given.
    """
    arch = metadata["general.architecture"]
    if arch in NONE:
        return arch, Other(kind="none", note="llama.cpp rotates nothing for this architecture"), {}
    found = LAYOUTS.get(arch) if layout is None else layout
    if found is None:
        raise ValueError(
            f"general.architecture {arch!r} is not known. Pass layout='half' (NEOX) or 'interleaved' (NORM) as "
            "llama_model_rope_type of llama.cpp says"
        )
    prefix = f"{arch}."
    own = {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}
    config = _config(own, report, arch)
    _put_tensors(metadata, config, report)
    return arch, _family(arch, found, config), config


def _family(arch: str, layout: str, config: Mapping[str, Any]) -> Family:
    head_key = "rotary_dim" if arch in LATENT else "head_dim"
    kinds = {ALL: Kind(head_key=head_key, partial=1.0)}
    if config.get("local_rope_theta") is not None or arch in SLIDING_BASE:
        base = SLIDING_BASE.get(arch, 10_000.0)
        kinds = {
            "full_attention": Kind(head_key=head_key, partial=1.0),
            "sliding_attention": Kind(
                head_key=head_key, base=base, key="local_rope_theta", takes_flat=False, partial=1.0
            ),
        }
    family = rotary(layout, axes=AXES.get(arch, ""), softmax_mscale=arch in LATENT)
    note = "some layers turn nothing, which is not in the metadata" if arch in NOT_ALL_LAYERS else ""
    return replace(family, kinds=kinds, note=note)


def _config(own: Mapping[str, Any], report: Report, arch: str) -> dict[str, Any]:
    """Return the entries that matter, under the names that configs have."""
    config: dict[str, Any] = {
        "hidden_size": own.get("embedding_length"),
        "num_attention_heads": own.get("attention.head_count"),
        "num_hidden_layers": own.get("block_count"),
        "head_dim": own.get("attention.key_length"),
        "max_position_embeddings": own.get("context_length"),
    }
    scaling: dict[str, Any] = {}
    for key, value in own.items():
        if not key.startswith("rope."):
            continue
        name = key.removeprefix("rope.")
        if name in _KNOWN:
            config[_KNOWN[name]] = value
        elif name.removeprefix("scaling.") in _SCALING and name.startswith("scaling."):
            scaling[_SCALING[name.removeprefix("scaling.")]] = value
        elif name == "scale_linear":
            scaling.update(rope_type="linear", factor=value)
        elif name != "dimension_count_swa":
            report.wrong(f"{arch}.{key}={value!r} is no key that is known to say something about positions")
    if isinstance(config["num_attention_heads"], (list, tuple)):  # one count for each layer
        config["num_attention_heads"] = max(config["num_attention_heads"])
    config["rope_scaling"] = _scaling(scaling)
    return {key: value for key, value in config.items() if value is not None}


def _scaling(found: dict[str, Any]) -> dict[str, Any] | None:
    """Return a rope dictionary; "linear" where a type is missing, and nothing for a factor of 0 or 1."""
    name = found.get("rope_type", "linear")
    factor = found.get("factor") or 1.0
    if name == "none" or (name == "linear" and factor == 1.0):
        return None
    if name == "linear":
        return {"rope_type": "linear", "factor": factor}
    kept = {key: value for key, value in found.items() if key != "alpha" or value}
    multiplier = kept.pop("yarn_log_multiplier", None)
    if name == "yarn" and multiplier:  # DeepSeek: all of mscale is in the softmax (src/models/deepseek2.cpp)
        kept.pop("attn_factor", None)
        kept |= {"attention_factor": 1.0, "mscale_all_dim": 10.0 * multiplier}
    elif name == "yarn":
        kept["mscale_rule"] = "ggml"
    return kept


def _put_tensors(metadata: Mapping[str, Any], config: dict[str, Any], report: Report) -> None:
    """Divisors of the frequencies are tensors in GGUF: take them where they are given."""
    divisors = metadata.get(TENSORS[0])
    if divisors is not None:
        config["rope_scaling"] = {"rope_type": "freq_factors", "divisors": [float(x) for x in divisors]}
        return
    long, short = (metadata.get(name) for name in TENSORS[1:])
    rope = config.get("rope_scaling")
    if long is not None and short is not None:
        kept = {**(rope or {}), "rope_type": "longrope"}
        kept["long_factor"], kept["short_factor"] = ([float(x) for x in factors] for factors in (long, short))
        kept["attention_factor"] = kept.pop("attn_factor", 1.0)
        config["rope_scaling"] = {key: value for key, value in kept.items() if key != "finetuned"}
    elif rope is not None and rope.get("rope_type") == "longrope":
        raise ValueError(
            "rope.scaling.type 'longrope' keeps its factors in tensors: put rope_factors_long.weight and "
            "rope_factors_short.weight into the dictionary beside the metadata"
        )
    else:
        report.note(
            "a tensor rope_freqs.weight, where the file has one (Llama 3.1), divides the frequencies: it is no "
            "metadata, put it into the dictionary under that name"
        )
