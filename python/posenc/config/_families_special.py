"""Families that need a rule of their own: bases by layer, two rotations in one model, older models, proteins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from posenc import _parameters as check
from posenc.axes import NOT_ROTATIONS
from posenc.config._family import (
    ALL,
    Config,
    Entry,
    Family,
    Kind,
    LayerRule,
    Other,
    Refused,
    Switch,
    every,
    listed,
    nope_list,
    renamed,
    rotary,
)

_FULL, _SLIDING = "full_attention", "sliding_attention"
_MUSE = listed(lambda i, n: None if (n - 1 - i) % 4 == 0 else ALL)


def _cohere2_moe(config: Config, number: int) -> Sequence[str | None]:
    """Sliding layers turn; the dense ones at the start too, where every one of them is full."""
    dense = check.integer("first_k_dense_replace", config.get("first_k_dense_replace") or 0, 0, most=number)
    kinds = config.get("mlp_layer_types") or ["dense" if i < dense else "sparse" for i in range(number)]
    prefix, period = (
        check.integer(key, usual if config.get(key) is None else config[key], 1)
        for key, usual in (("prefix_dense_sliding_window_pattern", 1), ("sliding_window_pattern", 4))
    )
    head = [_SLIDING if (i + 1) % prefix else _FULL for i in range(dense)]
    tail = [_SLIDING if (i + 1) % period else _FULL for i in range(number - dense)]
    types = config.get("layer_types") or head + tail
    forced = [kind == "dense" and prefix == 1 for kind in kinds]
    return [ALL if kind == _SLIDING or force else None for kind, force in zip(types, forced, strict=True)]


def _deepseek_v4(config: Config, number: int) -> Sequence[str | None]:
    """Layers that compress their keys turn by one base, those with a window alone by the other."""
    ratios = config.get("compress_ratios")
    if config.get("layer_types") is None and ratios is not None:
        return ["compress" if ratio else "main" for ratio in ratios[:number]]
    types = config.get("layer_types") or ["heavily_compressed_attention"] * number
    return ["main" if kind == _SLIDING else "compress" for kind in types]


def _molmo2(config: Config, number: int) -> Sequence[str | None]:
    scaled = config.get("rope_scaling_layers")
    return ["scaled" if scaled is None or i in scaled else "unscaled" for i in range(number)]


def _sliding_layers(period: int) -> LayerRule:
    """Return the rule by which sliding layers turn, and all of them where the model has no window (EXAONE 4)."""
    usual = renamed(every(period, key="sliding_window_pattern"), {_FULL: None})

    def types(config: Config, number: int) -> Sequence[str | None]:
        if "sliding_window" in config and config["sliding_window"] is None:
            return [ALL] * number
        return usual(config, number)

    return types


def _recurrent(config: Config, number: int) -> Sequence[str | None]:
    types = config.get("layer_types") or config.get("block_types") or ["recurrent", "recurrent", "attention"]
    return [ALL if types[i % len(types)] in ("attention", _SLIDING) else None for i in range(number)]


def _seventh_is_hybrid(config: Config, number: int) -> Sequence[str | None]:
    types = config.get("layer_types") or config.get("layers_block_type") or ()
    return [ALL if kind in ("hybrid", "attention") else None for kind in types]


def _width_of_deepseek_v4(config: Config, head_dim: int) -> int | None:
    width: int | None = config.get("qk_rope_head_dim")
    return width


def _width_of_clvp(config: Config, head_dim: int) -> int | None:
    """Return max(projection_dim / (2 heads), 32)."""
    whole = check.integer("projection_dim", config.get("projection_dim", 768), 1)
    heads = check.integer("num_attention_heads", config.get("num_attention_heads", 12), 1)
    return max(whole // (2 * heads), 32)


def _latent(width: int, base: float, key: str = "rope_theta", head_key: str = "qk_rope_head_dim") -> Kind:
    return Kind(base=base, key=key, head_key=head_key, head_dim=width)


_ALIBI = {"num_heads": ("num_attention_heads", None)}
_LEARNED = Other(kind="learned", note="a learned table, added to the embeddings: posenc.add_positions")
_ESM = Switch(
    key="position_embedding_type",
    default="absolute",
    cases={
        "rotary": rotary("half"),
        "absolute": replace(_LEARNED, note="a learned table from padding_idx + 1 on: posenc.positions.roberta"),
        "relative_key": Other(kind="relative", note="Shaw's relative embeddings, learned"),
        "relative_key_query": Other(kind="relative", note="Shaw's relative embeddings of keys and queries, learned"),
    },
)

FAMILIES: dict[str, Entry] = {
    # ---- bases by layer, and layers without
    "granite_swa": rotary("half", bases_by_layer=True),
    "granitemoe_swa": rotary("half", bases_by_layer=True),
    "muse_glimmer_text": rotary("half", head_dim=128, bases_by_layer=True, layers=_MUSE),
    "muse_spark_text": rotary(
        "half", head_dim=64, bases_by_layer=True, layers=_MUSE, missing={"rope_theta": 500_000.0}
    ),
    **dict.fromkeys(("exaone4", "exaone_moe"), rotary("half", layers=_sliding_layers(4))),
    "kolibri1": rotary("half", head_dim=128, layers=_sliding_layers(5)),
    "cohere2_moe": rotary("interleaved", head_dim=128, layers=_cohere2_moe),
    "molmo2_text": Family(
        layout="half",
        kinds={"scaled": Kind(head_dim=128), "unscaled": Kind(head_dim=128, scales=False)},
        layers=_molmo2,
    ),
    "granitemoehybrid": Switch(
        key="position_embedding_type",
        default=None,
        cases={
            "rope": rotary("half", layers=renamed(listed(lambda i, n: "linear_attention"), {"attention": ALL})),
            None: Other(kind="none", note="no positions: position_embedding_type is null"),
            "nope": Other(kind="none", note="no positions: position_embedding_type is 'nope'"),  # Granite 4.0 H
        },
    ),
    "zamba2": Switch(
        key="use_mem_rope",
        default=False,
        cases={
            True: rotary("half", head_key="attention_head_dim", layers=_seventh_is_hybrid),
            False: Other(kind="none", note="no positions: use_mem_rope is false"),
        },
    ),
    "recurrent_gemma": rotary("half", partial=0.5, layers=_recurrent),
    "mistral_large4_text": Family(
        layout="interleaved_to_half",
        kinds={
            ALL: replace(
                _latent(64, 10_000.0),
                missing={
                    "rope_type": "yarn",
                    "factor": 2048.0,
                    "original_max_position_embeddings": 512,
                    "beta_fast": 32.0,
                    "beta_slow": 1.0,
                    "attention_factor": 1.0,
                },
            )
        },
        latent=True,
        softmax_mscale=True,
        layers=nope_list(),
        note="its checkpoint multiplies inv_freq by exp(alpha), a learned buffer that no config holds",
    ),
    # ---- another rotation for each type of layer
    "deepseek_v4": Family(
        layout="interleaved",
        kinds={
            "main": Kind(head_dim=512, partial=0.125, takes_flat=False, rotated=_width_of_deepseek_v4),
            "compress": Kind(
                base=160_000.0,
                key="compress_rope_theta",
                head_dim=512,
                partial=0.125,
                implied={"yarn": {"attention_factor": 1.0}},
                rotated=_width_of_deepseek_v4,
            ),
        },
        trailing=True,
        layers=_deepseek_v4,
        note="the attention output is turned back (inverse=True) by the position of its query",
    ),
    "dots3_note_text": Family(
        layout="interleaved_to_half",
        kinds={
            "indexed_attention": _latent(64, 80_000_000.0),
            _FULL: _latent(64, 80_000_000.0),
            _SLIDING: _latent(64, 50_000.0, "local_rope_theta", "swa_qk_rope_head_dim"),
        },
        latent=True,
        layers=listed(lambda i, n: "indexed_attention" if i < 2 or i % 4 == 1 else _SLIDING),
    ),
    "neomme": Family(
        layout="half",
        kinds={
            _FULL: Kind(base=1_000_000.0, head_dim=64, partial=0.25),
            _SLIDING: Kind(head_dim=64, key="local_rope_theta", partial=1.0),
        },
        axes="rows_columns",
        layers=every(6, last=True),
    ),
    "cohere_compass_text": Family(
        layout="half",
        kinds={_FULL: Kind(base=None), _SLIDING: Kind(base=None)},
        axes="mrope_interleaved",
        sections=(24, 20, 20),
        layers=listed(lambda i, n: _FULL),
    ),
    "qwen4_exp_text": rotary(
        "half",
        head_dim=256,
        partial=1.0,
        axes="mrope_clamped",
        sections=(11, 11, 10),
        layers=every(4, others="linear_attention", key="full_attention_interval"),
    ),
    # ---- one thing or another
    "falcon": Switch(
        key="alibi",
        default=False,
        cases={
            False: rotary("half"),
            True: Other(
                kind="alibi",
                note="+m*j in bfloat16, added before the division by sqrt(head_dim): posenc.alibi_bias",
                details=_ALIBI,
            ),
        },
    ),
    "esm": _ESM,
    "evolla_saprot": replace(_ESM, default="rotary"),
    "clvp_encoder": Switch(
        key="use_rotary_embedding",
        default=True,
        cases={
            True: rotary("half", rotated=_width_of_clvp, note="values are turned as well"),
            False: Other(kind="none", note="no positions: use_rotary_embedding is false"),
        },
    ),
    # ---- before rope dictionaries
    "gptj": rotary("interleaved", rotated=lambda config, head_dim: config.get("rotary_dim", 64)),
    "codegen": rotary("interleaved", rotated=lambda config, head_dim: config.get("rotary_dim", 64)),
    "roformer": rotary("interleaved", note="values are turned as well where rotary_value is true"),
    # ---- no rotation
    "hunyuan_vl_text": rotary(
        "half",
        axes="hunyuan_vl",
        aliases={"xdrope": "dynamic"},
        keys=frozenset({"alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"}),
        note=NOT_ROTATIONS["hunyuan_vl"],
    ),
    "vjepa2": rotary("interleaved", axes="vjepa2", note=NOT_ROTATIONS["vjepa2"]),
    "lightglue": Refused(
        reason="its angles are a learned projection of keypoint coordinates: compute them, and pass their cosines and "
        "sines to posenc.apply_rotary_emb(layout='interleaved')"
    ),
    "esmfold2_atom_encoder": Family(
        layout="half",
        kinds={ALL: Kind(key="uid_rope_base_frequency")},
        axes="atoms",
        note="positions are x, y, z in angstroms and the number of the residue",
    ),
}
