"""rotary-embedding-torch, x-transformers and onnxruntime, case by case; where one is wrong, that is pinned."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import posenc

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "onnx", "onnxruntime", "rotary_embedding_torch", "x_transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import onnx
import onnxruntime
import torch
from rotary_embedding_torch import RotaryEmbedding as LucidRope
from x_transformers.x_transformers import RotaryEmbedding as CrossRope
from x_transformers.x_transformers import apply_rotary_pos_emb

RNG = np.random.default_rng(53)
SEQ, DIM = 96, 64
NOISE = 3e-5  # float32 angles up to 96, turned by 3e-6, times |x| up to 5


def heads(dim: int = DIM, seq: int = SEQ) -> np.ndarray:
    return RNG.standard_normal((2, 3, seq, dim)).astype(np.float32)


def assert_close(found: np.ndarray, wanted: Any, tolerance: float = NOISE) -> None:
    wanted = wanted.detach().float().numpy() if isinstance(wanted, torch.Tensor) else wanted
    assert found.shape == wanted.shape
    assert np.abs(found.astype(np.float32) - wanted).max() <= tolerance


def assert_apart(found: np.ndarray, wanted: torch.Tensor, least: float) -> None:
    assert np.abs(found.astype(np.float32) - wanted.detach().float().numpy()).max() >= least


# ---- rotary-embedding-torch 0.9.1: interleaved pairs ----

LUCID = [
    ({}, {}),
    ({"theta": 500000}, {"base": 500000.0}),
    ({"interpolate_factor": 4.0}, {"scaling": posenc.scaling.Linear(4.0)}),
    ({"theta_rescale_factor": 8.0}, {"scaling": posenc.scaling.NTK(8.0)}),
    ({"custom_freqs": torch.linspace(1, 0.01, DIM // 2)}, {"inv_freq": np.linspace(1, 0.01, DIM // 2, dtype="f4")}),
]


@pytest.mark.parametrize(("theirs", "ours"), LUCID, ids=lambda x: "-".join(x) if isinstance(x, dict) else None)
def test_rotary_embedding_torch(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    module, rope, x = LucidRope(DIM, **theirs), posenc.Rope(DIM, layout="interleaved", **ours), heads()
    assert_close(rope(x), module.rotate_queries_or_keys(torch.from_numpy(x)))
    offset = module.rotate_queries_or_keys(torch.from_numpy(x), offset=40)
    assert_close(rope(x, offset=40), offset, 2 * NOISE)


def test_rotary_embedding_torch_partial_and_seq_first() -> None:
    module, x = LucidRope(32, seq_before_head_dim=True), RNG.standard_normal((2, SEQ, 3, DIM)).astype(np.float32)
    rope = posenc.Rope(DIM, layout="interleaved", rotary_dim=32)
    assert_close(rope(x, seq_axis=-3), module.rotate_queries_or_keys(torch.from_numpy(x)))


def test_rotary_embedding_torch_counts_positions_in_bfloat16() -> None:
    """Its positions take the dtype of the input: at 2048 tokens 641 of them are distinct, and the cache keeps them.

    (rotary_embedding_torch.py, `get_seq_pos`; the cache is not keyed by dtype.) A float32 call after it is as wrong.
    """
    module, x = LucidRope(DIM), heads(seq=2048)
    rope = posenc.Rope(DIM, layout="interleaved")
    half = torch.from_numpy(x).bfloat16()
    right = rope(half).float().numpy()
    assert_apart(right, module.rotate_queries_or_keys(half), 1.0)
    assert_apart(rope(x), module.rotate_queries_or_keys(torch.from_numpy(x)), 1.0)
    fresh = LucidRope(DIM).rotate_queries_or_keys(torch.from_numpy(x))
    assert_close(rope(x), fresh, 1e-3)  # float32 angles up to 2048
    assert len(torch.arange(2048, dtype=torch.bfloat16).unique()) == 641


# ---- x-transformers 2.31: interleaved pairs ----

CROSS = [
    ({}, {}),
    ({"base": 500000}, {"base": 500000.0}),
    ({"interpolation_factor": 4.0}, {"scaling": posenc.scaling.Linear(4.0)}),
    ({"base_rescale_factor": 8.0}, {"scaling": posenc.scaling.NTK(8.0)}),
]


@pytest.mark.parametrize(("theirs", "ours"), CROSS, ids=lambda x: "-".join(x) if isinstance(x, dict) else None)
@pytest.mark.parametrize("width", [32, DIM])
def test_x_transformers(theirs: dict[str, Any], ours: dict[str, Any], width: int) -> None:
    module, x = CrossRope(width, **theirs), heads()
    rope = posenc.Rope(DIM, layout="interleaved", rotary_dim=width, **ours)
    positions = RNG.integers(0, SEQ, SEQ)
    freqs, scale = module(torch.from_numpy(positions))
    assert_close(rope(x, positions=positions), apply_rotary_pos_emb(torch.from_numpy(x), freqs, scale))


def test_x_transformers_angles_are_interleaved_tables() -> None:
    freqs, _ = CrossRope(DIM).forward_from_seq_len(SEQ)
    cos, sin = freqs.cos()[0, :, 0::2].numpy(), freqs.sin()[0, :, 0::2].numpy()
    x = heads()
    rotated = posenc.apply_rotary_emb(x, cos, sin, layout="interleaved")
    assert_close(rotated, apply_rotary_pos_emb(torch.from_numpy(x), freqs))


# ---- onnxruntime 1.31 ----


def onnx_session(domain: str, interleaved: int, width: int) -> onnxruntime.InferenceSession:
    rest = ["cos", "sin", "ids"] if domain == "" else ["ids", "cos", "sin"]
    how: dict[str, Any] = {"interleaved": interleaved}
    if width != DIM:
        how |= {"rotary_embedding_dim": width, "num_heads": 3}
    node = onnx.helper.make_node("RotaryEmbedding", ["x", *rest], ["y"], domain=domain, **how)
    info, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [info(name, real, None) for name in ("x", "cos", "sin")] + [info("ids", onnx.TensorProto.INT64, None)]
    graph = onnx.helper.make_graph([node], "rope", inputs, [info("y", real, None)])
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("width", [32, DIM])
def test_onnxruntime(domain: str, interleaved: int, width: int) -> None:
    """The standard's operator and onnxruntime's own, whole and partial, with positions of each batch row."""
    rope = posenc.Rope(DIM, layout="interleaved" if interleaved else "half", rotary_dim=width)
    cos, sin = rope.table(200)
    ids = RNG.integers(0, 200, (2, SEQ))
    x = heads()
    session = onnx_session(domain, interleaved, width)
    (found,) = session.run(None, {"x": x, "cos": cos, "sin": sin, "ids": ids})
    assert_close(rope(x, positions=ids), found, 2e-6)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_onnxruntime_beyond_the_table(domain: str) -> None:
    """A position outside the table: an error here, and in onnxruntime 1.31 too."""
    rope = posenc.Rope(DIM, layout="half")
    cos, sin = rope.table(8)
    ids, x = np.full((2, 4), 8), heads(seq=4)
    with pytest.raises(IndexError):
        posenc.apply_rotary_emb(x, cos, sin, layout="half", positions=ids)
    with pytest.raises(Exception, match="position"):
        onnx_session(domain, 0, DIM).run(None, {"x": x, "cos": cos, "sin": sin, "ids": ids})
