"""Text models and everything else with one position axis: what each family of transformers does, by its model_type.

Every entry repeats models/<family>/configuration_<family>.py (bases, head sizes, rotated parts and layers where a
config says nothing) and modeling_<family>.py (pairing, which layers turn) of transformers 5.23; the test that walks
the installed transformers holds each of them to its module.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from posenc.config._family import (
    ALL,
    Entry,
    Family,
    Kind,
    Switch,
    at_indices,
    every,
    listed,
    nope_list,
    renamed,
    rotary,
)

_SLIDING_ONLY = {"full_attention": None}  # the layers that see everything go without positions
_FULL, _SLIDING = "full_attention", "sliding_attention"
_YARN_OSS = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
_LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN_MISTRAL = {
    "rope_type": "yarn",
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
_HUNYUAN_KEYS = frozenset({"alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"})  # all but alpha unread
_MISTRAL_KEYS = frozenset({"llama_4_scaling_beta", "max_position_embeddings"})


def _latent(layout: str, width: int | None, base: float = 10_000.0, *, yarn_in_softmax: bool = True) -> Family:
    """DeepSeek's attention: a head of its own turns, `qk_rope_head_dim` wide."""
    return rotary(
        layout, base=base, head_key="qk_rope_head_dim", head_dim=width, latent=True, softmax_mscale=yarn_in_softmax
    )


def _by_rope_interleave(family: Family) -> Switch:
    """DeepSeek-V3's checkpoints pair neighbours; `rope_interleave: false` says that the weights were reordered."""
    cases = {True: replace(family, layout="interleaved_to_half"), False: replace(family, layout="half")}
    return Switch(key="rope_interleave", default=True, cases=cases)


def _all(names: str, entry: Entry) -> dict[str, Entry]:
    return dict.fromkeys(names.split(), entry)


def _two(layout: str, full: Kind, sliding: Kind, **options: Any) -> Family:
    return Family(layout=layout, kinds={_FULL: full, _SLIDING: sliding}, **options)


def _local(**options: Any) -> Kind:
    """A rotation whose base stands in a key of its own."""
    return Kind(key="local_rope_theta", **options)


_GEMMA3 = _two(
    "half",
    Kind(base=1_000_000.0, head_dim=256),
    _local(head_dim=256, takes_flat=False),
    layers=every(6, key="sliding_window_pattern"),
)
_GLOBAL = Kind(base=1_000_000.0, head_key="global_head_dim", head_dim=512)
_GEMMA4 = _two(
    "half",
    replace(_GLOBAL, missing={"rope_type": "proportional", "partial_rotary_factor": 0.25}),
    _local(head_dim=256, takes_flat=False),
    layers=every(6, last=True),
)
_MODERNBERT = _two(
    "half",
    Kind(base=160_000.0),
    _local(),
    layers=every(3, key="global_attn_every_n_layers", first=True),
)
_QWEN_HYBRID = rotary(
    "half", head_dim=256, partial=0.25, layers=every(4, others="linear_attention", key="full_attention_interval")
)
_MROPE_QWEN2 = rotary("half", base=1_000_000.0, axes="mrope", sections=(16, 24, 24))
_MROPE_QWEN3 = rotary("half", base=500_000.0, axes="mrope_interleaved", sections=(24, 20, 20))
_PHI3 = rotary("half", partial=1.0, aliases={"su": "longrope", "yarn": "longrope"})

