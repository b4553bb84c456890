"""Wrong input of configs: an error that names the key, what came and the rule; doubtful input may be warned of."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from posenc import config

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 4096,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}

WRONG = [
    ({"rope_scaling": "linear"}, TypeError, "rope_scaling must be a dictionary or null, got 'linear'"),
    ({"rope_scaling": {"rope_type": 5}}, TypeError, "rope_scaling: rope_type must be a string, got 5"),
    (
        {"rope_scaling": {"rope_type": "foo"}},
        ValueError,
        "rope_type must be one of deepseek_yarn, .*got 'foo'",
    ),
    ({"rope_scaling": {"rope_type": "xdrope"}}, ValueError, "got 'xdrope'; xdrope of HunYuan-VL"),
    ({"rope_scaling": {"rope_type": "fope"}}, ValueError, "got 'fope'; FoPE mixes frequencies"),
    ({"rope_scaling": {"type": "linear"}}, ValueError, "rope_type 'linear' needs factor"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, TypeError, "factor must be a number, got '2'"),
    ({"rope_scaling": {"type": "linear", "factor": 0.5}}, ValueError, "factor must be at least 1, got 0.5"),
    ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, ValueError, "factor must be .*got nan"),
    ({"rope_scaling": {"type": "dynamic"}}, ValueError, "rope_type 'dynamic' needs factor, or alpha"),
    ({"rope_scaling": {"type": "yarn"}}, ValueError, "rope_scaling: factor is missing, and it follows only where"),
    ({"rope_scaling": {**YARN, "truncate": "no"}}, TypeError, "truncate must be True or False, got 'no'"),
    ({"rope_scaling": {**YARN, "beta_fast": 0.5}}, ValueError, "beta_fast must be at least beta_slow"),
    ({"rope_scaling": {**YARN, "attention_factor": -1.0}}, ValueError, "attention_factor must be positive"),
    (
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ValueError,
        "needs low_freq_factor and high_freq",
    ),
    (
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 63, "long_factor": [1.0] * 64}},
        ValueError,
        "short_factor must have 64 numbers for 128 rotated elements, got 63",
    ),
    (
        {"rope_scaling": {"type": "longrope", "short_factor": 1.0, "long_factor": [1.0] * 64}},
        TypeError,
        "short_factor must be a list of 64 numbers, got 1.0",
    ),
    (
        {"rope_scaling": {"type": "longrope", "short_factor": ["a"] * 64, "long_factor": [1.0] * 64, "factor": 2.0}},
        TypeError,
        "short_factor.* must be a number, got 'a'",
    ),
    ({"rope_theta": "x"}, TypeError, "rope_theta must be a number, got 'x'"),
    ({"rope_theta": float("nan")}, ValueError, "rope_theta must be positive and finite, got nan"),
    ({"rope_theta": -1}, ValueError, "rope_theta must be positive and finite, got -1"),
    ({"rope_theta": [1e4, 1e4]}, TypeError, "rope_theta must be a number"),
    ({"model_type": "phi", "partial_rotary_factor": 1.5}, ValueError, "must rotate 1 to 128 elements, got 1.5"),
    ({"model_type": "phi", "partial_rotary_factor": 0}, ValueError, "partial_rotary_factor must be positive"),
    ({"hidden_size": None}, ValueError, "hidden_size is missing, and so is head_dim"),
    ({"hidden_size": "4096"}, TypeError, "hidden_size must be an integer, got '4096'"),
    ({"hidden_size": 16}, ValueError, "hidden_size / num_attention_heads must be at least 1, got 16 / 32"),
    ({"num_attention_heads": 0}, ValueError, "num_attention_heads must be at least 1, got 0"),
    ({"head_dim": 0}, ValueError, "head_dim must be at least 1, got 0"),
    ({"num_hidden_layers": 1.5}, TypeError, "num_hidden_layers must be an integer, got 1.5"),
    ({"max_position_embeddings": "a"}, TypeError, "max_position_embeddings must be a number, got 'a'"),
    ({"model_type": ["llama"]}, TypeError, "model_type must be a string"),
    ({"model_type": None}, ValueError, "model_type is missing; pass family="),
    ({"model_type": "falcon", "alibi": "yes"}, ValueError, "alibi must be one of False, True, got 'yes'"),
    ({"model_type": "smollm3", "no_rope_layers": "abc"}, TypeError, "no_rope_layers must be a list of 0"),
    ({"model_type": "smollm3", "no_rope_layers": [1]}, ValueError, "num_hidden_layers is 2, .*describes 1 layers"),
    ({"model_type": "smollm3", "no_rope_layer_interval": 0}, ValueError, "no_rope_layer_interval must be at least 1"),
    (
        {"model_type": "modernbert", "global_attn_every_n_layers": 0},
        ValueError,
        "global_attn_every_n_layers must",
    ),
    (
        {"model_type": "gemma3_text", "layer_types": ["x", "y"]},
        ValueError,
        "layer_types must be .*got 'x'",
    ),
    (
        {"model_type": "granite_swa", "layer_rope_theta": [1e4]},
        ValueError,
        "layer_rope_theta must be a list of 2",
    ),
    ({"model_type": "granite_swa", "layer_rope_theta": [1e4, -1]}, ValueError, r"layer_rope_theta\[1\] must"),
    (
        {"model_type": "qwen2_vl_text", "rope_scaling": {"type": "mrope", "mrope_section": [16, 24]}},
        ValueError,
        r"rope_scaling: sections must have the sum rotary_dim/2 = 64, got \[16, 24\]",
    ),
    (
        {"model_type": "qwen2_vl_text", "rope_scaling": {"type": "mrope", "mrope_section": "abc"}},
        TypeError,
        "mrope_section must be a list of integers, got 'abc'",
    ),
    ({"model_type": "hunyuan_vl_text"}, ValueError, "config: mrope_section is missing"),
    (
        {"model_type": "gemma3_text", "rope_parameters": {"full_attention": {}, "sliding_attention": 5}},
        TypeError,
        r"rope_parameters\['sliding_attention'\] must be a dictionary or null, got 5",
    ),
    (
        {"model_type": "pixtral", "rope_scaling": {"type": "linear", "factor": 2.0}},
        ValueError,
        "frequencies of the axes 'pixtral' cannot be scaled",
    ),
]


@pytest.mark.parametrize(("own", "error", "message"), WRONG)
def test_wrong_input_is_an_error_strict_or_not(own: dict[str, Any], error: type[Exception], message: str) -> None:
    for strict in (True, False):
        with pytest.raises(error, match=message) as caught:
            config.read({**LLAMA, **own}, strict=strict)
        assert caught.type is error


DOUBTFUL = [
    ({"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}}, "contradict each other", 1e4),
    ({"rope_scaling": {"type": "linear", "factor": 2.0, "beta": 1}}, "rope_type 'linear' has no key beta=1", 1e4),
    ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}}, "rope_theta is 10000.0 beside rope_parameters", 5e5),
    (
        {"rope_parameters": {"rope_theta": 5e5}, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_parameters and rope_scaling contradict each other",
        1e4,
    ),
    ({"rope_theta": 5e5, "rotary_emb_base": 1e4}, "rope_theta=500000.0, rotary_emb_base=10000.0 contradict", 5e5),
    ({"rope_local_base_freq": 1e4}, "rope_local_base_freq=10000.0 belongs to families whose layers", 1e4),
    ({"rope_magic": 3}, "rope_magic=3 is no key that is known to say something about positions", 1e4),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5, and this family turns whole heads", 1e4),
    ({"rotary_dim": 64}, r"rotary_dim=64, and this family turns whole heads \(128\)", 1e4),
    ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved=True contradicts this family's layout 'half'", 1e4),
    ({"rope_parameters": {"full": {"rope_theta": 5e5}}}, "rope_parameters has 'full', and this family's", 1e4),
]


@pytest.mark.parametrize(("own", "message", "base"), DOUBTFUL)
def test_doubtful_input_is_an_error_unless_told_otherwise(own: dict[str, Any], message: str, base: float) -> None:
    with pytest.raises(ValueError, match=f"{message}.*strict=False"):
        config.read({**LLAMA, **own})
    with pytest.warns(config.ConfigWarning, match=message):
        found = config.read({**LLAMA, **own}, strict=False)
    assert found.notes
    assert (found.rope().base, found.rope().rotary_dim) == (base, 128)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"model_type": "gemma3_text", "layer_types": "full"}, "layer_types must be a list of names, got 'full'"),
        ({"model_type": "lfm2", "full_attn_idxs": ["a"]}, r"full_attn_idxs must be a list of integers, got \['a'\]"),
        ({"per_layer_config": {"0": 5}}, "per_layer_config must be a dictionary of a dictionary for each layer"),
        ({5: 5}, "source must have strings for keys, got 5"),
        ({"model_type": "llava", "text_config": {5: 5}}, "source must have strings for keys, got 5"),
    ],
)
def test_what_is_no_list_or_dictionary(own: dict[Any, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        config.read({**LLAMA, **own})


WEIRD = [
    *(None, 0, -1, 1.5, float("nan"), float("inf"), 10**30, "", "x", "linear", True, False, [], [1], ["a"], [None]),
    *({}, {"a": 1}, {"full_attention": {"rope_type": "linear"}}, {"rope_type": ["a"]}, {1: 2}),
]
INSIDE = [
    *("rope_type", "type", "factor", "rope_theta", "alpha", "mrope_section", "short_factor", "long_factor", "truncate"),
    *("mscale", "attention_factor", "original_max_position_embeddings", "partial_rotary_factor", "rotary_dim"),
]
BESIDE = [
    *("model_type", "hidden_size", "num_attention_heads", "num_hidden_layers", "head_dim", "max_position_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "rotary_dim", "layer_types", "alibi"),
    *("no_rope_layers", "sliding_window_pattern", "layer_rope_theta", "per_layer_config", "text_config", "attn_config"),
]
#: What Python itself says where nothing was checked.
PYTHON = re.compile(
    r"object is not|unsupported operand|not supported between|unhashable|invalid literal|unexpected key"
)


def test_anything_wrong_anywhere_is_a_clear_error(rng: np.random.Generator) -> None:
    """Published configs with wrong values put in: read, or a TypeError or ValueError in this project's own words."""
    files = sorted((Path(__file__).parent / "data" / "configs").glob("*.json"))
    whole = [json.loads(path.read_text()) for path in files]
    whole += [{**LLAMA, "model_type": name} for name in config.FAMILIES]
    for _ in range(5000):
        given = dict(whole[rng.integers(len(whole))])
        if rng.random() < 0.4:
            rope = given.get("rope_scaling") or {"rope_type": "yarn", "factor": 2.0}
            given["rope_scaling"] = {**rope, str(rng.choice(INSIDE)): WEIRD[rng.integers(len(WEIRD))]}
        else:
            given[str(rng.choice(BESIDE))] = WEIRD[rng.integers(len(WEIRD))]
        message = refusal(given, strict=bool(rng.random() < 0.5))
        assert not PYTHON.search(message), (given, message)


