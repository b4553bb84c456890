"""posenc.config.explain and diff: what they say is counted again here from the formulas and from transformers."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import PACKAGE_ROOT
from posenc import cli, config

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

from transformers import LlamaConfig, Olmo3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

SIZES = {"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 8, "max_position_embeddings": 131072}
LLAMA = {"model_type": "llama", "rope_theta": 150000.0, **SIZES}
YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
LISTS = {"short_factor": [1.0] * 32, "long_factor": [4.0] * 32}
LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 4096, **LISTS}


def scaled(scaling: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**LLAMA, "rope_scaling": scaling, **changes}


def transformers_says(scaling: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Return inv_freq and attention factor of transformers itself."""
    parameters = {"rope_theta": 150000.0, **scaling}
    wanted = LlamaConfig(**SIZES, head_dim=64, rope_parameters=parameters)
    inv_freq, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](wanted, "cpu")
    return inv_freq.double().numpy(), factor


# ---- explain ----


def test_explain_counts_the_pairs_that_never_turn() -> None:
    facts = config.explain(LLAMA).as_dict()["rotations"][0]
    wavelengths = [2 * math.pi * 150000.0 ** (2 * i / 64) for i in range(32)]
    assert np.allclose(facts["wavelengths"], wavelengths, rtol=1e-12)
    unturned = [i for i in range(32) if wavelengths[i] > 131072]
    assert facts["never_turn_within"] == {"context": unturned}
    text = str(config.explain(LLAMA))
    assert f"pairs {unturned[0]} to 31 never complete a turn within the context of 131,072 tokens" in text


def test_explain_is_json() -> None:
    gemma = {"model_type": "gemma3_text", **SIZES}
    found = json.loads(json.dumps(config.explain(gemma).as_dict(), allow_nan=False))
    assert found["layers"] == (["sliding_attention"] * 5 + ["full_attention"]) + ["sliding_attention"] * 2
    assert {r["layer_type"]: r["base"] for r in found["rotations"]} == {"full_attention": 1e6, "sliding_attention": 1e4}


def test_explain_shows_layers_as_a_pattern() -> None:
    text = str(config.explain({"model_type": "gemma3_text", **SIZES, "num_hidden_layers": 26}))
    assert "layers: (sliding_attention x 5, full_attention x 1) x 4, sliding_attention x 2" in text


def test_explain_shows_layers_without_rotation() -> None:
    """SmolLM3: every fourth layer is one."""
    found = config.explain({"model_type": "smollm3", **SIZES})
    assert found.as_dict()["layers"].count(None) == 2
    assert "no rotation x 1" in str(found)


def test_explain_names_both_lengths_of_longrope() -> None:
    text = str(config.explain(scaled(LONGROPE)))
    assert "32 pairs, wavelengths 6.283 to" in text
    assert "in a short sequence" in text
    assert f"wavelengths {8 * math.pi:.4g} to" in text
    assert "<32 numbers>" in text
    factor = math.sqrt(1 + math.log(32) / math.log(4096))
    assert f"attention factor {factor:.6g} in cosine and sine, so q.k grows by {factor**2:.6g}" in text


def test_explain_of_what_rotates_nothing() -> None:
    bloom = {"model_type": "bloom", "hidden_size": 64, "n_head": 8, "n_layer": 2}
    found = config.explain(bloom)
    assert str(found).startswith("bloom: alibi")
    assert found.as_dict()["rotations"] == []


# ---- diff ----


def only(source: Any, *systems: str) -> config.Difference:
    (found,) = config.diff(source, systems)
    return found


def test_who_does_not_read_truncate() -> None:
    """gpt-oss; what ggml makes of it is what transformers makes of truncate=True."""
    found = only(scaled({**YARN, "truncate": False}), "transformers", "ggml")
    (mine, _), (other, _) = transformers_says({**YARN, "truncate": False}), transformers_says(YARN)
    relative = np.max(np.abs(mine - other) / np.maximum(mine, other))
    assert found.inv_freq == pytest.approx(relative, rel=1e-4)
    assert found.angle == pytest.approx(np.max(np.abs(mine - other)) * 131071, rel=1e-4)
    assert found.attention_factor[0] == found.attention_factor[1] == pytest.approx(1.3465735902799727)
    assert "truncate" in found.reason


def test_transformers_does_not_read_a_nested_truncate() -> None:
    """What stands under the name of a type of layers; in a dictionary for all layers it does."""
    yarn = {**YARN, "truncate": False, "rope_theta": 150000.0}
    sizes = {**SIZES, "layer_types": ["full_attention"] * 8, "rope_parameters": {"full_attention": yarn}}
    found = only({"model_type": "olmo3", **sizes}, "transformers", "vllm")
    assert "transformers 5.23, looking beside the dictionaries of the types of layers" in found.reason
    theirs, _ = ROPE_INIT_FUNCTIONS["yarn"](Olmo3Config(**copy.deepcopy(sizes)), "cpu", layer_type="full_attention")
    (flat, _), theirs = transformers_says({**YARN, "truncate": False}), theirs.double().numpy()
    assert found.inv_freq == pytest.approx(np.max(np.abs(flat - theirs) / np.maximum(flat, theirs)), rel=1e-4)
    assert config.diff(scaled({**YARN, "truncate": False}), ("transformers", "vllm")) == ()


