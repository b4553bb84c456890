"""The same numbers as the reference implementations people run: bit for bit given the same tables.

transformers 5.23 (Llama, GPT-NeoX, GPT-J, GLM, Cohere, DeepSeek-V3, Llama 4), the reference operator of ONNX opset 23,
and torch's complex product, on random shapes and on the shapes of real models. With their own rotary modules too, where
the tables differ by an ulp (test_float32_recipe.py says why).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers", "onnx"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import onnx
import torch
from onnx.reference import ReferenceEvaluator
from transformers import CohereConfig, DeepseekV3Config, GlmConfig, GPTNeoXConfig, LlamaConfig
from transformers.models.cohere import modeling_cohere
from transformers.models.deepseek_v3 import modeling_deepseek_v3
from transformers.models.glm import modeling_glm
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama
from transformers.models.llama4 import modeling_llama4

Tensor = torch.Tensor
Pair = tuple[Tensor, Tensor]
reproducible = settings(derandomize=True, deadline=None, max_examples=60)  # the same examples in every run


def doubled(t: Tensor) -> Tensor:
    return torch.cat((t, t), dim=-1)


# Each takes q and k of (batch, heads, seq, head_dim) and half tables of (batch, seq, rotary_dim/2).


def llama(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    return modeling_llama.apply_rotary_pos_emb(q, k, doubled(cos), doubled(sin))


def gpt_neox(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    return modeling_gpt_neox.apply_rotary_pos_emb(q, k, doubled(cos), doubled(sin))


def glm(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    return modeling_glm.apply_rotary_pos_emb(q, k, doubled(cos), doubled(sin))


def cohere(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    return modeling_cohere.apply_rotary_pos_emb(q, k, cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1))


def deepseek_v3(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    return modeling_deepseek_v3.apply_rotary_pos_emb_interleave(q, k, doubled(cos), doubled(sin))


def gptj(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    """GPTJAttention.forward rotates (batch, seq, heads, head_dim), its first rotary_dim elements."""
    width = 2 * cos.shape[-1]

    def turn(x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        turned = modeling_gptj.apply_rotary_pos_emb(x[..., :width], sin, cos)
        return torch.cat((turned, x[..., width:]), dim=-1).transpose(1, 2)

    return turn(q), turn(k)


def llama4(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Pair:
    """Meta's complex product, over (batch, seq, heads, head_dim)."""
    turned = modeling_llama4.apply_rotary_emb(q.transpose(1, 2), k.transpose(1, 2), torch.complex(cos, sin))
    return turned[0].transpose(1, 2), turned[1].transpose(1, 2)


@dataclass(frozen=True)
class Peer:
    """What a model calls, and how posenc says the same."""

    call: Callable[[Tensor, Tensor, Tensor, Tensor], Pair]
    layout: str
    partial: bool = False  # whether elements behind rotary_dim pass through
    step: int = 1  # pairs come in multiples: test_rotation_bits.py says when the complex product has these bits


