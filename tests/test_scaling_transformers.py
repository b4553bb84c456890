"""Every scaling against transformers, bit for bit where its arithmetic is that of the processor."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import posenc
from posenc import scaling

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

RNG = np.random.default_rng(41)
BASES = (1e4, 1.5e5, 5e5, 1e6)
WIDTHS = (32, 64, 96, 128)
MAX_POSITIONS = 131072

#: the scaling, and the config that says the same to transformers
SAME = [
    (scaling.Linear(4.0), {"rope_type": "linear", "factor": 4.0}),
    (scaling.Linear(3), {"rope_type": "linear", "factor": 3}),
    (scaling.Proportional(0.25), {"rope_type": "proportional", "partial_rotary_factor": 0.25}),
    (scaling.Proportional(0.3, 8.0), {"rope_type": "proportional", "partial_rotary_factor": 0.3, "factor": 8.0}),
    (
        scaling.Llama3(8.0, 1.0, 4.0, 8192),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (
        scaling.Llama3(32.0, 1.5, 3.25, 4096),
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 1.5,
            "high_freq_factor": 3.25,
            "original_max_position_embeddings": 4096,
        },
    ),
    (  # Llama 4 Scout: a step
        scaling.Llama3(16.0, 1.0, 1.0, 8192),
        {
            "rope_type": "llama3",
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    (scaling.Yarn(4.0, 32768), {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
    (
        scaling.Yarn(32.0, 4096, truncate=False),
        {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False},
    ),
    (
        scaling.Yarn(40.0, 4096, mscale=0.707, mscale_all_dim=1.0),
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "mscale": 0.707,
            "mscale_all_dim": 1.0,
        },
    ),
    (
        scaling.Yarn(32.0, 4096, beta_fast=24, beta_slow=2, mscale=0.707, mscale_all_dim=0.0),
        {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "mscale": 0.707,
            "mscale_all_dim": 0.0,
            "beta_fast": 24,
            "beta_slow": 2,
        },
    ),
    (
        scaling.Yarn(8.0, 8192, attention_factor=1.25),
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "attention_factor": 1.25},
    ),
]


def config_of(width: int, base: float, parameters: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=4 * width,
        num_attention_heads=4,
        head_dim=width,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_theta": base, **parameters},
    )


def theirs(width: int, base: float, parameters: dict[str, Any], seq_len: Any = None) -> tuple[np.ndarray, float]:
    """Return what transformers' own function of the rope_type makes of a config."""
    config = config_of(width, base, parameters)
    inv_freq, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len)
    assert inv_freq.dtype == torch.float32
    return inv_freq.numpy(), factor


def torch_is_right(width: int, base: float) -> np.ndarray:
    """Where torch's float32 power is the nearest one, which ours always is (tests/test_float32_recipe.py)."""
    powers = (torch.tensor(base) ** (torch.arange(0, width, 2, dtype=torch.float) / width)).numpy()
    ours = posenc.Rope(width, layout="half", base=base, precision="float32").inv_freq
    right = (1 / powers == ours.astype(np.float32)) & (np.float32(1) / (1 / powers) == powers)
    return right | (powers == 1)


def assert_same_frequencies(found: np.ndarray, wanted: np.ndarray, right: np.ndarray) -> None:
    """The same bits where torch's power is right, near elsewhere; and right nearly everywhere."""
    found = found.astype(np.float32)
    apart = np.abs(found.view(np.int32) - wanted.view(np.int32))
    assert apart.max() <= 8  # the ramp's difference of two numbers magnifies an ulp of the power
    assert np.array_equal(found[right], wanted[right])


@pytest.mark.parametrize(("ours", "parameters"), SAME, ids=lambda x: repr(x) if isinstance(x, dict) else None)
def test_transformers_agrees_bit_for_bit(ours: Any, parameters: dict[str, Any]) -> None:
    for base in BASES:
        for width in WIDTHS:
            inv_freq, factor = ours.frequencies(width, base, None, "float32")
            wanted, wanted_factor = theirs(width, base, parameters)
            assert_same_frequencies(inv_freq, wanted, torch_is_right(width, base))
            assert factor == pytest.approx(wanted_factor, rel=1e-15)


def test_torch_is_right_nearly_everywhere() -> None:
    """So that the comparison above compares."""
    assert np.mean([torch_is_right(width, base).mean() for width in WIDTHS for base in BASES]) > 0.5


@pytest.mark.parametrize("seq_len", [1, 2048, 2049, 3000, 16384, 100_000])
def test_dynamic_ntk_is_transformers(seq_len: int) -> None:
    """Its length comes as a tensor, as in dynamic_frequency_update, which makes the base float32."""
    ours = scaling.DynamicNTK(4.0, 2048)
    for base in BASES:
        for width in WIDTHS:
            config = config_of(width, base, {"rope_type": "dynamic", "factor": 4.0})
            config.max_position_embeddings = 2048
            wanted, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", torch.tensor(seq_len))
            found, factor = ours.frequencies(width, base, seq_len, "float32")
            relative = np.abs(found - wanted.numpy()) / found
            assert relative.max() < 3e-6  # a base off by one ulp of float32 (torch's pow) moves the last frequency so
            assert factor == 1.0


@pytest.mark.parametrize("seq_len", [1, 4096, 4097, 131072])
def test_longrope_is_transformers(seq_len: int) -> None:
    width, base = 96, 1e4
    short, long = 1 + RNG.random(48), 1 + 63 * RNG.random(48)
    ours = scaling.LongRope(tuple(short), tuple(long), 4096, factor=MAX_POSITIONS / 4096)
    parameters = {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "original_max_position_embeddings": 4096,
    }
    wanted, wanted_factor = theirs(width, base, {**parameters, "factor": None}, seq_len)
    found, factor = ours.frequencies(width, base, seq_len, "float32")
    assert_same_frequencies(found, wanted, torch_is_right(width, base))
    assert factor == pytest.approx(wanted_factor, rel=1e-15)
