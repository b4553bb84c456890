"""Families that rotate nothing: what they do instead, and which function of posenc does it."""

from __future__ import annotations

from posenc.config._family import Entry, Other

_HEADS = ("num_attention_heads", None)
_LENGTH = ("max_position_embeddings", None)


def _learned(names: str, offset: int, note: str, rows: str = "max_position_embeddings") -> dict[str, Entry]:
    entry = Other(kind="learned", note=note, details={"rows": (rows, None), "offset": ("", offset)})
    return dict.fromkeys(names.split(), entry)


def _of_kind(names: str, kind: str, note: str, **details: tuple[str, object]) -> dict[str, Entry]:
    return dict.fromkeys(names.split(), Other(kind=kind, note=note, details=details))


_T5 = {
    "num_buckets": ("relative_attention_num_buckets", 32),
    "max_distance": ("relative_attention_max_distance", 128),
}

FAMILIES: dict[str, Entry] = {
    # ---- ALiBi
    "bloom": Other(
        kind="alibi",
        note="+m*j from the positions of the attention mask: posenc.alibi_bias(form='key')",
        details={"num_heads": _HEADS, "max_bias": ("", 8.0)},
    ),
    "mpt": Other(
        kind="alibi",
        note="m*(j - key_len + 1), slopes up to 2**-alibi_bias_max: posenc.alibi_bias(form='key'); without attn_config."
        "alibi, a learned table",
        details={"num_heads": _HEADS, "max_bias": ("alibi_bias_max", 8), "alibi": ("alibi", True)},
        inside="attn_config",
    ),
    # ---- learned tables
    **_learned(
        "albert bert big_bird bert-generation blip_text_model bridgetower_text_model chinese_clip_text_model "
        "clip_text_model convbert data2vec-vision distilbert electra ernie flava_text_model git layoutlm lilt "
        "megatron-bert mobilebert nezha realm siglip_text_model splinter squeezebert visual_bert",
        0,
        "a learned table from position 0 on: posenc.add_positions",
    ),
    **_learned(
        "aimv2_text_model align_text_model groupvit_text_model metaclip_2_text_model owlv2_text_model "
        "owlvit_text_model siglip2_text_model",
        0,
        "a learned table from position 0 on: posenc.add_positions",
    ),
    **_of_kind(
        "clip_vision_model deit dinov2 idefics2_vision idefics3_vision metaclip_2_vision_model owlv2_vision_model "
        "owlvit_vision_model siglip2_vision_model siglip_vision_model smolvlm_vision vit",
        "learned",
        "a learned table over the patches of one image size: posenc.resize_table for another",
        image_size=("image_size", None),
        patch_size=("patch_size", None),
    ),
    **_learned(
        "camembert data2vec-text ibert layoutlmv3 longformer mpnet roberta roberta-prelayernorm xlm-roberta "
        "xlm-roberta-xl xmod",
        -1,
        "a learned table; the first token has pad_token_id + 1: posenc.positions.roberta",
    ),
    **_learned(
        "gpt2 gpt_bigcode gpt_neo imagegpt openai-gpt",
        0,
        "a learned table from position 0 on: posenc.add_positions",
        "n_positions",
    ),
    **_learned(
        "opt", 2, "a learned table with two rows in front, positions from the attention mask: posenc.positions.opt"
    ),
    **_learned("bart mbart plbart blenderbot-small mvp biogpt", 2, "a learned table with two rows in front"),
    **_learned("blenderbot", 0, "a learned table from position 0 on"),
    # ---- sinusoidal
    **_of_kind(
        "marian pegasus fsmt time_series_transformer informer autoformer",
        "sinusoidal",
        "[sin | cos], exponents 2i/d: posenc.sinusoidal_table",
        rows=_LENGTH,
    ),
    **_of_kind(
        "m2m_100 nllb-moe speech_to_text xglm trocr",
        "sinusoidal",
        "[sin | cos] as in tensor2tensor and fairseq, exponents i/(d/2 - 1), positions from padding_idx + 1: "
        "posenc.sinusoidal_table(convention='tensor2tensor')",
        rows=_LENGTH,
    ),
    **_of_kind(
        "kosmos_2_text_model musicgen_decoder musicgen_melody_decoder",
        "sinusoidal",
        "exponents i/(d/2 - 1): posenc.sinusoidal_table(convention='tensor2tensor'); which half is which differs",
        rows=_LENGTH,
    ),
    **_of_kind(
        "whisper",
        "sinusoidal",
        "encoder: [sin | cos], exponents i/(d/2 - 1); decoder: a learned table",
        rows=("max_source_positions", 1500),
    ),
    # ---- relative
    **_of_kind(
        "t5 mt5 umt5 longt5 switch_transformers pop2piano udop pix2struct_text_model",
        "relative",
        "buckets of distances, a learned bias for each: posenc.t5_bias",
        **_T5,
    ),
    **_of_kind(
        "xlnet transfo-xl parakeet_encoder nemotron_asr_streaming_encoder",
        "relative",
        "Transformer-XL: posenc.transformer_xl_bias",
    ),
    **_of_kind("inkling_text inkling2_text", "relative", "a bias by distance, made of the hidden states by a layer"),
    **_of_kind(
        "deberta deberta-v2 sew-d",
        "relative",
        "disentangled attention: posenc.add_disentangled_bias",
        buckets=("position_buckets", -1),
        max_relative_positions=("max_relative_positions", -1),
    ),
    # ---- nothing
    "moshi_depth": Other(kind="none", note="no positions: Moshi's depth decoder is built with use_rope=False"),
    **_of_kind(
        "falcon_mamba glm5_next_text jamba kimi_linear mamba mamba2 nemotron_h rwkv xlstm", "none", "no positions"
    ),
}