def test_pairs_that_ggml_leaves_over() -> None:
    """Qwen3-VL's sections [24, 20, 20]: pairs 1, 4, .. 58 are h's, 2, 5, .. 59 are w's, 61 and 62 nobody's."""
    qwen = {"model_type": "qwen3_vl_text", **SIZES, "head_dim": 128, "rope_theta": 5e6}
    found = only(qwen, "transformers", "ggml")
    assert "the pairs 61, 62 by a fourth axis" in found.reason
    assert (found.inv_freq, found.seq_len) == (1.0, 131072)
    assert found.angle == pytest.approx(5e6 ** (-2 * 61 / 128) * 131071)
    covered = {**qwen, "model_type": "qwen3_5_text"}  # [11, 11, 10] of 32 pairs leave none
    assert config.diff({**covered, "head_dim": 256}, ("transformers", "ggml")) == ()


def test_mscale_is_read_in_two_ways() -> None:
    """1.3466 and 1.2450: 0.1 ln 32 + 1 and 0.0707 ln 32 + 1."""
    source = scaled({**YARN, "mscale": 0.707, "mscale_all_dim": 0})
    for system in ("mlx_lm", "megatron"):
        found = only(source, "transformers", system)
        assert found.attention_factor == pytest.approx((1.3465735902799727, 1.2450275283279407))
        assert found.inv_freq == 0
    assert config.diff(source, ("transformers", "vllm")) == ()


def test_vllm_reads_deepseek_by_deepseeks_rule() -> None:
    deepseek = {**scaled({**YARN, "mscale": 0.707, "mscale_all_dim": 0}), "model_type": "deepseek_v2"}
    deepseek |= {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
    found = only(deepseek, "transformers", "vllm")
    assert found.attention_factor == pytest.approx((1.3465735902799727, 1.2450275283279407))


def test_longrope_is_switched_by_other_rules() -> None:
    for system in ("vllm", "ggml", "mlx_lm"):
        found = only(scaled(LONGROPE), "transformers", system)
        assert (found.seq_len, found.inv_freq) == (4096, pytest.approx(0.75))  # 1/4 in place of 1
        assert found.angle == pytest.approx(0.75 * 4095)
    short = scaled(LONGROPE, max_position_embeddings=4096)
    assert config.diff(short, ("transformers", "vllm", "ggml")) == ()


def test_dynamic_ntk() -> None:
    dynamic = scaled({"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=4096)
    found = {d.system: d for d in config.diff(dynamic, ("transformers", "vllm", "mlx_lm", "keras_hub"))}
    assert found["vllm"].seq_len == 8192
    assert found["vllm"].inv_freq == pytest.approx(1 - 1 / 3)  # the last pair, of 2 * 8192 / 4096 - 1 = 3
    assert found["mlx_lm"].refused
    assert "raises an error" in str(found["mlx_lm"])
    assert "factor ** (r / (r - 2))" in found["keras_hub"].reason


def test_nothing_to_list() -> None:
    assert config.diff(LLAMA) == ()
    assert config.diff(scaled({"rope_type": "linear", "factor": 2.0})) == ()


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        (("transformers",), "as_read_by must name two systems or more, each once"),
        (("vllm", "vllm"), "as_read_by must name two systems or more, each once"),
        (("transformers", "tgi"), "as_read_by must be one of 'transformers', 'vllm', .*, got 'tgi'"),
    ],
)
def test_wrong_systems(systems: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.diff(LLAMA, systems)


# ---- the command ----


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(scaled({**YARN, "truncate": False})))
    assert cli.main(["explain", str(path), "--diff"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(str(config.explain(path)))
    assert printed.count("read differently: all layers, ") == 2
    assert cli.main(["explain", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == config.explain(path).as_dict()


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", str(tmp_path / "nowhere.json")]) == 2
    assert "nowhere.json" in capsys.readouterr().err
    path = tmp_path / "config.json"
    path.write_text(json.dumps(scaled({**YARN, "factor": "four"})))
    assert cli.main(["explain", str(path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("posenc explain: ")
    assert "factor" in message


def test_a_reader_that_has_read_enough(tmp_path: Path) -> None:
    """As `posenc explain --json | head` does: no traceback, and not the exit code of success."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "num_hidden_layers": 20_000}))  # more than a pipe holds
    with subprocess.Popen(
        [sys.executable, "-m", "posenc", "explain", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.read(1) == b"{"
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


def test_a_context_that_is_not_given() -> None:
    config_without = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"}
    first = str(config.explain(config_without)).splitlines()[0]
    assert first == "llama: rope, context not given (max_position_embeddings)"