GGUF = {"general.architecture": "llama", "llama.rope.dimension_count": 64}


class Answers:
    def to_dict(self) -> dict[str, Any]:
        return dict(LLAMA)


def refusal(given: dict[str, Any], *, strict: bool) -> str:
    """Return what a reading is refused with, or "" where it is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", config.ConfigWarning)
        try:
            config.read(given, strict=strict)
        except (TypeError, ValueError) as error:
            return str(error)
    return ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": 5}, TypeError, "source must be a path of a config.json, a dictionary, or a config object.*got int"),
        ({"source": "/nonexistent/config.json"}, FileNotFoundError, "'/nonexistent/config.json' is no file"),
        ({"source": LLAMA, "precision": "x"}, ValueError, "precision must be one of 'exact', 'float32', got 'x'"),
        ({"source": LLAMA, "layout": "x"}, ValueError, "layout must be one of"),
        ({"source": LLAMA, "layout": "half"}, ValueError, "'llama' is, leave it out"),
        ({"source": LLAMA, "strict": 1}, TypeError, "strict must be True or False, got 1"),
        ({"source": LLAMA, "family": 5}, TypeError, "family must be a string, got 5"),
        ({"source": LLAMA, "part": ["text"]}, TypeError, r"part must be a string, got \['text'\]"),
        ({"source": GGUF, "part": "vision"}, ValueError, "part and family are for a config"),
        ({"source": GGUF, "family": "gemma3"}, ValueError, "part and family are for a config"),
        ({"source": SimpleNamespace(config=Answers())}, TypeError, "got SimpleNamespace; pass its .config"),
        ({"source": LLAMA, "family": "x"}, ValueError, "family 'x' is not known"),
        ({"source": LLAMA, "family": "qwen2", "part": "text"}, ValueError, "part and family exclude each other"),
        ({"source": LLAMA, "part": "vision"}, ValueError, "part 'vision' is not there: 'llama' has one part only"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        config.read(**arguments)


def test_wrong_layer_types() -> None:
    found = config.read(LLAMA)
    for wrong in ("sliding_attention", ["all"], 3):
        with pytest.raises(ValueError, match="layer_type must be one of 'all', got "):
            found.rope(wrong)
