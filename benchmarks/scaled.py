"""Benches of scaled and configured Ropes: what a scaling costs in a call or a table, and reading a config."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Bench, Candidate, Run

Builder = Callable[[int], Bench]

DIM, TOKEN, ROWS = 128, 5000, 8192
PLAIN = "posenc, not scaled"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "max_position_embeddings": 163840,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    },
}
PHI = {
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
}
CONFIGS = {"llama3": LLAMA, "DeepSeek-V3": DEEPSEEK, "Phi-3.5": PHI}


def _scalings() -> dict[str, Any]:
    """Return the scalings by label; None is the row that the others are compared with."""
    scaling = peers.load("posenc.scaling")
    ones = (1.0,) * (DIM // 2)
    return {
        PLAIN: None,
        "posenc, Llama3": scaling.Llama3(),
        "posenc, Yarn": scaling.Yarn(32.0, 4096),
        "posenc, LongRope by length": scaling.LongRope(ones, ones, 4096, factor=32.0),
        "posenc, DynamicNTK": scaling.DynamicNTK(2.0, 2048),
    }


def _rope(scaling: Any) -> Any:
    posenc = peers.load("posenc")
    posenc.set_num_threads(1)
    return posenc.Rope(DIM, layout="half", base=500_000.0, scaling=scaling)


def _decode(scaling: Any) -> Run:
    rope = _rope(scaling)
    q, k = (limits.aligned((1, heads, 1, DIM), np.float32) for heads in (32, 8))
    q.fill(1), k.fill(1)
    return lambda: rope(q, k, offset=TOKEN, out=(q, k))


def _decode_growing(scaling: Any) -> Run:
    """One token after another, so that the length is a new one in each call."""
    rope, tokens = _rope(scaling), itertools.count(TOKEN)
    q, k = (limits.aligned((1, heads, 1, DIM), np.float32) for heads in (32, 8))
    q.fill(1), k.fill(1)
    return lambda: rope(q, k, offset=next(tokens), out=(q, k))


def _table(scaling: Any) -> Run:
    rope = _rope(scaling)
    out = tuple(limits.aligned((ROWS, DIM // 2), np.float32) for _ in range(2))
    return lambda: rope.table(ROWS, out=out)


def _config(config: dict[str, Any]) -> Run:
    rope = peers.load("posenc").Rope
    return lambda: rope.from_config(config)


def _transformers_module() -> Run:
    """Build transformers' module from a config object that is ready."""
    modeling = peers.load("transformers.models.llama.modeling_llama")
    peers.torch_with(1)
    wanted = modeling.LlamaConfig(rope_theta=LLAMA["rope_theta"], rope_scaling=dict(LLAMA["rope_scaling"]))
    return lambda: modeling.LlamaRotaryEmbedding(wanted)


def _unchecked(candidate: Candidate, result: Any) -> None:
    """The numbers are the business of the tests."""


def _bench(name: str, title: str, rows: Callable[[], dict[str, Callable[[], Run]]], threads: int) -> Bench:
    found = tuple(Candidate(label, "", "", setup) for label, setup in rows().items())
    return Bench(name, title, found, lambda: None, _unchecked)


def _scaled(setup: Callable[[Any], Run]) -> dict[str, Callable[[], Run]]:
    return {label: functools.partial(setup, scaling) for label, scaling in _scalings().items()}


def _decodes() -> dict[str, Callable[[], Run]]:
    growing = _scalings()["posenc, DynamicNTK"]
    return {**_scaled(_decode), "posenc, DynamicNTK, growing": functools.partial(_decode_growing, growing)}


def _configs() -> dict[str, Callable[[], Run]]:
    ours = {f"posenc, {name}": functools.partial(_config, config) for name, config in CONFIGS.items()}
    return {**ours, "transformers, LlamaRotaryEmbedding of a config object": _transformers_module}


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    works: dict[str, tuple[str, Callable[[], dict[str, Callable[[], Run]]]]] = {
        "scaled-decode": (f"Decode, one token at position {TOKEN}, float32, by scaling", _decodes),
        "scaled-table": (f"Table of {ROWS:,} positions, 64 pairs, float32, by scaling", lambda: _scaled(_table)),
        "config": ("Rope.from_config of a dict", _configs),
    }
    return {name: functools.partial(_bench, name, title, rows) for name, (title, rows) in works.items()}
