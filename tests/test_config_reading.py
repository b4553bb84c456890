"""Spellings, layers and parts of configs, and families with a choice."""

from __future__ import annotations

import json
import timeit
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posenc import Rope, config, scaling
from posenc.axes import UnequalRope

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 4096,
}
GEMMA = {"model_type": "gemma3_text", "hidden_size": 2304, "num_attention_heads": 8, "num_hidden_layers": 6}
SMOLLM3 = {"model_type": "smollm3", "hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 4}
MROPE = {"model_type": "qwen2_vl_text", "hidden_size": 2048, "num_attention_heads": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}


# ---- sources


class WithToDict:
    """What a config object has to have."""

    def to_dict(self) -> dict[str, Any]:
        return dict(LLAMA)


def test_sources_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    whole = config.read(LLAMA)
    for source in (tmp_path, str(tmp_path), tmp_path / "config.json", WithToDict()):
        assert config.read(source) == whole
    assert whole.rope() == Rope(128, layout="half")
    assert whole.layers == ("all", "all")
    assert whole.max_position_embeddings == 4096


def test_a_config_is_not_changed() -> None:
    given = {**GEMMA, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}
    before = json.dumps(given)
    config.read(given)
    assert json.dumps(given) == before


@pytest.mark.parametrize("content", ["{", "[1, 2]", '"llama"'])
def test_files_that_hold_no_config(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config.json' (holds no JSON|must hold a JSON object)"):
        config.read(tmp_path)


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    """Some editors put one at the head of a file."""
    given = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps(given), encoding="utf-8-sig")
    assert config.read(tmp_path) == config.read(given)


# ---- spellings


@pytest.mark.parametrize(
    ("own", "base", "found"),
    [
        ({"rope_theta": 5e5}, 5e5, None),
        ({"rotary_emb_base": 5e5}, 5e5, None),
        ({"rope_parameters": {"rope_theta": 5e5}}, 5e5, None),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_theta": 5e5}, 5e5, None),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, 1e4, scaling.Linear(2.0)),
        ({"rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 2}}, 1e4, scaling.Linear(2.0)),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 5e5}}, 5e5, scaling.Linear(2.0)),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 1e4, scaling.DynamicNTK(2.0, 4096)),
        ({"rope_scaling": {"type": "dynamic", "alpha": 1000.0}}, 1e4, scaling.NTK(1000.0)),
        ({"rope_scaling": {"rope_type": "ntk", "factor": 8.0}}, 1e4, scaling.VllmNTK(8.0)),
        ({"rope_scaling": {"rope_type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, 1e4, scaling.VllmNTK(8.0, 0.6)),
        ({"rope_scaling": {**YARN, "finetuned": True}}, 1e4, scaling.Yarn(4.0, 4096)),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, 1e4, scaling.Yarn(4.0, 4096)),
        (
            {"rope_scaling": {**YARN, "rope_type": "deepseek_yarn", "mscale": 0.707, "mscale_all_dim": 0.0}},
            1e4,
            scaling.Yarn(4.0, 4096, mscale=0.707, mscale_all_dim=0.0, mscale_rule="deepseek"),
        ),
        ({"rope_scaling": {"type": "default"}}, 1e4, None),
        ({"rope_scaling": {}}, 1e4, None),
        ({"rope_scaling": None, "rope_parameters": None}, 1e4, None),
        (
            {
                "max_position_embeddings": 16384,
                "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 4096},
            },
            1e4,
            scaling.Yarn(4.0, 4096),
        ),
    ],
)
def test_spellings(own: dict[str, Any], base: float, found: Any) -> None:
    rope = config.read({**LLAMA, **own}).rope()
    assert isinstance(rope, Rope)
    assert (rope.base, rope.scaling) == (base, found)


@pytest.mark.parametrize("name", ["longrope", "su", "yarn"])
def test_phi3_calls_longrope_three_names(name: str) -> None:
    """models/phi3/configuration_phi3.py: "su" and "yarn" of its first files are LongRoPE."""
    own = {"type": name, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    given = {"model_type": "phi3", "hidden_size": 3072, "num_attention_heads": 32, "rope_scaling": own}
    given |= {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096}
    expected = scaling.LongRope((1.0,) * 48, (2.0,) * 48, 4096, factor=32.0)
    assert config.read(given).rope().scaling == expected


def test_phimoe_has_its_own_factors() -> None:
    own = {"type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}
    own |= {"short_mscale": 1.243163121016122, "long_mscale": 1.243163121016122}  # microsoft/Phi-3.5-MoE-instruct
    given = {**LLAMA, "model_type": "phimoe", "max_position_embeddings": 131072, "rope_scaling": own}
    given["original_max_position_embeddings"] = 4096
    rope = config.read(given).rope()
    assert rope.at(100).attention_factor == rope.at(5000).attention_factor == 1.243163121016122


@pytest.mark.parametrize(
    ("model_type", "own", "rotary_dim"),
    [
        ("gpt_neox", {"rotary_pct": 0.5}, 64),
        ("gpt_neox", {}, 32),
        ("phi", {"partial_rotary_factor": 0.375}, 48),
        ("phi", {"rope_parameters": {"partial_rotary_factor": 0.75}}, 96),
        ("minimax_m2", {"rotary_dim": 64}, 64),
        ("minimax_m2", {"rotary_dim": 64, "rope_parameters": {"partial_rotary_factor": 0.5}}, 64),
        ("gptj", {"rotary_dim": 32}, 32),
        ("gptj", {}, 64),
    ],
)
def test_rotated_part(model_type: str, own: dict[str, Any], rotary_dim: int) -> None:
    rope = config.read({**LLAMA, "model_type": model_type, **own}).rope()
    assert (rope.head_dim, rope.rotary_dim) == (128, rotary_dim)


def test_bases_of_two_kinds_of_layers() -> None:
    """Flat and nested spellings of the same thing: models/gemma3/configuration_gemma3.py."""
    linear = {"rope_type": "linear", "factor": 8.0}
    flat = {**GEMMA, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": linear}
    nested = {
        "full_attention": {**linear, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    found = [config.read(source) for source in (flat, {**GEMMA, "rope_parameters": nested})]
    assert found[0].ropes == found[1].ropes
    assert found[0].rope("full_attention").scaling == scaling.Linear(8.0)
    assert found[0].rope("sliding_attention") == Rope(256, layout="half")
    with pytest.raises(ValueError, match="turn differently; layer_type must be one of 'full_attention', 'sliding"):
        found[0].rope()
    with pytest.raises(ValueError, match="layer_type must be one of 'full_attention', 'sliding_attention', got 'all'"):
        found[0].rope("all")


def test_modernbert_scales_both_kinds() -> None:
    given = {"model_type": "modernbert", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 4}
    given["rope_scaling"] = {"rope_type": "linear", "factor": 2.0}
    assert [rope.scaling for rope in config.read(given).ropes.values()] == [scaling.Linear(2.0)] * 2


def test_deepseek_v4_from_its_flat_keys() -> None:
    """models/deepseek_v4/configuration_deepseek_v4.py: YaRN for compressed layers only, without its factor."""
    given = {"model_type": "deepseek_v4", "head_dim": 512, "qk_rope_head_dim": 64, "num_hidden_layers": 4}
    given |= {"rope_theta": 10000, "compress_rope_theta": 160000, "compress_ratios": [0, 0, 4, 128]}
    given["rope_scaling"] = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536}
    found = config.read(given)
    main, compress = found.rope("main"), found.rope("compress")
    assert found.layers == ("main", "main", "compress", "compress")
    assert (main.rotary_offset, main.rotary_dim, main.layout) == (448, 64, "interleaved")
    assert (main.scaling, main.base, compress.base) == (None, 1e4, 1.6e5)
    assert (compress.scaling.factor, compress.attention_factor) == (16.0, 1.0)


def test_a_base_for_each_layer() -> None:
    """models/granite_swa/modeling_granite_swa.py: 0 is NoPE."""
    given = {**LLAMA, "model_type": "granite_swa", "num_hidden_layers": 4, "layer_rope_theta": [1e4, 5e5, 0, 1e4]}
    found = config.read(given)
    assert found.layers == ("rope_theta=10000", "rope_theta=500000", None, "rope_theta=10000")
    assert [rope.base for rope in found.ropes.values()] == [1e4, 5e5]
    one = config.read({**given, "layer_rope_theta": [0, 5e5, 5e5, 5e5]})
    assert one.layers == (None, "all", "all", "all")
    assert one.rope().base == 5e5


def test_molmo2_scales_some_layers() -> None:
    given = {**LLAMA, "model_type": "molmo2_text", "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    found = config.read({**given, "rope_scaling_layers": [1]})
    assert found.layers == ("unscaled", "scaled")
    assert [rope.scaling for rope in found.ropes.values()] == [scaling.Linear(4.0), None]


# ---- layers: literals from the modeling files that their comments name


@pytest.mark.parametrize(
    ("own", "layers"),
    [
        (SMOLLM3, "aaa-"),  # smollm3: use_rope = no_rope_layers[i], by default all but every fourth
        ({**SMOLLM3, "no_rope_layers": [0, 1, 1, 0]}, "-aa-"),
        ({**SMOLLM3, "no_rope_layer_interval": 2}, "a-a-"),
        ({**LLAMA, "model_type": "cohere2", "num_hidden_layers": 8}, "aaa-aaa-"),  # only where sliding_window
        ({**LLAMA, "model_type": "exaone4", "num_hidden_layers": 4, "sliding_window_pattern": "LLLG"}, "aaa-"),
        ({**LLAMA, "model_type": "exaone4", "num_hidden_layers": 4, "sliding_window": None}, "aaaa"),
        ({**LLAMA, "model_type": "afmoe", "num_hidden_layers": 4}, "aaa-"),  # is_local_attention
        ({**LLAMA, "model_type": "flint", "num_hidden_layers": 8}, "--aaa-a-"),  # full: 0, 1, every fourth, the last
        ({**LLAMA, "model_type": "qwen3_next", "num_hidden_layers": 8}, "---a---a"),  # the others are linear attention
        ({**LLAMA, "model_type": "lfm2", "full_attn_idxs": [1]}, "-a"),
        ({**LLAMA, "model_type": "bamba", "attn_layer_indices": [0]}, "a-"),
        ({**LLAMA, "model_type": "recurrent_gemma", "num_hidden_layers": 6, "head_dim": 256}, "--a--a"),
        ({**LLAMA, "model_type": "mllama_text_model", "cross_attention_layers": [1]}, "a-"),
        ({**LLAMA, "model_type": "minimax", "num_hidden_layers": 4}, "a-a-"),
        ({**LLAMA, "model_type": "beam", "num_hidden_layers": 7}, "sssss--"),
        ({**LLAMA, "model_type": "cohere2_moe", "num_hidden_layers": 6, "first_k_dense_replace": 1}, "aaaa-a"),
        ({**LLAMA, "model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}, "aa"),
    ],
)
def test_layers_that_turn(own: dict[str, Any], layers: str) -> None:
    assert "".join((kind or "-")[0] for kind in config.read(own).layers) == layers


# ---- families with a choice, and those that rotate nothing


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        ({"model_type": "falcon"}, "rope"),
        ({"model_type": "falcon", "alibi": True}, "alibi"),
        ({"model_type": "esm"}, "learned"),
        ({"model_type": "esm", "position_embedding_type": "rotary"}, "rope"),
        ({"model_type": "esm", "position_embedding_type": "relative_key"}, "relative"),
        ({"model_type": "granitemoehybrid"}, "none"),
        ({"model_type": "granitemoehybrid", "position_embedding_type": "nope"}, "none"),  # ibm-granite/granite-4.0-h
        ({"model_type": "granitemoehybrid", "position_embedding_type": "rope"}, "rope"),
        ({"model_type": "zamba2"}, "none"),
        ({"model_type": "wav2vec2-conformer"}, "relative"),
        ({"model_type": "wav2vec2-conformer", "position_embeddings_type": "rotary"}, "rope"),
        ({"model_type": "opt"}, "learned"),
        ({"model_type": "whisper"}, "sinusoidal"),
        ({"model_type": "deberta-v2"}, "relative"),
        ({"model_type": "mamba"}, "none"),
    ],
)
def test_kinds(own: dict[str, Any], kind: str) -> None:
    found = config.read({**LLAMA, **own})
    assert found.kind == kind
    assert bool(found.ropes) == (kind == "rope")
    assert found.notes or kind == "rope"


def test_rope_interleave_chooses_the_layout() -> None:
    """models/deepseek_v3/modeling_deepseek_v3.py: false once the weights were reordered."""
    given = {**LLAMA, "model_type": "deepseek_v3", "qk_rope_head_dim": 64}
    layouts = [config.read({**given, **own}).rope().layout for own in ({}, {"rope_interleave": False})]
    assert layouts == ["interleaved_to_half", "half"]


def test_clockwise() -> None:
    """models/nanochat/modeling_nanochat.py: rotate_half is (x2, -x1)."""
    found = config.read({**LLAMA, "model_type": "nanochat"})
    assert np.array_equal(found.rope().inv_freq, -Rope(128, layout="half").inv_freq)
    assert "clockwise" in found.notes[0]
    scaled = config.read({**LLAMA, "model_type": "nanochat", "rope_scaling": {**YARN, "mscale": 1.0}}).rope()
    plain = Rope(128, layout="half", scaling=scaling.Yarn(4.0, 4096))
    assert np.array_equal(scaled.inv_freq, -plain.inv_freq)
    assert scaled.attention_factor == plain.attention_factor


def test_growing_scales_of_queries() -> None:
    mistral = {**YARN, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16384}
    found = config.read({**LLAMA, "model_type": "ministral3", "rope_parameters": mistral})
    assert (found.query_scale.beta, found.query_scale.original_max_position_embeddings) == (0.1, 16384)
    llama4 = {**LLAMA, "model_type": "llama4_text", "attn_scale": 0.2}
    assert config.read(llama4).query_scale.attn_scale == 0.2
    assert config.read({**llama4, "attn_temperature_tuning": False}).query_scale is None


# ---- parts


def test_parts_of_a_composite() -> None:
    vision = {"model_type": "qwen2_5_vl", "hidden_size": 1280, "num_heads": 16, "depth": 32}
    text = {**MROPE, "model_type": "qwen2_5_vl_text"}
    found = config.read({"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision})
    assert (found.part, found.parts, found.family) == ("text", ("text", "vision"), "qwen2_5_vl_text")
    tower = config.read({"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision}, part="vision")
    assert (tower.family, tower.rope().head_dim, len(tower.layers)) == ("qwen2_5_vl_vision", 80, 32)
    with pytest.raises(ValueError, match="part 'audio' is not there: 'qwen2_5_vl' has the parts 'text', 'vision'"):
        config.read({"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision}, part="audio")


def test_deep_parts() -> None:
    thinker = {"text_config": {**LLAMA, "model_type": "qwen2_5_omni_text"}, "model_type": "qwen2_5_omni_thinker"}
    talker = {**LLAMA, "model_type": "qwen2_5_omni_talker"}
    found = config.read({"model_type": "qwen2_5_omni", "thinker_config": thinker, "talker_config": talker})
    assert (found.part, found.parts) == ("thinker.text", ("thinker.text", "talker"))


def test_a_part_that_does_not_say_what_it_is() -> None:
    """models/llava/configuration_llava.py: text_config is a llama unless it says otherwise."""
    text = {key: value for key, value in LLAMA.items() if key != "model_type"}
    assert config.read({"model_type": "llava", "text_config": text}).family == "llama"
    assert config.read({"model_type": "llava", "text_config": {**text, "model_type": "qwen2"}}).family == "qwen2"


def test_encoder_and_decoder() -> None:
    module = {"model_type": "t5_gemma_module", "hidden_size": 2304, "num_attention_heads": 8}
    given = {"model_type": "t5gemma", "encoder": {**module, "rope_theta": 5e4}, "decoder": module}
    assert config.read(given).part == "decoder"
    assert config.read(given, part="encoder").rope().base == 5e4


# ---- what is no rotation, or not as transformers has it


def test_what_is_no_rotation_is_named() -> None:
    given = {"model_type": "vjepa2", "hidden_size": 1024, "num_attention_heads": 16}
    found = config.read(given)
    assert found.kind == "unequal"
    assert isinstance(found.rope(), UnequalRope)
    assert "turned by different frequencies" in found.notes[0]
    hunyuan = {**LLAMA, "model_type": "hunyuan_vl_text"}
    hunyuan["rope_scaling"] = {"type": "xdrope", "alpha": 1000.0, "xdrope_section": [16, 16, 16, 16]}
    xdrope = config.read(hunyuan)
    assert xdrope.kind == "unequal"
    assert xdrope.rope().first.scaling == scaling.NTK(1000.0)


def test_learned_angles_are_refused() -> None:
    with pytest.raises(ValueError, match="no Rope can do what lightglue does: its angles are a learned projection"):
        config.read({"model_type": "lightglue"})


def test_an_odd_part_is_refused() -> None:
    """int(42 * 0.5) = 21 elements, of transformers' own default config of GLM-4-MoE; no checkpoint has it."""
    given = {"model_type": "glm4_moe", "hidden_size": 4096, "num_attention_heads": 96}
    with pytest.raises(ValueError, match="partial_rotary_factor must turn an even number of elements, got 21 of 42"):
        config.read(given)


def test_minimax_m3_ignores_its_rotary_dim() -> None:
    """transformers 5.23 turns all 128 elements of a config that says rotary_dim=64, which its M2 reads."""
    given = {**LLAMA, "model_type": "minimax_m3_vl_text", "head_dim": 128, "rotary_dim": 64}
    assert config.read(given).rope().rotary_dim == 64


def test_dbrx_reads_its_own_base() -> None:
    """transformers 5.23 turns DBRX by base 10000: it does not read attn_config.rope_theta, which is 500000."""
    given = {"model_type": "dbrx", "d_model": 6144, "n_heads": 48, "attn_config": {"rope_theta": 5e5}}
    assert config.read(given).rope().base == 5e5


def test_a_family_that_is_not_known() -> None:
    given = {"model_type": "new", "head_dim": 64, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}}
    with pytest.raises(ValueError, match=r"family 'new' is not known. Pass layout='half', 'interleaved' or"):
        config.read(given)
    rope = config.read(given, layout="interleaved").rope()
    assert rope == Rope(64, layout="interleaved", scaling=scaling.Linear(2.0))
    assert config.read(given, family="qwen2").rope().layout == "half"
    del given["rope_theta"]
    with pytest.raises(ValueError, match="rope_theta is missing, and new has no usual one"):
        config.read(given, layout="half")


# ---- as asked for


def test_no_warning_where_nothing_is_wrong() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.read({**LLAMA, "rope_scaling": YARN}, strict=False)


def test_precision_goes_to_the_ropes() -> None:
    assert config.read(LLAMA, precision="float32").rope() == Rope(128, layout="half", precision="float32")


def test_is_fast() -> None:
    """Under 200 us; the best of several runs, because another process may take the core."""
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    given = {**LLAMA, "num_hidden_layers": 32, "rope_theta": 5e5, "rope_scaling": llama3}
    given["rope_scaling"]["original_max_position_embeddings"] = 8192
    best = min(timeit.repeat(lambda: config.read(given).rope(), number=20, repeat=10)) / 20
    assert best < 200e-6
