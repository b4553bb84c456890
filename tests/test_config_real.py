"""Published config.json files, typed without the keys that say nothing about positions: what they mean, literally.

The numbers on the right are those of the model cards and papers; the tables are besides compared with the rotary
module that transformers builds from the same file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import transformers

import transformers_zoo as zoo
from posenc import config, scaling

FOLDER = Path(__file__).parent / "data" / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Expected:
    """One rotation as the model's paper or card has it."""

    layout: str
    head_dim: int
    base: float
    rotary_dim: int | None = None
    scaling: Any = None
    attention_factor: float = 1.0


def llama3(factor: float) -> scaling.Llama3:
    return scaling.Llama3(factor, 1.0, 4.0, 8192)


PHI = json.loads((FOLDER / "microsoft--Phi-3.5-mini-instruct.json").read_text())["rope_scaling"]
LONGROPE = scaling.LongRope(tuple(PHI["short_factor"]), tuple(PHI["long_factor"]), 4096, factor=32.0)

# 0.1 ln 32 + 1 (arXiv:2309.00071, equation 22), and sqrt(1 + ln 32 / ln 4096) (arXiv:2402.13753)
OSS_FACTOR, PHI_FACTOR = 1.3465735902799727, 1.1902380714238083
HALF = "half"
ROPES: dict[str, dict[str, Expected]] = {
    "meta-llama--Llama-2-7b-hf": {"all": Expected(HALF, 128, 1e4)},
    "meta-llama--Llama-3.1-8B": {"all": Expected(HALF, 128, 5e5, scaling=llama3(8.0))},
    "meta-llama--Llama-3.2-1B": {"all": Expected(HALF, 64, 5e5, scaling=llama3(32.0))},
    "deepseek-ai--deepseek-coder-6.7b-base": {"all": Expected(HALF, 128, 1e5, scaling=scaling.Linear(4.0))},
    "mistralai--Mistral-7B-v0.3": {"all": Expected(HALF, 128, 1e6)},
    "Qwen--Qwen2.5-7B-Instruct": {"all": Expected(HALF, 128, 1e6)},
    "Qwen--Qwen3-8B": {"all": Expected(HALF, 128, 1e6)},
    "microsoft--Phi-3.5-mini-instruct": {
        "all": Expected(HALF, 96, 1e4, scaling=LONGROPE, attention_factor=PHI_FACTOR),
    },
    "microsoft--phi-2": {"all": Expected(HALF, 80, 1e4, rotary_dim=32)},
    "deepseek-ai--DeepSeek-V2-Lite": {
        "all": Expected("interleaved", 64, 1e4, scaling=scaling.Yarn(40.0, 4096, mscale=0.707, mscale_all_dim=0.707)),
    },
    "deepseek-ai--DeepSeek-V3": {
        "all": Expected(
            "interleaved_to_half", 64, 1e4, scaling=scaling.Yarn(40.0, 4096, mscale=1.0, mscale_all_dim=1.0)
        ),
    },
    "openai--gpt-oss-20b": {
        "all": Expected(HALF, 64, 1.5e5, scaling=scaling.Yarn(32.0, 4096, truncate=False), attention_factor=OSS_FACTOR),
    },
    "google--gemma-2-2b": {"all": Expected(HALF, 256, 1e4)},
    "google--gemma-3-1b-it": {
        "full_attention": Expected(HALF, 256, 1e6),
        "sliding_attention": Expected(HALF, 256, 1e4),
    },
    "google--gemma-3-4b-it": {
        "full_attention": Expected(HALF, 256, 1e6, scaling=scaling.Linear(8.0)),
        "sliding_attention": Expected(HALF, 256, 1e4),
    },
    "answerdotai--ModernBERT-base": {
        "full_attention": Expected(HALF, 64, 1.6e5),
        "sliding_attention": Expected(HALF, 64, 1e4),
    },
    "THUDM--GLM-4-9B-0414": {"all": Expected("interleaved", 128, 1e4, rotary_dim=64)},
    "CohereForAI--c4ai-command-r7b-12-2024": {"all": Expected("interleaved", 128, 5e4)},
    "HuggingFaceTB--SmolLM3-3B": {"all": Expected(HALF, 128, 5e6)},
    "LGAI-EXAONE--EXAONE-4.0-32B": {"all": Expected(HALF, 128, 1e6, scaling=llama3(16.0))},
    "EleutherAI--gpt-neox-20b": {"all": Expected(HALF, 96, 1e4, rotary_dim=24)},
    "EleutherAI--gpt-j-6b": {"all": Expected("interleaved", 256, 1e4, rotary_dim=64)},
    "tiiuae--falcon-7b": {"all": Expected(HALF, 64, 1e4)},
    "stabilityai--stablelm-2-1_6b": {"all": Expected(HALF, 64, 1e4, rotary_dim=16)},
    "databricks--dbrx-instruct": {"all": Expected(HALF, 128, 5e5)},
    "nomic-ai--nomic-embed-text-v1.5": {"all": Expected(HALF, 64, 1e3)},
    "tencent--Hunyuan-A13B-Instruct": {"all": Expected(HALF, 128, 1e4, scaling=scaling.NTK(1000.0))},
    "Qwen--Qwen2-VL-7B-Instruct": {"all": Expected(HALF, 128, 1e6)},
    "Qwen--Qwen2.5-VL-7B-Instruct": {"all": Expected(HALF, 128, 1e6)},
    "Qwen--Qwen3-VL-8B-Instruct": {"all": Expected(HALF, 128, 5e6)},
    "mistralai--Mistral-Small-3.1-24B-Instruct-2503": {"all": Expected(HALF, 128, 1e9)},
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": {
        "all": Expected("interleaved", 128, 5e5, scaling=scaling.Llama3(16.0, 1.0, 1.0, 8192))  # a step
    },
}
OTHERS = {
    "bigscience--bloom-560m": ("alibi", {"num_heads": 16, "max_bias": 8.0}),
    "mosaicml--mpt-7b": ("alibi", {"num_heads": 32, "max_bias": 8, "alibi": True}),
    "openai-community--gpt2": ("learned", {"rows": 1024, "offset": 0}),
    "google-t5--t5-small": ("relative", {"num_buckets": 32, "max_distance": 128}),
}
S, F = "sliding_attention", "full_attention"
LAYERS = {
    "google--gemma-3-1b-it": ([S] * 5 + [F]) * 4 + [S] * 2,
    "google--gemma-3-4b-it": ([S] * 5 + [F]) * 5 + [S] * 4,
    "answerdotai--ModernBERT-base": ([F] + [S] * 2) * 7 + [F],
    "HuggingFaceTB--SmolLM3-3B": (["all"] * 3 + [None]) * 9,
    "CohereForAI--c4ai-command-r7b-12-2024": (["all"] * 3 + [None]) * 8,
    "LGAI-EXAONE--EXAONE-4.0-32B": (["all"] * 3 + [None]) * 16,
    "openai--gpt-oss-20b": ["all"] * 24,
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": (["all"] * 3 + [None]) * 12,
}
#: What transformers 5.23 makes of a file otherwise, and why no module of it is compared.
NOT_LIKE_TRANSFORMERS = {
    "EleutherAI--gpt-j-6b": "no rotary class: test_config_reading.py, test_tables_of_gptj",
    "databricks--dbrx-instruct": "it does not read attn_config.rope_theta: test_dbrx_reads_its_own_base",
    "nomic-ai--nomic-embed-text-v1.5": "keys of the model's own code",
    "openai-community--gpt2": "nothing turns",
    "bigscience--bloom-560m": "nothing turns",
    "mosaicml--mpt-7b": "nothing turns",
    "google-t5--t5-small": "nothing turns",
}


