"""Benches of the verb add: sinusoidal tables of 8,192 positions, and positions added to (8, 2048, 1024) embeddings."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Angles, Bench, Candidate, Output, Run
from benchmarks.work import BASE, Array, to_float32

Builder = Callable[[int], Bench]

POSITIONS, DIM = 8192, 1024
BATCH, SEQ = 8, 2048
FILL, FILL_STREAM, SCALE = "fill", "fill, non-temporal stores", "in-place scale"


# ---- tables ----


class Table:
    """A table to make: its output, touched before, and the right answer."""

    def __init__(self, convention: str, threads: int) -> None:
        self.convention, self.threads = convention, threads
        self.out = limits.aligned((POSITIONS, DIM), np.float32)
        half = DIM // 2
        divisor = half if convention == "paper" else half - 1
        self.inv_freq: Array = BASE ** (-np.arange(half) / divisor)
        angles = np.arange(POSITIONS)[:, None] * self.inv_freq
        self.expected = np.empty((POSITIONS, DIM), np.float32)
        self.place(np.sin(angles), np.cos(angles), self.expected)

    def place(self, sin: Any, cos: Any, out: Any) -> None:
        """Put sines and cosines into columns."""
        if self.convention == "paper":
            out[:, 0::2], out[:, 1::2] = sin, cos
        else:
            out[:, : DIM // 2], out[:, DIM // 2 :] = sin, cos

    def refresh(self) -> None:
        """Nothing changes the inputs."""

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless this is the table; posenc's must be exact."""
        if not candidate.output:
            return
        found = to_float32(self.out if candidate.output == "given" else result).reshape(-1, DIM)[:POSITIONS]
        bound = 1.2e-7 if candidate.name.startswith("posenc") else 2e-7 * POSITIONS
        error = float(np.abs(found - self.expected).max())
        if not error <= bound:
            raise AssertionError(f"the table is off by {error:.2g}, allowed is {bound:.2g}")
        self.out.fill(np.nan)


def _posenc_table(table: Table, out: bool) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(table.threads)
    make, given, convention = posenc.sinusoidal_table, table.out if out else None, table.convention
    return lambda: make(POSITIONS, DIM, convention=convention, out=given)


def _numpy_table(table: Table) -> Run:
    positions, inv_freq = np.arange(POSITIONS, dtype=np.float32)[:, None], table.inv_freq.astype(np.float32)

    def run() -> None:
        angles = positions * inv_freq
        table.place(np.sin(angles), np.cos(angles), table.out)

    return run


def _torch_table(table: Table, compiled: bool) -> Run:
    torch = peers.torch_with(table.threads)
    out, inv_freq = torch.from_numpy(table.out), torch.from_numpy(table.inv_freq.astype(np.float32))

    def make(inv_freq: Any, out: Any) -> None:
        angles = torch.arange(POSITIONS, dtype=torch.float32)[:, None] * inv_freq
        table.place(angles.sin(), angles.cos(), out)

    run = torch.compile(make, dynamic=False) if compiled else make
    return lambda: run(inv_freq, out)


def _transformers_table(table: Table) -> Run:
    """M2M-100's and fairseq's own function."""
    if table.convention != "fairseq":
        raise peers.Unavailable("transformers has no function for interleaved tables")
    peers.torch_with(table.threads)
    modeling = peers.load("transformers.models.m2m_100.modeling_m2m_100")
    make = modeling.M2M100SinusoidalPositionalEmbedding.get_embedding
    return lambda: make(POSITIONS, DIM)


def _positional_encodings_table(table: Table) -> Run:
    if table.convention != "paper":
        raise peers.Unavailable("positional-encodings is interleaved only")
    torch = peers.torch_with(table.threads)
    module = peers.load("positional_encodings.torch_encodings").PositionalEncoding1D(DIM)
    like = torch.empty(1, 1, DIM).expand(1, POSITIONS, DIM)

    def run() -> Any:
        module.cached_penc = None  # else it is made once
        return module(like)

    return run


def _numba_table(table: Table) -> Run:
    numba = peers.load("numba")
    numba.set_num_threads(table.threads)
    loop = peers.load("benchmarks.loops").sinusoidal(table.convention == "paper")
    inv_freq = table.inv_freq.astype(np.float32)
    return lambda: loop(inv_freq, table.out)


_TABLES: tuple[tuple[str, Output, Angles, Callable[[Table], Run]], ...] = (
    (FILL, "", "", lambda table: limits.call("fill", (table.out,), threads=table.threads)),
    (FILL_STREAM, "", "", lambda table: limits.call("fill_stream", (table.out,), threads=table.threads)),
    ("posenc, sinusoidal_table", "given", "made", functools.partial(_posenc_table, out=True)),
    ("posenc, sinusoidal_table", "new", "made", functools.partial(_posenc_table, out=False)),
    ("NumPy float32", "given", "made", _numpy_table),
    ("torch", "given", "made", functools.partial(_torch_table, compiled=False)),
    ("torch.compile of the formula", "given", "made", functools.partial(_torch_table, compiled=True)),
    ("transformers, M2M-100", "new", "made", _transformers_table),
    ("positional-encodings", "new", "made", _positional_encodings_table),
    ("numba loop, float32", "given", "made", _numba_table),
)


def _table_bench(name: str, convention: str, threads: int) -> Bench:
    table = Table(convention, threads)
    found = [Candidate(row, output, angles, functools.partial(setup, table)) for row, output, angles, setup in _TABLES]
    title = f"Sinusoidal table, {POSITIONS} x {DIM}, float32, {convention}"
    return Bench(name, title, tuple(found), table.refresh, table.verify)


