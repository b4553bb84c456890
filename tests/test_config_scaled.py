"""Scalings in configs, against the module that transformers builds of the same config: flat, nested, partial."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import transformers_zoo as zoo
from posenc import config

TRAINED = 2048  # max_position_embeddings; the tables go to 4096
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512},
    "yarn with betas": {
        **{"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 1024},
        **{"beta_fast": 24, "beta_slow": 2, "attention_factor": 1.25},
    },
    "yarn with mscale": {
        **{"rope_type": "yarn", "factor": 40, "original_max_position_embeddings": 1024},
        **{"mscale": 0.707, "mscale_all_dim": 1.0},
    },
    "llama3": {
        **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
    "longrope": {"rope_type": "longrope", "original_max_position_embeddings": 1024},
}
#: Rotary class -> what its config needs besides; the lists of LongRoPE get the length of the rotated half.
FLAT = {
    "LlamaRotaryEmbedding": {},
    "GlmRotaryEmbedding": {},
    "GPTNeoXRotaryEmbedding": {"hidden_size": 2048, "num_attention_heads": 16, "rotary_pct": 0.25},
    "CohereRotaryEmbedding": {},
    "DeepseekV2RotaryEmbedding": {},
    "DeepseekV3RotaryEmbedding": {},
    "Qwen2VLRotaryEmbedding": {},
    "Qwen3VLTextRotaryEmbedding": {},
    "GptOssRotaryEmbedding": {},
    "SmolLM3RotaryEmbedding": {},
}
NESTED = ["Gemma3RotaryEmbedding", "Olmo3RotaryEmbedding", "ModernBertRotaryEmbedding", "LagunaRotaryEmbedding"]


def longrope(own: dict[str, Any], pairs: int) -> dict[str, Any]:
    if own["rope_type"] != "longrope":
        return own
    rng = np.random.default_rng(0)
    factors = {name: np.sort(rng.uniform(1, most, pairs)).tolist() for name, most in (("short", 2), ("long", 32))}
    return {**own, "short_factor": factors["short"], "long_factor": factors["long"]}


def case_of(rotary: str) -> zoo.Case:
    return next(case for case in zoo.cases() if case.rotary == rotary)


def assert_same(case: zoo.Case, own: Any, found: config.ModelPositions) -> None:
    """The tables of every kind of layers, of sequences beyond the length of training."""
    module = getattr(case.module, case.rotary)(own).eval()
    for kind, rope in found.ropes.items():
        tables = zoo.tables(module, case, own, len(rope.inv_freq), rope.axes, None if kind == "all" else kind)
        length = int(tables.positions.max()) + 1
        rope = rope.at(length)
        used = dict(module.named_buffers()).get(f"{kind}_inv_freq", getattr(module, "inv_freq", None))
        gap = np.abs(used.numpy().astype(np.float64) - rope.inv_freq)
        assert (gap <= 4 * np.spacing(np.abs(rope.inv_freq).astype(np.float32))).all()  # several rounded steps
        angle = np.spacing(np.float32(length) * rope.inv_freq.astype(np.float32))
        bound = 2e-6 + rope.attention_factor * np.where(gap > 0, length * gap + angle, 0)
        for a, b in zip(rope.table(tables.positions), (tables.cos, tables.sin), strict=True):
            assert (np.abs(a - b) <= bound).all()


@pytest.mark.parametrize("rotary", FLAT)
@pytest.mark.parametrize("name", SCALINGS)
def test_flat(rotary: str, name: str) -> None:
    case = case_of(rotary)
    needed: dict[str, Any] = {"max_position_embeddings": TRAINED, **FLAT[rotary]}
    pairs = len(config.read(case.config_class(**needed)).rope().inv_freq)
    own = case.config_class(**needed, rope_scaling=longrope(dict(SCALINGS[name]), pairs))
    before = copy.deepcopy(own)
    assert_same(case, own, config.read(before, precision="float32"))


def test_phi3_switches_lists() -> None:
    """LongRoPE is the only scaling that transformers' Phi-3 takes; the length of training stands beside it."""
    case = case_of("Phi3RotaryEmbedding")
    sizes = {"max_position_embeddings": 8192, "original_max_position_embeddings": 1024}
    own = case.config_class(**sizes, rope_scaling=longrope({"rope_type": "longrope"}, 48))
    assert_same(case, own, config.read(copy.deepcopy(own), precision="float32"))


@pytest.mark.parametrize("rotary", NESTED)
@pytest.mark.parametrize("name", [name for name in SCALINGS if name not in ("dynamic", "longrope")])
def test_nested(rotary: str, name: str) -> None:
    """Another scaling for each kind of layers."""
    case = case_of(rotary)
    parameters = {
        "full_attention": {**SCALINGS[name], "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    types = ["full_attention", "sliding_attention"]
    sizes = {"num_hidden_layers": 2, "layer_types": types, "max_position_embeddings": TRAINED}
    own = case.config_class(**sizes, rope_parameters=parameters)
    found = config.read(copy.deepcopy(own), precision="float32")
    assert set(found.ropes) == set(types)
    assert found.rope("full_attention").scaling is not None
    assert_same(case, own, found)


def test_a_nested_truncate_is_read() -> None:
    """transformers 5.23 reads truncate beside the nested dictionaries, where it never is: it rounds all the same."""
    yarn = {**SCALINGS["yarn"], "truncate": False, "rope_theta": 5e5}
    given = {"model_type": "olmo3", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 1}
    given |= {"layer_types": ["full_attention"], "max_position_embeddings": TRAINED}
    nested = config.read({**given, "rope_parameters": {"full_attention": yarn}})
    assert nested.rope().scaling.truncate is False
