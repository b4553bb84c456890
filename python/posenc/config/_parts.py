"""Composite models: which dictionary of a config belongs to which part, and what family that part is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc.config._families import FAMILIES

if TYPE_CHECKING:
    from posenc.config._family import Config

#: What a part is where it does not say so itself: the defaults of transformers' composite configs.
_TEXT = {
    "llama": "deepseek_vl deepseek_vl_hybrid glmasr idefics3 janus llava llava_next llava_next_video perception_lm "
    "smolvlm video_llava vipllava voxtral",
    "qwen2": "audioflamingo3 fast_vlm got_ocr2 internvl llava_onevision musicflamingo ovis2 pp_chart2table qwen2_audio "
    "vibevoice vibevoice_asr video_llama_3",
    "qwen3": "fun_asr_nano lighton_ocr moss_transcribe_diarize qianfan_ocr qwen3_asr",
    "qwen3_5_text": "jev minicpm_ocr minicpmv4_6 minicpmv4_7",
    "glm4v_text": "glm46v glmga",
    "mistral": "idefics2 mistral3",
    "gemma": "paligemma",
    "gemma3_text": "shieldgemma2",
    "gemma4_unified_text": "gemma4_unified_assistant",
    "cohere2": "aya_vision cohere2_vision",
    "persimmon": "fuyu",
    "deepseek_v3": "kimi_k25",
    "exaone4": "exaone4_5",
    "granite": "granite_speech granite_speech_plus",
    "hyperclovax": "hyperclovax_vision_v2",
    "lfm2": "lfm2_vl",
    "lfm3": "lfm3_vl",
    "modernbert": "modernvbert pe_audio pe_audio_video pe_video",
    "ultrabert": "ultravbert",
    "nemotron_h": "nemo_speechlm nemotron_h_omni",
    "opt": "blip-2 instructblip instructblipvideo",
    "bart": "florence2",
    "bert": "grounding-dino mm-grounding-dino vision-text-dual-encoder",
    "qwen3_vl_text": "cosmos3_omni",
    "step3p5": "step3p7",
    "emu3_text_model": "emu3",
    "mllama_text_model": "mllama",
    "clvp_encoder": "clvp",
    "qwen2_5_omni_text": "qwen2_5_omni_thinker",
    "qwen3_omni_moe_text": "qwen3_omni_moe_thinker",
    "qwen3_omni_moe_talker_text": "qwen3_omni_moe_talker",
    "t5gemma2_text": "t5gemma2_encoder",
}
_OTHER = {
    ("blt", "global"): "blt_global_transformer",
    ("blt", "encoder"): "blt_local_encoder",
    ("blt", "decoder"): "blt_local_decoder",
    ("blt", "patcher"): "blt_patcher",
    ("clvp", "speech"): "clvp_encoder",
    ("cosmos3_omni", "vision"): "qwen3_vl_vision",
    ("csm", "depth_decoder"): "csm_depth_decoder_model",
    ("dia", "encoder"): "dia_encoder",
    ("dia", "decoder"): "dia_decoder",
    ("diffusion_gemma", "vision"): "gemma4_vision",
    ("dots3_note", "audio"): "dots3_note_audio_encoder",
    ("dots3_note", "vision"): "dots3_note_vision_encoder",
    ("esmfold2", "atom_encoder"): "esmfold2_atom_encoder",
    ("evolla", "protein_encoder"): "evolla_saprot",
    ("glm46v", "vision"): "glm4v_vision",
    ("glmasr", "audio"): "glmasr_encoder",
    ("glmga", "vision"): "glm4v_vision",
    ("hyperclovax_vision_v2", "vision"): "qwen2_5_vl_vision",
    ("lighton_ocr", "vision"): "pixtral",
    ("llama4", "vision"): "llama4_vision_model",
    ("mistral3", "vision"): "pixtral",
    ("mistral_large4", "vision"): "pixtral",
    ("qwen2_5_omni", "talker"): "qwen2_5_omni_talker",
    ("qwen2_5_omni", "thinker"): "qwen2_5_omni_thinker",
    ("qwen2_5_omni", "token2wav"): "qwen2_5_omni_token2wav",
    ("qwen2_5_omni_thinker", "vision"): "qwen2_5_omni_vision_encoder",
    ("qwen2_5_omni_token2wav", "dit"): "qwen2_5_omni_dit",
    ("qwen3_omni_moe", "code2wav"): "qwen3_omni_moe_code2wav",
    ("qwen3_omni_moe", "talker"): "qwen3_omni_moe_talker",
    ("qwen3_omni_moe", "thinker"): "qwen3_omni_moe_thinker",
    ("qwen3_omni_moe_talker", "code_predictor"): "qwen3_omni_moe_talker_code_predictor",
    ("qwen3_omni_moe_thinker", "vision"): "qwen3_omni_moe_vision_encoder",
    ("step3p7", "vision"): "step3p5_vision",
    ("t5gemma", "encoder"): "t5_gemma_module",
    ("t5gemma", "decoder"): "t5_gemma_module",
    ("t5gemma2", "encoder"): "t5gemma2_encoder",
    ("t5gemma2", "decoder"): "t5gemma2_decoder",
    ("voxtral_realtime", "audio"): "voxtral_realtime_encoder",
    **{(parent, "text"): name for name, parents in _TEXT.items() for parent in parents.split()},
}
_COMPOSITE = frozenset(parent for parent, _ in _OTHER)
_WITHOUT_SUFFIX = frozenset({"encoder", "decoder", "text_encoder", "audio_encoder", "atom_encoder"})
#: The part that is meant where none is named.
_FIRST = ("text", "language", "llm", "thinker.text", "vlm.text", "decoder", "global", "talker.text")


@dataclass(frozen=True)
class Chosen:
    """One part of a model."""

    family: str
    config: Config
    part: str = ""
    parts: tuple[str, ...] = ()


def choose(config: Config, part: str | None, family: str | None, *, known: bool) -> Chosen:
    """Return the part to read; `known` says that a layout was given, so that a family need not be known.

    Raises
    ------
    TypeError, ValueError
        For a config without model_type, and for a part that it has not.
    """
    if family is not None:
        if not isinstance(family, str):
            raise TypeError(f"family must be a string, got {check.shown(family)}")
        if part is not None:
            raise ValueError("part and family exclude each other: pass the part's own dictionary with family")
        return Chosen(family, config)
    if part is not None and not isinstance(part, str):
        raise TypeError(f"part must be a string, got {check.shown(part)}")
    parent = config.get("model_type") or ""
    if not isinstance(parent, str):
        raise TypeError(f"model_type must be a string, got {parent!r}")
    if not parent and not known:
        raise ValueError("model_type is missing; pass family= (a model_type of transformers) or layout=")
    found = {one.part: one for one in _parts(config, parent)}
    whole = _whole(config, parent, known=known, empty=not found)
    if whole is not None:
        found.setdefault(whole.part, whole)
    return _named(found, part, parent)


def _named(found: dict[str, Chosen], part: str | None, parent: str) -> Chosen:
    names = tuple(found)
    if part is None:
        part = next((name for name in _FIRST if name in found), "" if "" in found else None)
    if part is None and len(names) == 1:
        part = names[0]
    if part is None or part not in found:
        asked = "is needed" if part is None else f"{part!r} is not there"
        has = "one part only" if names == ("",) else f"the parts {', '.join(map(repr, names))}"
        raise ValueError(f"part {asked}: {parent!r} has {has}")
    one = found[part]
    return Chosen(one.family, one.config, part, () if names == ("",) else names)


def _whole(config: Config, parent: str, *, known: bool, empty: bool) -> Chosen | None:
    """Return the config as a whole, where its own keys describe something that has positions.

    Older files of composite models hold the numbers of the text decoder themselves (Qwen2-VL, GLM-4.1V).
    """
    if parent in FAMILIES or known:
        return Chosen(parent, config)
    text = _default(parent, "text")
    if text is not None and "text_config" not in config and "hidden_size" in config:
        return Chosen(text, config, "text")
    return Chosen(parent, config) if empty else None


def _parts(config: Config, parent: str, prefix: str = "") -> Iterator[Chosen]:
    for key, value in config.items():
        name = key.removesuffix("_config") if key.endswith("_config") else key
        if not isinstance(value, Mapping) or (name == key and key not in _WITHOUT_SUFFIX):
            continue
        family = _family_of(value, parent, name)
        if family is None:
            continue
        deeper = list(_parts(value, family, f"{prefix}{name}."))
        if family in FAMILIES or not deeper:
            yield Chosen(family, value, prefix + name)
        yield from deeper


def _family_of(own: Mapping[str, Any], parent: str, name: str) -> str | None:
    """Return what a part says that it is, if that is a family and not its parent; else the parent's default."""
    given = own.get("model_type")
    if isinstance(given, str) and given and given != parent and (given in FAMILIES or given in _COMPOSITE):
        return given
    default = _default(parent, name)
    return given if default is None and isinstance(given, str) and given else default


def _default(parent: str, name: str) -> str | None:
    """Return the table's entry, or the family that is called after its parent, as transformers names them."""
    named = f"{parent}_{name}"
    return _OTHER.get((parent, name)) or (named if named in FAMILIES else None)