# ---- additions ----


class Sum:
    """Embeddings, a table to add to them, an output that was touched before, and the right answer."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        rng = np.random.default_rng(0)
        self.first: Array = rng.standard_normal((BATCH, SEQ, DIM), np.float32)
        self.x = limits.aligned((BATCH, SEQ, DIM), np.float32)
        self.out = limits.aligned((BATCH, SEQ, DIM), np.float32)
        posenc = peers.load("posenc")
        self.table: Array = posenc.sinusoidal_table(SEQ, DIM)
        self.expected = self.first + self.table

    def refresh(self) -> None:
        """Put the embeddings back, which additions in place have changed."""
        self.x[...] = self.first

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless this is the sum; exact where the table is ready."""
        if not candidate.output:
            return
        found = {"in place": self.x, "given": self.out}.get(candidate.output, result)
        error = float(np.abs(to_float32(found).reshape(self.expected.shape) - self.expected).max())
        bound = 1e-6 if candidate.angles == "ready" or candidate.name.startswith("posenc") else 2e-7 * SEQ
        if not error <= bound:
            raise AssertionError(f"the sum is off by {error:.2g}, allowed is {bound:.2g}")
        self.out.fill(np.nan)


def _posenc_sum(work: Sum, output: str) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(work.threads)
    add, x, table = posenc.add_positions, work.x, work.table
    out = {"new": None, "given": work.out}.get(output, x)
    return lambda: add(x, table, out=out)


def _posenc_listed(work: Sum) -> Run:
    """Positions of each batch row listed, as packed or padded batches have them."""
    posenc = peers.load("posenc")
    posenc.set_num_threads(work.threads)
    positions = np.tile(np.arange(SEQ), (BATCH, 1))
    return lambda: posenc.add_positions(work.x, work.table, positions=positions, out=work.x)


def _posenc_made(work: Sum) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(work.threads)
    return lambda: posenc.add_sinusoidal(work.x, out=work.x)


def _numpy_sum(work: Sum) -> Run:
    return lambda: np.add(work.x, work.table, out=work.x)


def _torch_sum(work: Sum, compiled: bool) -> Run:
    torch = peers.torch_with(work.threads)
    x, table = torch.from_numpy(work.x), torch.from_numpy(work.table)

    def add(x: Any, table: Any) -> None:
        x.add_(table)

    run = torch.compile(add, dynamic=False) if compiled else add
    return lambda: run(x, table)


def _transformers_sum(work: Sum) -> Run:
    """BART's learned layer, whose table has two rows in front, and the sum as its encoder writes it."""
    torch = peers.torch_with(work.threads)
    modeling = peers.load("transformers.models.bart.modeling_bart")
    layer = modeling.BartLearnedPositionalEmbedding(SEQ, DIM)
    x = torch.from_numpy(work.x)
    ids = torch.zeros(BATCH, SEQ, dtype=torch.long)
    with torch.no_grad():
        layer.weight[2:] = torch.from_numpy(work.table)

    def run() -> Any:
        with torch.no_grad():
            return x + layer(ids)

    return run


def _summer(work: Sum) -> Run:
    torch = peers.torch_with(work.threads)
    module = peers.load("positional_encodings.torch_encodings")
    summer, x = module.Summer(module.PositionalEncoding1D(DIM)), torch.from_numpy(work.x)
    return lambda: summer(x)


def _numba_sum(work: Sum, blocked: bool) -> Run:
    numba = peers.load("numba")
    numba.set_num_threads(work.threads)
    loops = peers.load("benchmarks.loops")
    loop = loops.addition_blocked() if blocked else loops.addition()
    return lambda: loop(work.x, work.table)


_SUMS: tuple[tuple[str, Output, Angles, Callable[[Sum], Run]], ...] = (
    (SCALE, "", "", lambda work: limits.call("scale", (work.x,), threads=work.threads)),
    ("posenc, add_positions", "in place", "ready", functools.partial(_posenc_sum, output="in place")),
    ("posenc, add_positions, listed", "in place", "ready", _posenc_listed),
    ("posenc, add_sinusoidal", "in place", "made", _posenc_made),
    ("posenc, add_positions", "given", "ready", functools.partial(_posenc_sum, output="given")),
    ("posenc, add_positions", "new", "ready", functools.partial(_posenc_sum, output="new")),
    ("NumPy", "in place", "ready", _numpy_sum),
    ("torch add_", "in place", "ready", functools.partial(_torch_sum, compiled=False)),
    ("torch.compile of add_", "in place", "ready", functools.partial(_torch_sum, compiled=True)),
    ("transformers, BART", "new", "ready", _transformers_sum),
    ("positional-encodings, Summer", "new", "made", _summer),
    ("numba loop", "in place", "ready", functools.partial(_numba_sum, blocked=False)),
    ("numba loop, blocked", "in place", "ready", functools.partial(_numba_sum, blocked=True)),
)


def _sum_bench(threads: int) -> Bench:
    work = Sum(threads)
    found = [Candidate(row, output, angles, functools.partial(setup, work)) for row, output, angles, setup in _SUMS]
    title = f"Positions added to ({BATCH}, {SEQ}, {DIM}), float32"
    return Bench("add-positions", title, tuple(found), work.refresh, work.verify)


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    tables = {
        f"add-table-{convention}": functools.partial(_table_bench, f"add-table-{convention}", convention)
        for convention in ("paper", "fairseq")
    }
    return {**tables, "add-positions": _sum_bench}
