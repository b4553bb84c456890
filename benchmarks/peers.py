"""Those who rotate too: one function per peer, which makes its call for a work's data.

A peer works on the data's own arrays wherever it can, so that all of them read, and where they work
in place write, the same memory. One that is not installed, or that does not take this dtype or order
of axes, raises `Unavailable` and becomes a line below the table.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks import work
from benchmarks.harness import Angles, Candidate, Output, Run, Unavailable
from benchmarks.work import Array, Data, Work, as_torch

Setup = Callable[[Data], Run]
SMALL = 1 << 18  # bytes of q below which a second thread can only lose


@dataclass(frozen=True)
class Peer:
    """A peer: its row's entries, what it is meant for, and how to set it up."""

    name: str
    output: Output
    angles: Angles
    fits: Callable[[Work], bool]
    setup: Setup


PEERS: list[Peer] = []


def half(wanted: Work) -> bool:
    """Whether pairs are i and i + dim/2."""
    return wanted.layout == "half"


def interleaved(wanted: Work) -> bool:
    """Whether pairs are 2i and 2i + 1."""
    return wanted.layout == "interleaved"


def long_heads(wanted: Work) -> bool:
    """Whether each head holds many tokens in a row."""
    return wanted.axes == "BHSD" and wanted.seq > 1


def peer(
    name: str,
    output: Output,
    angles: Angles = "ready",
    fits: Callable[[Work], bool] = lambda _: True,
) -> Callable[[Setup], Setup]:
    """Register a function as a peer, in the benches of the work that it is meant for."""

    def register(setup: Setup) -> Setup:
        PEERS.append(Peer(name, output, angles, fits, setup))
        return setup

    return register


def candidates(data: Data, names: tuple[str, ...] = ()) -> list[Candidate]:
    """Return the peers for the work; those whose names begin so, if any are given."""
    return [
        Candidate(each.name, each.output, each.angles, functools.partial(each.setup, data))
        for each in PEERS
        if each.fits(data.work) and (not names or each.name.startswith(names))
    ]


def load(name: str) -> ModuleType:
    """Import a module, or say why that is not to be had."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        message = (str(error) or repr(error)).splitlines()[0]
        raise Unavailable(f"not installed: {message}") from error


def torch_with(threads: int) -> Any:
    """Import torch and set its number of threads."""
    torch = load("torch")
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch


# ---- NumPy ----


@peer("NumPy", "new")
def numpy_formula(data: Data) -> Run:
    """Multiply and add halves, in float32."""
    cos, sin = data.broadcast_rows
    layout, dtype = data.work.layout, data.q.dtype

    def rotate(x: Array) -> Array:
        a, b = work.split(x.astype(np.float32, copy=False), layout)
        return work.join(a * cos - b * sin, b * cos + a * sin, layout).astype(dtype, copy=False)

    return lambda: (rotate(data.q), rotate(data.k))


# ---- torch ----


def _llama(data: Data) -> tuple[Any, Any, Any]:
    """Return transformers' embedding module, its apply function and the position ids."""
    torch = torch_with(data.threads)
    load("transformers")
    modeling = load("transformers.models.llama.modeling_llama")
    config = modeling.LlamaConfig(
        hidden_size=data.work.dim * data.work.heads[0],
        num_attention_heads=data.work.heads[0],
        head_dim=data.work.dim,
        rope_parameters={"rope_type": "default", "rope_theta": work.BASE},
    )
    embedding = modeling.LlamaRotaryEmbedding(config)
    heads = data.work.axes.index("H")
    apply = functools.partial(modeling.apply_rotary_pos_emb, unsqueeze_dim=heads)
    return embedding, apply, torch.from_numpy(data.positions)


@peer("transformers", "new", "made", half)
def transformers_eager(data: Data) -> Run:
    """LlamaRotaryEmbedding and apply_rotary_pos_emb."""
    embedding, apply, positions = _llama(data)
    q, k = as_torch(data.q), as_torch(data.k)

    def run() -> Any:
        return apply(q, k, *embedding(q, positions))

    return run


@peer("transformers, apply alone", "new", "ready", half)
def transformers_apply(data: Data) -> Run:
    """apply_rotary_pos_emb alone, its cosines and sines given."""
    _, apply, _ = _llama(data)
    q, k = as_torch(data.q), as_torch(data.k)
    cos, sin = as_torch(data.rows[0]), as_torch(data.rows[1])
    cos, sin = (t.repeat(1, 1, 2).to(q.dtype) for t in (cos, sin))
    return lambda: apply(q, k, cos, sin)


