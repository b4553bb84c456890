"""GGUF metadata: llama.cpp's keys, and its pairs, which are not those of transformers for the same model."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    pytest.importorskip("gguf", reason='needs gguf: pip install ".[test]"')

from gguf.constants import MODEL_ARCH_NAMES, Keys

from posenc import Rope, axes, config, scaling
from posenc.config import _gguf


def metadata(arch: str, **rope: Any) -> dict[str, Any]:
    """Return what a file of that architecture holds, `rope` under its keys with _ for the dots."""
    own = {
        "general.architecture": arch,
        f"{arch}.context_length": 4096,
        f"{arch}.embedding_length": 4096,
        f"{arch}.block_count": 2,
        f"{arch}.attention.head_count": 32,
    }
    return own | {f"{arch}.rope.{key.replace('__', '.')}": value for key, value in rope.items()}


def test_llama_pairs_neighbours_there() -> None:
    """llama.cpp reorders the weights of Llama: LLAMA_ROPE_TYPE_NORM, where transformers' are halves."""
    found = config.read(metadata("llama", freq_base=500000.0, dimension_count=128))
    assert found.rope() == Rope(128, layout="interleaved", base=5e5)
    assert (found.family, found.kind, found.layers) == ("llama", "rope", ("all", "all"))
    assert "rope_freqs.weight" in found.notes[0]
    assert config.read(metadata("qwen2", freq_base=1e6)).rope() == Rope(128, layout="half", base=1e6)
    assert config.read(metadata("phi2", dimension_count=32)).rope() == Rope(128, layout="half", rotary_dim=32)


def test_head_dim_is_the_key_length() -> None:
    given = metadata("qwen3") | {"qwen3.attention.key_length": 64, "qwen3.attention.head_count": [32, 32]}
    assert config.read(given).rope().head_dim == 64


def test_divisors_are_a_tensor() -> None:
    """Llama 3.1's scaling is no metadata: rope_freqs.weight holds what divides the frequencies."""
    divisors = np.linspace(1, 8, 64, dtype=np.float32)
    rope = config.read(metadata("llama", freq_base=5e5) | {"rope_freqs.weight": divisors}).rope()
    assert rope.scaling == scaling.Divisors(tuple(divisors.tolist()))


def test_longrope_needs_its_tensors() -> None:
    given = metadata("phi3", scaling__type="longrope", scaling__original_context_length=2048, scaling__attn_factor=1.19)
    with pytest.raises(ValueError, match=r"keeps its factors in tensors: put rope_factors_long\.weight and"):
        config.read(given)
    tensors = {"rope_factors_long.weight": np.full(64, 4.0), "rope_factors_short.weight": np.ones(64)}
    rope = config.read(given | tensors).rope()
    assert rope.scaling == scaling.LongRope((1.0,) * 64, (4.0,) * 64, 2048, attention_factor=1.19)


def test_linear_and_none() -> None:
    """A factor alone is linear; 0 and 1 mean none (`llama_model::load_hparams`)."""
    for own, expected in (
        ({"scaling__factor": 4.0}, scaling.Linear(4.0)),
        ({"scaling__type": "linear", "scaling__factor": 4.0}, scaling.Linear(4.0)),
        ({"scale_linear": 4.0}, scaling.Linear(4.0)),
        ({"scaling__factor": 0.0}, None),
        ({"scaling__type": "none", "scaling__factor": 4.0}, None),
    ):
        assert config.read(metadata("llama", **own)).rope().scaling == expected


def test_yarn_has_ggmls_attention_factor() -> None:
    """attn_factor * (1 + 0.1 ln s) (ggml-cpu/ops.cpp, `rope_yarn`)."""
    own = {"scaling__type": "yarn", "scaling__factor": 4.0, "scaling__original_context_length": 32768}
    rope = config.read(metadata("qwen2", **own)).rope()
    assert rope.scaling == scaling.Yarn(4.0, 32768, mscale_rule="ggml")
    assert rope.attention_factor == pytest.approx(1 + 0.1 * math.log(4), rel=1e-15)
    damped = config.read(metadata("qwen2", **own, scaling__attn_factor=0.5)).rope()
    assert damped.attention_factor == pytest.approx(0.5 * (1 + 0.1 * math.log(4)), rel=1e-15)


def test_deepseek_scales_the_softmax() -> None:
    """Tables without a factor, and the scale of scores times (1 + yarn_log_multiplier ln s) ** 2."""
    own = {"scaling__type": "yarn", "scaling__factor": 40.0, "scaling__original_context_length": 4096}
    given = metadata("deepseek2", dimension_count=64, **own, scaling__yarn_log_multiplier=0.1)
    found = config.read(given | {"deepseek2.attention.key_length": 192})
    assert (found.rope().head_dim, found.rope().layout, found.rope().attention_factor) == (64, "interleaved", 1.0)
    assert found.softmax_scale == pytest.approx((1 + 0.1 * math.log(40)) ** 2, rel=1e-14)


def test_sliding_layers_have_a_base_of_their_own() -> None:
    found = config.read(metadata("gemma3", freq_base=1e6, scaling__type="linear", scaling__factor=8.0))
    assert found.layers == ()  # which layers slide is no metadata
    assert found.rope("full_attention") == Rope(128, layout="half", base=1e6, scaling=scaling.Linear(8.0))
    assert found.rope("sliding_attention") == Rope(128, layout="half")
    other = config.read(metadata("mimo2", freq_base=5e6, freq_base_swa=1e4))
    assert [rope.base for rope in other.ropes.values()] == [5e6, 1e4]


def test_several_axes() -> None:
    found = config.read(metadata("qwen2vl", freq_base=1e6, dimension_sections=[16, 24, 24, 0]))
    assert found.rope() == axes.mrope(128, [16, 24, 24, 0], layout="half", base=1e6)
    third = config.read(metadata("qwen3vl", freq_base=5e6, dimension_sections=[24, 20, 20, 0]))
    assert third.rope() == axes.mrope(128, [24, 20, 20, 0], layout="half", base=5e6, order="interleaved_ggml")


def test_what_rotates_nothing_there() -> None:
    assert config.read(metadata("bloom")).kind == "none"
    with pytest.raises(ValueError, match="bloom rotates nothing"):
        config.read(metadata("bloom")).rope()


def test_unknown() -> None:
    with pytest.raises(ValueError, match=r"general.architecture 'new' is not known. Pass layout='half' \(NEOX\) or"):
        config.read(metadata("new"))
    assert config.read(metadata("new"), layout="half").rope() == Rope(128, layout="half")
    with pytest.raises(ValueError, match=r"llama.rope.magic=3 is no key that is known"):
        config.read(metadata("llama", magic=3))
    with pytest.raises(ValueError, match="rope_type must be one of"):
        config.read(metadata("llama", scaling__type="foo", scaling__factor=2.0))
    with pytest.raises(TypeError, match="hidden_size must be an integer"):
        config.read(metadata("llama") | {"llama.embedding_length": "4096"})


def test_keys_and_names_are_those_of_gguf() -> None:
    """gguf-py's constants: every rope key is read, every architecture known that the installed package knows."""
    keys = {value.split(".rope.")[1] for name, value in vars(Keys.Rope).items() if name.isupper()}
    known = {*_gguf._KNOWN, *(f"scaling.{key}" for key in _gguf._SCALING), "dimension_count_swa"}
    assert keys <= known
    unknown = set(MODEL_ARCH_NAMES.values()) - set(_gguf.LAYOUTS) - _gguf.NONE
    assert unknown == {"clip", "hunyuan_vl"}  # a tower of pictures; halves with or without axes by its file