PEERS = {
    "llama": Peer(llama, "half"),
    "gpt_neox": Peer(gpt_neox, "half", partial=True),
    "glm": Peer(glm, "interleaved", partial=True),
    "gptj": Peer(gptj, "interleaved", partial=True),
    "cohere": Peer(cohere, "interleaved"),
    "deepseek_v3": Peer(deepseek_v3, "interleaved_to_half"),
    "llama4": Peer(llama4, "interleaved", step=8),
}


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def assert_equal(found: Any, wanted: Any) -> None:
    """The same bits."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    word = {2: torch.int16, 4: torch.int32}[found.element_size()]
    assert torch.equal(found.contiguous().view(word), wanted.contiguous().view(word))


def assert_pair_equal(found: Pair, wanted: Pair) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert_equal(a, b)


@dataclass(frozen=True)
class Shape:
    batch: int
    heads: int
    kv_heads: int
    seq: int
    pairs: int
    rest: int
    seed: int


shapes = st.builds(
    Shape,
    batch=st.integers(1, 3),
    heads=st.integers(1, 5),
    kv_heads=st.integers(1, 3),
    seq=st.integers(1, 9),
    pairs=st.integers(1, 40),
    rest=st.integers(0, 17),
    seed=st.integers(0, 2**32 - 1),
)


def inputs(shape: Shape, peer: Peer) -> tuple[Tensor, Tensor, int]:
    """Return q, k and rotary_dim as the peer can take them."""
    width = 2 * peer.step * -(-shape.pairs // peer.step)
    head_dim = width + (shape.rest if peer.partial else 0)
    q = normal(shape.seed, shape.batch, shape.heads, shape.seq, head_dim)
    return q, normal(shape.seed + 1, shape.batch, shape.kv_heads, shape.seq, head_dim), width


def random_positions(shape: Shape) -> np.ndarray:
    return np.random.default_rng(shape.seed + 2).integers(0, 2**20, (shape.batch, shape.seq))


@pytest.mark.parametrize("name", PEERS)
@given(shape=shapes)
@reproducible
def test_random_shapes(name: str, shape: Shape) -> None:
    """A Rope called with q and k, against the peer with that Rope's tables."""
    peer, positions = PEERS[name], random_positions(shape)
    q, k, width = inputs(shape, peer)
    rope = posenc.Rope(q.shape[-1], layout=peer.layout, rotary_dim=width)
    cos, sin = map(torch.from_numpy, rope.table(positions))
    assert_pair_equal(rope(q, k, positions=positions), peer.call(q, k, cos, sin))