@peer("transformers, torch.compile", "new", "made", half)
def transformers_compiled(data: Data) -> Run:
    """The same two, compiled as one function."""
    embedding, apply, positions = _llama(data)
    q, k = as_torch(data.q), as_torch(data.k)

    def rotate(q: Any, k: Any, positions: Any) -> Any:
        return apply(q, k, *embedding(q, positions))

    compiled = load("torch").compile(rotate, dynamic=False)
    return lambda: compiled(q, k, positions)


@peer("torch.compile of an in-place rewrite", "in place")
def torch_compiled_in_place(data: Data) -> Run:
    """The formula, assigned back to the halves or to the even and odd elements."""
    torch = torch_with(data.threads)
    q, k = as_torch(data.q), as_torch(data.k)
    cos, sin = map(as_torch, data.broadcast_rows)
    split: Callable[..., Any] = functools.partial(work.split, layout=data.work.layout)

    def rotate_one(x: Any, cos: Any, sin: Any) -> None:
        a, b = split(x)
        new_a, new_b = a * cos - b * sin, b * cos + a * sin
        a.copy_(new_a)
        b.copy_(new_b)

    def rotate(q: Any, k: Any, cos: Any, sin: Any) -> None:
        rotate_one(q, cos, sin)
        rotate_one(k, cos, sin)

    compiled = torch.compile(rotate, dynamic=False)
    return lambda: compiled(q, k, cos, sin)


@peer("torch complex (Meta's)", "new", "ready", interleaved)
def torch_complex(data: Data) -> Run:
    """apply_rotary_emb of Meta's Llama, with its view_as_complex."""
    torch = torch_with(data.threads)
    q, k = as_torch(data.q), as_torch(data.k)
    turns = torch.complex(*map(as_torch, data.broadcast_rows))

    def rotate(x: Any) -> Any:
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(3).type_as(x)

    return lambda: (rotate(q), rotate(k))


@peer("torch complex mul_", "in place", "ready", interleaved)
def torch_complex_in_place(data: Data) -> Run:
    """One complex multiplication of a view, written by hand."""
    data.need(dtype=("float32",))
    torch = torch_with(data.threads)
    turns = torch.complex(*map(as_torch, data.broadcast_rows))
    q, k = (torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)) for x in (as_torch(data.q), as_torch(data.k)))

    def run() -> None:
        q.mul_(turns)
        k.mul_(turns)

    return run