FAMILIES: dict[str, Entry] = {
    # ---- pairs of halves, the whole head
    **_all(
        "arcee aria_text chameleon deepseek_ocr2_text deepseek_ocr2_encoder diffllama doge dots1 esmc eurobert "
        "gradium_phonon_tts granite granite4_vision_text granite_docling_text granitemoe "
        "granitemoeshared hyperclovax idefics jais2 kyutai_speech_to_text lasr_encoder llama mimi mimi_encoder "
        "mimi_decoder ministral mistral moshi olmo olmo2 olmoe pocket_tts pocket_tts_audio_tokenizer "
        "pocket_tts_audio_tokenizer_encoder pocket_tts_audio_tokenizer_decoder qwen2 qwen2_moe qwen3_moe "
        "qwen3_omni_moe_talker_text qwen3_omni_moe_code2wav starcoder2 unlimited_ocr_text "
        "voxtral_realtime_text",
        rotary("half"),
    ),
    **_all("bitnet csm csm_depth_decoder_model evolla flex_olmo", rotary("half", base=500_000.0)),
    **_all("emu3_text_model mixtral", rotary("half", base=1_000_000.0)),
    **_all("internlm3 iquestcoder", rotary("half", head_dim=128)),  # transformers builds LlamaModel of both
    **_all(
        "dia_encoder dia_decoder hrm_text qwen3 qwen3_omni_moe_talker_code_predictor seed_oss",
        rotary("half", head_dim=128),
    ),
    **_all(
        "neucodec qwen2_5_omni_dit voxtral_realtime_encoder xcodec2",
        rotary("half", head_dim=64),
    ),
    **_all("gemma gemma2 t5_gemma_module vaultgemma", rotary("half", head_dim=256)),
    **_all("hunyuan_v1_dense hunyuan_v1_moe", rotary("half", keys=_HUNYUAN_KEYS)),
    "apertus": rotary(
        "half",
        base=12_000_000.0,
        missing={**_LLAMA3, "factor": 8.0, "original_max_position_embeddings": 8192},
    ),
    "cwm": rotary(
        "half",
        base=1_000_000.0,
        head_dim=128,
        missing={**_LLAMA3, "factor": 16.0, "original_max_position_embeddings": 8192},
    ),
    "dbrx": rotary("half", inside="attn_config"),
    "falcon_h1": rotary("half"),
    "gpt_oss": rotary("half", base=150_000.0, head_dim=64, missing=_YARN_OSS),
    "gte": rotary("half", base=160_000.0),
    "higgs_audio_v2": rotary(
        "half",
        head_dim=128,
        missing={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 0.125,
            "high_freq_factor": 0.5,
            "original_max_position_embeddings": 1024,
        },
    ),
    "hy_v3": rotary("half", base=11_158_840.0, head_dim=128),
    "jetmoe": rotary("half", head_key="kv_channels", head_dim=128),
    "jina_embeddings_v3": rotary("half", base=20_000.0),
    "muse_glimmer_assistant": rotary("half", base=500_000.0, head_dim=128),
    "nanochat": rotary("half", clockwise=True, note="turns clockwise: its rotate_half is (x2, -x1)"),
    "nomic_bert": rotary("half", base=1_000.0),
    "phimoe": rotary(
        "half", base=1_000_000.0, aliases={"su": "longrope"}, keys=frozenset({"long_mscale", "short_mscale"})
    ),
    "qwen2_5_omni_talker": rotary("half", base=1_000_000.0, head_dim=128, axes="mrope", sections=(16, 24, 24)),
    "solar_open": rotary("half", base=1_000_000.0, head_dim=128, partial=1.0),
    "timesfm2_5": rotary("half", head_dim=80),
    "ministral3": rotary(
        "half",
        head_dim=128,
        missing={
            **_YARN_MISTRAL,
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
        },
        keys=_MISTRAL_KEYS,
        query_scale="mistral",
    ),
    # ---- pairs of halves, part of the head
    "bamba": rotary("half", partial=0.5, layers=at_indices("attn_layer_indices", ALL, None)),
    "dots3_note_audio_encoder": rotary("half", partial=0.5),
    "glm4_moe": rotary("half", partial=0.5),
    "glmasr_encoder": rotary("half", partial=0.5),
    "gpt_neox": rotary("half", partial=0.25),
    "gpt_neox_japanese": rotary("half", partial=1.0),
    "minimax_m2": rotary("half", base=5_000_000.0, head_dim=128, partial=1.0),
    "minimax_m3_vl_text": rotary("half", base=5_000_000.0, head_dim=128, partial=0.5),
    "nemotron": rotary("half", partial=0.5),
    "nemotron3_5_transcribe_asr_audio": rotary("half", partial=0.5),
    "nemotron3_5_transcribe_word_timestamp": rotary("half", partial=0.5),
    "nemotron3_diarization_audio": rotary("half", partial=1.0),
    "persimmon": rotary("half", partial=0.5),
    "phi": rotary("half", partial=0.5),
    "phi3": _PHI3,
    "phi4_multimodal": _PHI3,
    "stablelm": rotary("half", partial=0.25),
    # ---- neighbours
    "blt_patcher": rotary("interleaved"),
    **_all(
        "blt_local_encoder blt_local_decoder blt_global_transformer cohere ernie4_5_moe",
        rotary("interleaved", base=500_000.0),
    ),
    "ernie4_5": rotary("interleaved", base=500_000.0, head_dim=128),
    **_all("glm glm4", rotary("interleaved", head_dim=128, partial=0.5)),
    "helium": rotary("interleaved", base=100_000.0, head_dim=128),
    "moonshine": rotary(
        "interleaved",
        partial=0.9,
        sizes=("hidden_size", "decoder_num_attention_heads"),
        layers=listed(lambda i, n: ALL),
    ),
    "moonshine_streaming": rotary("interleaved", partial=0.8),
    "openai_privacy_filter": rotary("interleaved", base=150_000.0, head_dim=64, missing=_YARN_OSS),
    **_all(
        "pe_audio_encoder pe_audio_video_encoder pe_video_encoder", rotary("interleaved", base=20_000.0, head_dim=128)
    ),
    # ---- layers without positions
    "afmoe": rotary("half", head_dim=128, layers=renamed(every(4, key="global_attn_every_n_layers"), _SLIDING_ONLY)),
    "beam": Family(
        layout="half",
        kinds={_SLIDING: Kind(head_dim=128)},
        layers=renamed(every(6, last=True), _SLIDING_ONLY),
    ),
    "cohere2": rotary("interleaved", layers=renamed(every(4, key="sliding_window_pattern"), _SLIDING_ONLY)),
    "flint": rotary(
        "half",
        head_dim=128,
        layers=renamed(listed(lambda i, n: _FULL if i < 2 or i % 4 == 1 or i == n - 1 else _SLIDING), _SLIDING_ONLY),
    ),
    "llama4_text": rotary("interleaved", base=500_000.0, head_dim=128, layers=nope_list(), query_scale="llama4"),
    "smollm3": rotary("half", base=2_000_000.0, layers=nope_list()),
    # ---- attention in some layers only
    "lfm2": rotary("half", base=1_000_000.0, layers=at_indices("full_attn_idxs", ALL, "conv")),
    "lfm2_moe": rotary("half", base=1_000_000.0, layers=at_indices("full_attn_idxs", ALL, "conv")),
    "minimax": rotary("half", base=1_000_000.0, layers=every(2, "linear_attention", _FULL)),
    "mllama_text_model": rotary(
        "half", base=500_000.0, layers=at_indices("cross_attention_layers", None, ALL, (3, 8, 13, 18, 23, 28, 33, 38))
    ),
    "olmo_hybrid": rotary("half", layers=every(4, others="linear_attention")),
    "qwen3_next": _QWEN_HYBRID,
    # ---- another rotation for each type of layer
    **_all("gemma3_text t5gemma2_text t5gemma2_decoder", _GEMMA3),
    "gemma3n_text": replace(_GEMMA3, layers=every(5)),
    **_all("gemma4_text gemma4_unified_text", _GEMMA4),
    "diffusion_gemma_text": replace(
        _GEMMA4, kinds={name: replace(kind, partial=1.0) for name, kind in _GEMMA4.kinds.items()}
    ),
    "embedding_gemma2_text": replace(
        _GEMMA4,
        kinds={_FULL: _GLOBAL, _SLIDING: _GEMMA4.kinds[_SLIDING]},
    ),
    "laguna": _two(
        "half",
        Kind(head_dim=128, partial=1.0, missing={"rope_theta": 500_000.0, "partial_rotary_factor": 0.5}),
        _local(head_dim=128, partial=1.0),
        layers=listed(lambda i, n: _FULL),
    ),
    "lfm3": _two(
        "half",
        Kind(base=1_000_000.0, head_dim=128, missing={"rope_type": "proportional", "partial_rotary_factor": 0.5}),
        Kind(head_dim=128, base=1_000_000.0, missing={"rope_theta": 10_000.0}),
        layers=listed(lambda i, n: _FULL if i % 4 == 2 else _SLIDING if i % 4 == 0 and i > 0 else "conv"),
    ),
    "mellum": _two(
        "half",
        Kind(head_dim=128, partial=1.0, missing={"rope_theta": 500_000.0}),
        _local(head_dim=128, partial=1.0),
        layers=listed(lambda i, n: _FULL),
    ),
    "mimo_v2_flash": _two(
        "half",
        Kind(base=5_000_000.0, head_dim=192, partial=0.334),
        _local(head_dim=192, partial=0.334),
        layers=listed(lambda i, n: _FULL if i == 0 or (i + 1) % 6 == 0 else _SLIDING),
    ),
    **_all("modernbert modernbert-decoder", _MODERNBERT),
    "olmo3": _two("half", Kind(base=500_000.0), Kind(base=500_000.0, takes_flat=False), layers=every(4)),
    "step3p5": _two(
        "half",
        Kind(head_dim=128, partial=1.0),
        Kind(head_dim=128, partial=1.0, takes_flat=False),
        layers=listed(lambda i, n: _FULL),
    ),
    "ultrabert": _two("half", Kind(base=2_560_000.0), _local(), layers=every(3)),
    "zaya": Family(
        layout="half",
        kinds={
            "hybrid": Kind(base=5_000_000.0, head_dim=128, partial=0.5),
            "hybrid_sliding": _local(head_dim=128, partial=0.5, takes_flat=False),
        },
        layers=listed(lambda i, n: "hybrid"),
    ),
    # ---- multi-head latent attention
    "deepseek_v2": _latent("interleaved", 64),
    "deepseek_v3": _by_rope_interleave(_latent("half", 64)),
    **_all("axk1 youtu", _by_rope_interleave(_latent("half", 64))),
    "glm4_moe_lite": _by_rope_interleave(_latent("half", 64)),
    "axk2": _latent("interleaved_to_half", 32),
    "deepseek_v32": _latent("interleaved_to_half", 64),
    "glm_moe_dsa": _latent("interleaved_to_half", 64),
    "longcat_flash": _latent("interleaved_to_half", 64, 10_000_000.0),
    "bailing_hybrid": replace(
        _latent("interleaved_to_half", 64, 6_000_000.0),
        layers=every(8, others="linear_attention", key="layer_group_size"),
    ),
    "hy_v4": _latent("half", 64),
    "minicpm3": _latent("half", 32),
    "mistral4": _by_rope_interleave(
        replace(
            _latent("half", 64),
            kinds={
                ALL: Kind(
                    head_key="qk_rope_head_dim",
                    head_dim=64,
                    missing={**_YARN_MISTRAL, "factor": 128.0, "original_max_position_embeddings": 8192},
                )
            },
            keys=_MISTRAL_KEYS,
            query_scale="mistral",
        )
    ),
    # ---- several position axes: text of multimodal models
    **_all("qwen2_vl_text qwen2_5_vl_text qwen2_5_omni_text", _MROPE_QWEN2),
    "paddleocr_vl_text": rotary("half", base=500_000.0, head_dim=128, axes="mrope", sections=(16, 24, 24)),
    "qwen3_vl_text": replace(_MROPE_QWEN3, kinds={ALL: Kind(base=500_000.0, head_dim=128)}),
    "qwen3_vl_moe_text": _MROPE_QWEN3,
    "qwen3_omni_moe_text": replace(_MROPE_QWEN3, kinds={ALL: Kind(base=1_000_000.0)}),
    "cosmos3_edge_text": replace(_MROPE_QWEN3, kinds={ALL: Kind(base=100_000_000.0, head_dim=128)}),
    **_all(
        "qwen3_5_text qwen3_5_moe_text",
        replace(_QWEN_HYBRID, axes="mrope_interleaved", sections=(11, 11, 10)),
    ),
    **_all("glm4v_text glm_ocr_text", rotary("interleaved", partial=1.0, axes="mrope", sections=(8, 12, 12))),
    "glm4v_moe_text": rotary("half", partial=0.5, axes="mrope", sections=(8, 12, 12)),
    "glm_image_text": rotary("half", partial=1.0, axes="mrope", sections=(8, 12, 12)),
    "ernie4_5_vl_moe_text": rotary("interleaved", base=500_000.0, axes="ernie", sections=(22, 22, 20)),
}