@pytest.mark.parametrize("name", PEERS)
@given(shape=shapes)
@reproducible
def test_random_shapes_by_tables(name: str, shape: Shape) -> None:
    """`apply_rotary_emb` with numbers that are no cosines at all, torch in and torch out, per batch row."""
    peer = PEERS[name]
    q, k, width = inputs(shape, peer)
    cos, sin = (normal(shape.seed + i, shape.batch, shape.seq, width // 2) for i in (3, 4))
    found = tuple(posenc.apply_rotary_emb(x, cos, sin, layout=peer.layout) for x in (q, k))
    assert_pair_equal(found, peer.call(q, k, cos, sin))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(shape=shapes)
@reproducible
def test_sixteen_bits_of_cohere(dtype: torch.dtype, shape: Shape) -> None:
    """Cohere widens to float32, turns, and rounds once, as posenc does for every 16-bit type."""
    q, k, width = inputs(shape, PEERS["cohere"])
    q, k = q.to(dtype), k.to(dtype)
    cos, sin = (normal(shape.seed + i, shape.batch, shape.seq, width // 2) for i in (3, 4))
    found = tuple(posenc.apply_rotary_emb(x, cos, sin, layout="interleaved") for x in (q, k))
    assert_pair_equal(found, cohere(q, k, cos, sin))


# ---- real models, with their own rotary modules ----


@dataclass(frozen=True)
class Model:
    """A real model's attention shape; the values of its config.json."""

    peer: str
    module: Callable[[], Any]
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int


def rope_parameters(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **more}


def llama_module(theta: float, hidden: int, heads: int) -> Any:
    config = LlamaConfig(hidden_size=hidden, num_attention_heads=heads, rope_parameters=rope_parameters(theta))
    return modeling_llama.LlamaRotaryEmbedding(config)


def neox_module() -> Any:
    parameters = rope_parameters(1e4, partial_rotary_factor=0.25)
    config = GPTNeoXConfig(hidden_size=6144, num_attention_heads=64, rope_parameters=parameters)
    return modeling_gpt_neox.GPTNeoXRotaryEmbedding(config)


def cohere_module() -> Any:
    config = CohereConfig(hidden_size=8192, num_attention_heads=64, rope_parameters=rope_parameters(8e6))
    return modeling_cohere.CohereRotaryEmbedding(config)


def glm_module() -> Any:
    parameters = rope_parameters(1e4, partial_rotary_factor=0.5)
    config = GlmConfig(hidden_size=4096, num_attention_heads=32, head_dim=128, rope_parameters=parameters)
    return modeling_glm.GlmRotaryEmbedding(config)


MODELS = {
    "Llama 2 7B": Model("llama", lambda: llama_module(1e4, 4096, 32), 32, 32, 128, 128),
    "Llama 3 8B": Model("llama", lambda: llama_module(5e5, 4096, 32), 32, 8, 128, 128),
    "SmolLM2 135M": Model("llama", lambda: llama_module(1e5, 576, 9), 9, 3, 64, 64),
    "GPT-NeoX 20B": Model("gpt_neox", neox_module, 64, 64, 96, 24),
    "GLM-4 9B": Model("glm", glm_module, 32, 2, 128, 64),
    "Command R+": Model("cohere", cohere_module, 64, 8, 128, 128),
}


def half_tables(name: str, module: Any, positions: Tensor) -> Pair:
    """Return a module's cos and sin at half width, as its model reads them."""
    cos, sin = module(torch.zeros(1), positions)
    if name == "cohere":
        return cos[..., 0::2].contiguous(), sin[..., 0::2].contiguous()
    return cos[..., : cos.shape[-1] // 2].contiguous(), sin[..., : sin.shape[-1] // 2].contiguous()


def assert_close(found: Pair, wanted: Pair, tolerance: float) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max().item() <= tolerance


@pytest.mark.parametrize("name", MODELS)
def test_real_models(name: str) -> None:
    """By their tables bit for bit; by a Rope of their frequencies within the ulp that the tables differ by; seed 41."""
    model = MODELS[name]
    module, peer = model.module(), PEERS[model.peer]
    q, k = normal(41, 2, model.heads, 17, model.head_dim), normal(42, 2, model.kv_heads, 17, model.head_dim)
    positions = torch.stack([torch.arange(17), torch.arange(100_000, 100_017)])
    cos, sin = half_tables(model.peer, module, positions)
    wanted = peer.call(q, k, cos, sin)
    by_tables = tuple(posenc.apply_rotary_emb(x, cos, sin, layout=peer.layout) for x in (q, k))
    assert_pair_equal(by_tables, wanted)
    rope = posenc.Rope(model.head_dim, layout=peer.layout, inv_freq=module.inv_freq, precision="float32")
    assert rope.rotary_dim == model.rotary_dim
    assert_close(
        rope(q, k, positions=positions), wanted, tolerance=2.0**-20
    )  # measured 2^-21: |x| < 6, tables an ulp (2^-24) apart


def test_gptj_6b() -> None:
    """Its own table, sin beside cos (rotary_dim 64 of head_dim 256, 2,048 positions), and one made here."""
    fused = modeling_gptj.create_sinusoidal_positions(2048, 64)
    sin, cos = (t.contiguous() for t in fused.chunk(2, dim=-1))
    q, k = normal(43, 1, 2, 2048, 256), normal(44, 1, 2, 2048, 256)
    wanted = gptj(q, k, cos[None], sin[None])
    found = tuple(posenc.apply_rotary_emb(x, cos, sin, layout="interleaved") for x in (q, k))
    assert_pair_equal(found, wanted)
    theirs = 1.0 / (10000 ** (torch.arange(0, 64, 2, dtype=torch.int64) / 64))  # create_sinusoidal_positions
    rope = posenc.Rope(256, layout="interleaved", rotary_dim=64, inv_freq=theirs, precision="float32")
    assert_close(rope(q, k), wanted, tolerance=2.0**-20)


def test_deepseek_v3() -> None:
    """Queries of 192 elements, of which the last 64 turn; the one key head of 64 that all heads share."""
    config = DeepseekV3Config(rope_parameters=rope_parameters(1e4))
    assert (config.qk_nope_head_dim, config.qk_rope_head_dim) == (128, 64)
    module = modeling_deepseek_v3.DeepseekV3RotaryEmbedding(config)
    positions = torch.arange(11)[None]
    cos, sin = half_tables("deepseek_v3", module, positions)
    q, k = normal(45, 1, 16, 11, 192), normal(46, 1, 1, 11, 64)
    turned, wanted_k = deepseek_v3(q[..., 128:], k, cos, sin)
    layout = "interleaved_to_half"
    found_q = posenc.apply_rotary_emb(q, cos, sin, layout=layout, rotary_offset=128)
    assert_equal(found_q, torch.cat((q[..., :128], turned), dim=-1))
    assert_equal(posenc.apply_rotary_emb(k, cos, sin, layout=layout), wanted_k)
    rope = posenc.Rope(192, layout=layout, inv_freq=module.inv_freq, rotary_offset=128, precision="float32")
    assert_close((rope(q),), (found_q,), tolerance=2.0**-20)


# ---- ONNX ----


def onnx_operator(rank: int, **attributes: int) -> ReferenceEvaluator:
    """Return the reference operator RotaryEmbedding of opset 23 as a model of one node."""
    names = ["x", "cos", "sin", "position_ids"]
    kinds = [onnx.TensorProto.FLOAT] * 3 + [onnx.TensorProto.INT64]
    value = onnx.helper.make_tensor_value_info
    ranks = [rank, 2, 2, 2]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("RotaryEmbedding", names, ["y"], **attributes)],
        "rotary",
        [value(n, t, [None] * r) for n, t, r in zip(names, kinds, ranks, strict=True)],
        [value("y", onnx.TensorProto.FLOAT, [None] * rank)],
    )
    return ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)]))


