"""Vision, video and audio towers, and what else has positions that are not an index: one line a family.

Read from modeling_<family>.py of transformers 5.23: `compute_axial_rope_parameters` (frequencies) and
`recomposition_frequencies` (which axis turns which pair). Positions are what those modules are called with.
"""

from __future__ import annotations

from typing import Any

from posenc.config._family import ALL, Entry, Family, Kind, Other, Refused, Switch, rotary

_QWEN = ("hidden_size", "num_heads")
_DINO = rotary("half", base=100.0, axes="dinov3", note="prefix tokens (CLS, registers) are not turned")
_SAM = Family(
    layout="interleaved",
    kinds={ALL: Kind()},
    sizes=(
        "memory_attention_hidden_size",
        "memory_attention_downsample_rate",
        "memory_attention_num_attention_heads",
    ),
    axes="axial",
    note="turns the memory attention; object pointers among its keys are not turned",
)


def _axial(names: str, layout: str = "half", axes: str = "axial", **options: Any) -> dict[str, Entry]:
    return dict.fromkeys(names.split(), rotary(layout, axes=axes, **options))


def _speech(default: str, **options: Any) -> Switch:
    cases: dict[Any, Family | Other | Refused] = {
        "rotary": rotary("half", **options),
        "relative": Other(kind="relative", note="Transformer-XL relative positions: posenc.transformer_xl_bias"),
        "relative_key": Other(kind="relative", note="Shaw's clipped relative key embeddings, learned"),
        None: Other(kind="none", note="no positions: position_embeddings_type is null"),
    }
    return Switch(key="position_embeddings_type", default=default, cases=cases)


FAMILIES: dict[str, Entry] = {
    # h then w over half a head each, halves of the whole head paired
    **_axial(
        "cohere_compass_vision ernie4_5_vl_moe_vision exaone4_5_vision glm4v_vision glm4v_moe_vision glm5_next_vision "
        "glm_ocr_vision qwen2_5_omni_vision_encoder qwen2_5_vl_vision qwen3_5_vision qwen3_5_moe_vision "
        "qwen3_omni_moe_vision_encoder qwen3_vl_vision qwen3_vl_moe_vision qwen4_exp_vision",
        sizes=_QWEN,
    ),
    **_axial("qwen2_vl_vision", sizes=("embed_dim", "num_heads")),
    **_axial(
        "dots3_note_vision_encoder mlcd_vision_model muse_glimmer_vision muse_spark_vision paddleocr_vl_vision "
        "video_llama_3_vision"
    ),
    **_axial("lfm3_vl_vision", base=1_000_000.0),
    # w before h
    **_axial("step3p5_vision", axes="axial_wh"),
    **_axial("kimi_k25_vision", axes="axial_wh_alternating"),
    **_axial("inkling2_vision", "interleaved", "axial_wh"),
    **_axial(
        "llama4_vision_model",
        "interleaved",
        "axial_wh",
        note="positions are row + 1 and column + 1, and 0 for the class token, the last one",
    ),
    # others
    **_axial("pixtral", axes="pixtral"),
    **_axial("gemma4_vision", axes="blocks", base=100.0, head_dim=64),
    **_axial("minimax_m3_vl_vision", axes="thirds"),
    **_axial("sam3_vit_model", "interleaved"),
    **dict.fromkeys(("sam2_video", "sam3_tracker_video", "edgetam_video"), _SAM),
    **dict.fromkeys(("dinov3_vit", "sapiens2", "eomt_dinov3"), _DINO),
    "efficientloftr": Family(
        layout="interleaved",
        kinds={ALL: Kind(partial=4.0)},
        axes="grid_over_all_heads",
        note="turns queries and keys of all heads together, before they are split: head_dim is the hidden size",
    ),
    "musicflamingo": rotary(
        "interleaved", base=1_200.0, head_dim=1280, partial=0.2, axes="audio_time", note="turns audio features"
    ),
    # speech encoders with a choice
    "wav2vec2-conformer": _speech("relative"),
    "seamless_m4t": _speech("relative", sizes=("hidden_size", "speech_encoder_attention_heads")),
    "wav2vec2-bert": _speech("relative_key"),
}