def raw(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", ROPES)
def test_ropes(name: str) -> None:
    found = config.read(FOLDER / f"{name}.json")
    assert found.kind == "rope"
    assert list(found.ropes) == list(ROPES[name])
    for kind, expected in ROPES[name].items():
        rope = found.rope(kind)
        assert (rope.layout, rope.head_dim, rope.base) == (expected.layout, expected.head_dim, expected.base)
        assert rope.rotary_dim == (expected.rotary_dim or expected.head_dim)
        assert rope.scaling == expected.scaling
        assert rope.attention_factor == pytest.approx(expected.attention_factor, rel=1e-15)


@pytest.mark.parametrize("name", OTHERS)
def test_what_rotates_nothing(name: str) -> None:
    found = config.read(FOLDER / f"{name}.json")
    assert (found.kind, dict(found.details)) == OTHERS[name]
    with pytest.raises(ValueError, match=f"rotates nothing \\({found.kind}\\)"):
        found.rope()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    assert list(config.read(FOLDER / f"{name}.json").layers) == LAYERS[name]


def test_all_files_are_read() -> None:
    assert set(NAMES) == set(ROPES) | set(OTHERS)


def whole(name: str) -> Any:
    """Return the config object that transformers makes of a file."""
    given = raw(name)
    return transformers.AutoConfig.for_model(given.pop("model_type"), **given)


def theirs(name: str) -> tuple[zoo.Case, Any, Any]:
    """Return the text decoder's config and rotary module as transformers builds them from the file."""
    own = whole(name).get_text_config()
    case = next(case for case in zoo.cases() if case.config == type(own).__name__)
    return case, own, getattr(case.module, case.rotary)(own).eval()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(NOT_LIKE_TRANSFORMERS)))