def onnx_case(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x (batch, heads, seq, dim), tables of 50 rows, and which rows to take."""
    rng = np.random.default_rng(shape.seed)
    x = rng.standard_normal((shape.batch, shape.heads, shape.seq, 2 * shape.pairs + shape.rest)).astype(np.float32)
    cos, sin = posenc.Rope(2 * shape.pairs, layout="half").table(50)
    return x, cos, sin, rng.integers(0, 50, (shape.batch, shape.seq))


@pytest.mark.parametrize("interleaved", [0, 1])
@given(shape=shapes)
@reproducible
def test_onnx_reference_operator(interleaved: int, shape: Shape) -> None:
    """4-D input, tables looked up by position_ids, partial widths."""
    x, cos, sin, rows = onnx_case(shape)
    operator = onnx_operator(4, interleaved=interleaved, rotary_embedding_dim=2 * shape.pairs)
    (wanted,) = operator.run(None, {"x": x, "cos": cos, "sin": sin, "position_ids": rows})
    layout = "interleaved" if interleaved else "half"
    found = posenc.apply_rotary_emb(x, cos, sin, layout=layout, positions=rows)
    assert_equal(torch.from_numpy(found), torch.from_numpy(np.ascontiguousarray(wanted)))


@pytest.mark.parametrize("interleaved", [0, 1])
@given(shape=shapes)
@reproducible
def test_onnx_flat_heads(interleaved: int, shape: Shape) -> None:
    """3-D input (batch, seq, heads * head_dim): for posenc a view with the sequence on axis 1."""
    x, cos, sin, rows = onnx_case(shape)
    x = np.ascontiguousarray(x.transpose(0, 2, 1, 3))
    flat = x.reshape(shape.batch, shape.seq, -1)
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": 2 * shape.pairs, "num_heads": shape.heads}
    operator = onnx_operator(3, **attributes)
    (wanted,) = operator.run(None, {"x": flat, "cos": cos, "sin": sin, "position_ids": rows})
    layout = "interleaved" if interleaved else "half"
    found = posenc.apply_rotary_emb(x, cos, sin, layout=layout, positions=rows, seq_axis=1)
    assert_equal(torch.from_numpy(found.reshape(flat.shape)), torch.from_numpy(np.ascontiguousarray(wanted)))


def test_a_difference_is_seen() -> None:
    """The helpers say no: to another layout, to a neighbouring position, to one unit in the last place."""
    shape = Shape(batch=1, heads=2, kv_heads=1, seq=3, pairs=4, rest=0, seed=47)
    q, k, width = inputs(shape, PEERS["llama"])
    rope = posenc.Rope(width, layout="half")
    cos, sin = (torch.from_numpy(t)[None] for t in rope.table(3))
    wanted = llama(q, k, cos, sin)
    one_off = wanted[0].clone()
    one_off[0, 1, 2, 3] = torch.nextafter(one_off[0, 1, 2, 3], torch.tensor(9.0))
    for found in (posenc.Rope(width, layout="interleaved")(q, k), rope(q, k, offset=1), (one_off, wanted[1])):
        with pytest.raises(AssertionError):
            assert_pair_equal(found, wanted)
    with pytest.raises(AssertionError):
        assert_close((wanted[0] + 2e-6,), (wanted[0],), tolerance=2.0**-20)