def _torchtune() -> ModuleType:
    """Load torchtune's file alone: the package imports more than is to be had for each torch."""
    found = importlib.util.find_spec("torchtune")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("not installed: no module named torchtune")
    path = Path(found.submodule_search_locations[0]) / "modules" / "position_embeddings.py"
    spec = importlib.util.spec_from_file_location("torchtune_position_embeddings", path)
    if spec is None or spec.loader is None:
        raise Unavailable(f"can't load {path.name}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@peer("torchtune", "new", "ready", interleaved)
def torchtune(data: Data) -> Run:
    """RotaryPositionalEmbeddings, its cache built beforehand."""
    torch = torch_with(data.threads)
    q, k = (as_torch(data.by_token(x)) for x in (data.q, data.k))
    length = int(data.positions.max()) + 1
    rope = _torchtune().RotaryPositionalEmbeddings(data.work.dim, length, int(work.BASE))
    positions = torch.from_numpy(data.positions) if data.work.first else None
    return lambda: (rope(q, input_pos=positions), rope(k, input_pos=positions))


# ---- vLLM ----


@functools.cache
def _vllm_operator() -> Any:
    """Load the library that vLLM itself would choose; its Python package is not imported."""
    torch = load("torch")
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        raise Unavailable("not installed: no module named vllm")
    wide, bf16 = torch.cpu._is_avx512_supported(), torch.cpu._is_avx512_bf16_supported()
    name = "_C" if wide and bf16 else "_C_AVX512" if wide else "_C_AVX2"
    torch.ops.load_library(str(Path(found.submodule_search_locations[0]) / f"{name}.abi3.so"))
    return torch.ops._C.rotary_embedding


@peer("vLLM C++ operator", "in place")
def vllm_operator(data: Data) -> Run:
    """torch.ops._C.rotary_embedding; its table has the data's own dtype."""
    torch = torch_with(data.threads)
    operator = _vllm_operator()
    q, k = (as_torch(data.by_token(x)).view(data.work.batch * data.work.seq, -1) for x in (data.q, data.k))
    table = torch.from_numpy(np.concatenate([data.cos, data.sin], -1)).to(q.dtype)
    positions = torch.from_numpy(data.positions.reshape(-1))
    dim, is_neox = data.work.dim, half(data.work)
    return lambda: operator(positions, q, k, dim, table, is_neox)


# ---- ggml ----


@peer("ggml", "in place", "made")
def ggml_rope(data: Data) -> Run:
    """ggml_rope_ext_inplace of q and k in one graph."""
    data.need(dtype=("float32", "float16"))
    ggml = load("benchmarks.ggml")
    rope = ggml.Rope(data.work.layout, data.positions.reshape(-1), work.BASE, data.threads)
    for x in (data.q, data.k):
        if data.work.seq == 1:  # one token of each row: rows are ggml's tokens
            rope.add(x.reshape(1, data.work.batch, -1, data.work.dim), 1)
        else:
            rope.add(x, data.work.axes.index("S"))
    return rope.call()  # type: ignore[no-any-return]


# ---- onnxruntime ----


def _onnx_given(data: Data, domain: str) -> Run:
    data.need(dtype=("float32", "float16"))
    run: Run = load("benchmarks.onnx_rope").bound(data, domain)
    return run


@peer("onnxruntime, com.microsoft", "given")
def onnxruntime_contrib(data: Data) -> Run:
    """The operator of onnxruntime's own domain, inputs and outputs bound."""
    return _onnx_given(data, "com.microsoft")


@peer("onnxruntime, ai.onnx 23", "given")
def onnxruntime_standard(data: Data) -> Run:
    """The standard's operator, inputs and outputs bound."""
    return _onnx_given(data, "")


@peer("onnxruntime, ai.onnx 23", "new")
def onnxruntime_plain(data: Data) -> Run:
    """The same through session.run, which makes its outputs."""
    data.need(dtype=("float32", "float16"))
    session, inputs = load("benchmarks.onnx_rope").session(data, "")
    return lambda: session.run(None, inputs)


# ---- numba ----


@functools.cache
def _numba_loop(order: str, layout: str, parallel: bool) -> Callable[..., None]:
    loops = load("benchmarks.loops")
    loop: Callable[..., None] = getattr(loops, order)(loops.ROWS[layout], parallel)
    return loop


def _numba(data: Data, order: str, shape: tuple[int, int, int]) -> Run:
    data.need(dtype=("float32",))
    load("numba").set_num_threads(data.threads)
    loop = _numba_loop(order, data.work.layout, data.q.nbytes > SMALL)
    q, k = data.q.reshape(shape), data.k.reshape(shape)
    cos, sin, positions = data.cos, data.sin, data.positions.reshape(-1)

    def run() -> None:
        loop(q, cos, sin, positions)
        loop(k, cos, sin, positions)

    return run


@peer("numba loop", "in place")
def numba_loop(data: Data) -> Run:
    """The straight loop for the order of axes at hand, parallel over its first axis."""
    if long_heads(data.work):
        return _numba(data, "heads_first", (-1, data.work.seq, data.work.dim))
    tokens = data.work.batch * data.work.seq
    return _numba(data, "tokens_first", (tokens, -1, data.work.dim))


@peer("numba loop, blocked", "in place", fits=long_heads)
def numba_blocked(data: Data) -> Run:
    """The loop over heads in blocks of tokens, whose rows stay in cache."""
    return _numba(data, "heads_first_blocked", (-1, data.work.seq, data.work.dim))


# ---- jax ----


def _jax_rotation(data: Data) -> tuple[Any, Callable[..., Any]]:
    jax = load("jax")
    jax.config.update("jax_platforms", "cpu")
    jnp, layout = jax.numpy, data.work.layout

    def rotate_one(x: Any, cos: Any, sin: Any) -> Any:
        a, b = work.split(x.astype(jnp.float32), layout)
        first, second = a * cos - b * sin, b * cos + a * sin
        if layout == "half":
            return jnp.concatenate([first, second], -1).astype(x.dtype)
        return jnp.stack([first, second], -1).reshape(x.shape).astype(x.dtype)

    def rotate(q: Any, k: Any, cos: Any, sin: Any) -> Any:
        return rotate_one(q, cos, sin), rotate_one(k, cos, sin)

    return jax, rotate


@peer("jax.jit", "new")
def jax_jit(data: Data) -> Run:
    """The formula, compiled."""
    jax, rotate = _jax_rotation(data)
    compiled = jax.jit(rotate)
    arguments = [jax.numpy.array(x) for x in (data.q, data.k, *data.broadcast_rows)]
    return lambda: jax.block_until_ready(compiled(*arguments))


@peer("jax.jit, q and k donated", "new")
def jax_donated(data: Data) -> Run:
    """The same, allowed to reuse its inputs' memory; each call rotates the result of the last."""
    jax, rotate = _jax_rotation(data)
    compiled = jax.jit(rotate, donate_argnums=(0, 1))
    q, k, cos, sin = (jax.numpy.array(x) for x in (data.q, data.k, *data.broadcast_rows))
    state = [q, k]

    def run() -> Any:
        state[:] = jax.block_until_ready(compiled(*state, cos, sin))
        return state

    return run