def test_tables_are_those_of_transformers(name: str) -> None:
    case, own, module = theirs(name)
    found = config.read(FOLDER / f"{name}.json", precision="float32")
    for kind, rope in found.ropes.items():
        buffer = dict(module.named_buffers()).get(f"{kind}_inv_freq", getattr(module, "inv_freq", None))
        frequencies = rope.at(1).inv_freq  # LongRoPE's module starts with the list of short sequences
        gap = np.abs(buffer.numpy().astype(np.float64) - frequencies)
        assert (gap <= 2 * np.spacing(frequencies.astype(np.float32))).all()
        tables = zoo.tables(module, case, own, len(frequencies), rope.axes, None if kind == "all" else kind)
        gap = np.abs(buffer_after(module, kind).astype(np.float64) - rope.at(4097).inv_freq)
        farthest = tables.positions.max()
        bound = 2e-6 + np.where(gap > 0, farthest * gap + np.spacing(np.float32(farthest)), 0)
        for a, b in zip(rope.table(tables.positions), (tables.cos, tables.sin), strict=True):
            assert (np.abs(a - b) <= bound).all()


def buffer_after(module: Any, kind: str) -> np.ndarray:
    """Return the frequencies that the last call used."""
    found: np.ndarray = dict(module.named_buffers()).get(f"{kind}_inv_freq", getattr(module, "inv_freq", None)).numpy()
    return found


VISION = {
    "Qwen--Qwen2-VL-7B-Instruct": 80,
    "Qwen--Qwen2.5-VL-7B-Instruct": 80,
    "Qwen--Qwen3-VL-8B-Instruct": 72,
    "mistralai--Mistral-Small-3.1-24B-Instruct-2503": 64,
    "meta-llama--Llama-4-Scout-17B-16E-Instruct": 88,
}


@pytest.mark.parametrize(("name", "head_dim"), VISION.items())
def test_vision_parts(name: str, head_dim: int) -> None:
    """head_dim is hidden size over heads of the tower: 1280/16, 1152/16, 1408/16, and Pixtral's own 64."""
    found = config.read(FOLDER / f"{name}.json", part="vision", precision="float32")
    assert (found.part, found.axes) == ("vision", "h, w")
    rope = found.rope()
    assert (rope.head_dim, rope.axes) == (head_dim, 2)
    own = whole(name).vision_config
    case = next(case for case in zoo.cases() if case.config == type(own).__name__)
    tables = zoo.tables(getattr(case.module, case.rotary)(own).eval(), case, own, len(rope.inv_freq), 2, None)
    for a, b in zip(rope.table(tables.positions), (tables.cos, tables.sin), strict=True):
        assert np.abs(a - b).max() <= 2e-5  # some frequencies of torch are a unit apart, positions go to 4096


def test_softmax_scale_of_deepseek() -> None:
    """(0.1 m ln 40 + 1) ** 2, m = 1 and 0.707 (deepseek-ai/DeepSeek-V3, inference/model.py, `MLA`)."""
    for name, expected in (("DeepSeek-V3", 1.8738542070926265), ("DeepSeek-V2-Lite", 1.5896261651208736)):
        assert config.read(FOLDER / f"deepseek-ai--{name}.json").softmax_scale == pytest.approx(expected, rel=1e-14)


def test_llama4_scales_its_queries() -> None:
    found = config.read(FOLDER / "meta-llama--Llama-4-Scout-17B-16E-Instruct.json")
    assert (found.query_scale.attn_scale, found.query_scale.floor_scale) == (0.1, 8192)
