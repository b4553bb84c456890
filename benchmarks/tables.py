"""Benches of tables: cosines and sines of 131,072 positions and 64 frequencies, float32."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Angles, Bench, Candidate, Output, Run
from benchmarks.work import BASE, Array, to_float32

Builder = Callable[[int], Bench]

POSITIONS, DIM, HIGHEST = 131_072, 128, 1_000_000
FILL, FILL_STREAM = "fill", "fill, non-temporal stores"


class Table:
    """What is made: positions, frequencies, outputs that were touched, and the right answer."""

    def __init__(self, positions: Array, threads: int) -> None:
        self.positions, self.threads = positions, threads
        self.inv_freq: Array = BASE ** (-np.arange(0, DIM, 2) / DIM)
        self.cos = limits.aligned((len(positions), DIM // 2), np.float32)
        self.sin = limits.aligned((len(positions), DIM // 2), np.float32)
        angles = positions[:, None] * self.inv_freq
        self.expected = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def refresh(self) -> None:
        """Nothing changes the inputs."""

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless these are cosines and sines; posenc's must be exact."""
        if not candidate.output:
            return
        found = (self.cos, self.sin) if candidate.output == "given" else result
        exact = candidate.name.startswith("posenc")
        bound = 1.2e-7 if exact else 2e-7 * float(self.positions.max())
        for name, mine, right in zip(("cos", "sin"), found, self.expected, strict=True):
            mine = to_float32(mine).reshape(len(right), -1)[:, : DIM // 2]
            error = float(np.abs(mine - right).max())
            if not error <= bound:
                raise AssertionError(f"{name} is off by {error:.2g}, allowed is {bound:.2g}")
        self.cos.fill(np.nan)
        self.sin.fill(np.nan)


def _limit(table: Table, kind: str) -> Run:
    return limits.call(kind, (table.cos, table.sin), threads=table.threads)


def _posenc_given(table: Table) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(table.threads)
    make, out = posenc.rotary_table, (table.cos, table.sin)
    return lambda: make(table.positions, table.inv_freq, out=out)


def _posenc_new(table: Table) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(table.threads)
    rope = posenc.Rope(DIM, layout="half", base=BASE)
    return lambda: rope.table(table.positions)


def _numpy(table: Table) -> Run:
    positions = table.positions.astype(np.float32)[:, None]
    inv_freq, angles = table.inv_freq.astype(np.float32), np.empty_like(table.cos)

    def run() -> None:
        np.multiply(positions, inv_freq, out=angles)
        np.cos(angles, out=table.cos)
        np.sin(angles, out=table.sin)

    return run


def _transformers(table: Table) -> tuple[Any, Any, Any]:
    """Return the embedding module, a tensor that tells it the dtype, and the position ids."""
    torch = peers.torch_with(table.threads)
    modeling = peers.load("transformers.models.llama.modeling_llama")
    config = modeling.LlamaConfig(head_dim=DIM, rope_parameters={"rope_type": "default", "rope_theta": BASE})
    positions = torch.from_numpy(table.positions)[None]
    return modeling.LlamaRotaryEmbedding(config), torch.empty(1), positions


def _transformers_eager(table: Table) -> Run:
    embedding, like, positions = _transformers(table)
    return lambda: embedding(like, positions)


def _transformers_compiled(table: Table) -> Run:
    embedding, like, positions = _transformers(table)
    compiled = peers.load("torch").compile(embedding, dynamic=False)
    return lambda: compiled(like, positions)


def _torch_compiled(table: Table) -> Run:
    torch = peers.torch_with(table.threads)
    positions = torch.from_numpy(table.positions)
    inv_freq = torch.from_numpy(table.inv_freq.astype(np.float32))
    cos, sin = torch.from_numpy(table.cos), torch.from_numpy(table.sin)

    def make(positions: Any, inv_freq: Any, cos: Any, sin: Any) -> None:
        angles = positions[:, None].float() * inv_freq
        cos.copy_(angles.cos())
        sin.copy_(angles.sin())

    compiled = torch.compile(make, dynamic=False)
    return lambda: compiled(positions, inv_freq, cos, sin)


def _numba(table: Table) -> Run:
    numba = peers.load("numba")
    numba.set_num_threads(table.threads)
    loop = peers.load("benchmarks.loops").table()
    inv_freq = table.inv_freq.astype(np.float32)
    return lambda: loop(table.positions, inv_freq, table.cos, table.sin)


_CANDIDATES: tuple[tuple[str, Output, Angles, Callable[[Table], Run]], ...] = (
    (FILL, "", "", functools.partial(_limit, kind="fill")),
    (FILL_STREAM, "", "", functools.partial(_limit, kind="fill_stream")),
    ("posenc, rotary_table", "given", "made", _posenc_given),
    ("posenc, Rope.table", "new", "made", _posenc_new),
    ("NumPy float32", "given", "made", _numpy),
    ("transformers", "new", "made", _transformers_eager),
    ("transformers, torch.compile", "new", "made", _transformers_compiled),
    ("torch.compile of the formula", "given", "made", _torch_compiled),
    ("numba loop, float32", "given", "made", _numba),
)


def _bench(name: str, title: str, positions: Array, threads: int) -> Bench:
    table = Table(positions, threads)
    found = [
        Candidate(row, output, angles, functools.partial(setup, table)) for row, output, angles, setup in _CANDIDATES
    ]
    return Bench(name, title, tuple(found), table.refresh, table.verify)


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    random = np.random.default_rng(0).integers(0, HIGHEST, POSITIONS)
    works = {
        "table-contiguous": ("positions 0 to 131,071", np.arange(POSITIONS)),
        "table-random": ("131,072 random positions below a million", random),
    }
    return {
        name: functools.partial(_bench, name, f"Table, 64 pairs, float32, {what}", positions)
        for name, (what, positions) in works.items()
    }
