"""Benches of the verb bias: ALiBi and T5 added to scores in place, and ALiBi built into a given array, float32."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Angles, Bench, Candidate, Output, Run, Unavailable
from benchmarks.work import Array, as_torch, to_float32

Builder = Callable[[int], Bench]

HEADS, SEQ, BUILT = 32, 2048, 4096
SCALE, FILL, FILL_STREAM = "in-place scale", "fill", "fill, non-temporal stores"


class Scores:
    """What is added to: scores of normal deviates, slopes, a table, and the right answers."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.x = limits.aligned((1, HEADS, SEQ, SEQ), np.float32)
        self._first = np.random.default_rng(0).standard_normal((1, 1, SEQ, SEQ), dtype=np.float32)
        self.slopes: Array = 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)
        self.table = np.random.default_rng(1).standard_normal((32, HEADS)).astype(np.float32)

    def refresh(self) -> None:
        """Put the scores back to their first values, the same for every head."""
        self.x[...] = self._first

    @property
    def distance(self) -> Array:
        """|i - j|, float32 (queries, keys)."""
        at = np.arange(SEQ, dtype=np.float32)
        return np.abs(at[:, None] - at)

    def buckets(self) -> Array:
        """Return T5's buckets of an encoder, by transformers' formula in float64."""
        u = np.arange(SEQ) - np.arange(SEQ)[:, None]
        far = 8 + np.trunc(np.log(np.maximum(np.abs(u), 1) / 8) / np.log(16) * 8 + 1e-9)
        return np.where(np.abs(u) < 8, np.abs(u), np.minimum(far, 15)).astype(np.int64) + 16 * (u > 0)

    def head(self, kind: str, head: int) -> Array:
        """Return what a head of a kind of work must be."""
        x = self._first[0, 0]
        if kind.startswith("t5"):
            return x + self.table[self.buckets(), head]
        found = x - self.slopes[head].astype(np.float32) * self.distance
        later = np.triu(np.ones((SEQ, SEQ), bool), 1)
        return {"causal": np.where(later, -np.inf, found), "skip": np.where(later, x, found)}.get(kind, found)

    def verify(self, kind: str, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless a bias was added once; three heads are looked at."""
        if candidate.output != "in place":
            return
        for head in (0, 7, HEADS - 1):
            wanted, found = self.head(kind, head), self.x[0, head]
            with np.errstate(invalid="ignore"):
                wrong = (found != wanted) & ~(np.abs(found - wanted) <= 1e-5 * (1 + np.abs(wanted)))
            if wrong.any():
                raise AssertionError(f"{wrong.sum()} of {wrong.size} entries of head {head} are wrong")


def _limit(array: Array, kind: str, threads: int) -> Run:
    return limits.call(kind, (array,), threads=threads)


# ---- scores ----


def _posenc(scores: Scores, kind: str, tensor: bool) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(scores.threads)
    x = as_torch(scores.x) if tensor else scores.x
    slopes, table = scores.slopes, scores.table
    if kind.startswith("t5"):
        return lambda: posenc.add_t5_bias(x, table, bidirectional=True, out=x)
    causal = {"causal": True, "skip": "skip"}.get(kind, False)
    return lambda: posenc.add_alibi(x, slopes, causal=causal, out=x)


def _dense(scores: Scores, kind: str) -> Array:
    """Return the whole bias that a framework keeps, 512 MiB."""
    if kind.startswith("t5"):
        found = np.ascontiguousarray(np.moveaxis(scores.table[scores.buckets()], -1, 0))
    else:
        found = -scores.slopes[:, None, None].astype(np.float32) * scores.distance
    if kind == "causal":
        found[:, np.triu(np.ones((SEQ, SEQ), bool), 1)] = -np.inf
    return found


def _torch_ready(scores: Scores, kind: str) -> Run:
    peers.torch_with(scores.threads)
    x, bias = as_torch(scores.x), as_torch(_dense(scores, kind))
    return lambda: x.add_(bias) is None


def _torch_build(scores: Scores, kind: str) -> Run:
    """Build as the models do, then add."""
    torch = peers.torch_with(scores.threads)
    x, slopes, table = as_torch(scores.x), as_torch(scores.slopes).float(), as_torch(scores.table)
    at, buckets = torch.arange(SEQ), as_torch(scores.buckets())
    later = torch.triu(torch.ones(SEQ, SEQ, dtype=torch.bool), 1)

    def run() -> None:
        if kind.startswith("t5"):
            x.add_(table[buckets].permute(2, 0, 1))
            return
        bias = -slopes[:, None, None] * (at[:, None] - at).abs()
        x.add_(bias.masked_fill_(later, -torch.inf) if kind == "causal" else bias)

    return run


def _torch_compile(scores: Scores, kind: str) -> Run:
    torch = peers.torch_with(scores.threads)
    x, slopes, table = as_torch(scores.x), as_torch(scores.slopes).float(), as_torch(scores.table)
    at, buckets = torch.arange(SEQ), as_torch(scores.buckets())

    def add(x: Any) -> Any:
        if kind.startswith("t5"):
            return x.add_(table[buckets].permute(2, 0, 1))
        u = at[:, None] - at
        y = x.add_(-slopes[:, None, None] * u.abs())
        return y.masked_fill_(u < 0, -torch.inf) if kind == "causal" else y

    compiled = torch.compile(add)
    return lambda: compiled(x) is None


def _numba(scores: Scores, kind: str) -> Run:
    numba = peers.load("numba")
    if kind not in ("plain", "causal", "skip"):
        raise Unavailable("written for ALiBi")
    numba.set_num_threads(scores.threads)
    causal, skip = kind == "causal", kind == "skip"

    @numba.njit(parallel=True)  # type: ignore[untyped-decorator]
    def add(x: Array, slopes: Array) -> None:
        for row in numba.prange(HEADS * SEQ):
            head, i = row // SEQ, row % SEQ
            for j in range(i + 1 if causal or skip else SEQ):
                x[head, i, j] -= slopes[head] * np.float32(abs(i - j))
            if causal:
                for j in range(i + 1, SEQ):
                    x[head, i, j] = -np.inf

    x, slopes = scores.x[0], scores.slopes.astype(np.float32)
    return lambda: add(x, slopes)


def _scores_bench(name: str, title: str, kind: str, threads: int) -> Bench:
    scores = Scores(threads)
    bind = functools.partial

    def candidate(label: str, setup: Callable[..., Run], *arguments: Any) -> Candidate:
        return Candidate(label, "in place", "", bind(setup, scores, kind, *arguments))

    found = [
        Candidate(SCALE, "", "", bind(_limit, scores.x, "scale", threads)),
        candidate("posenc", _posenc, False),
        candidate("posenc on torch tensors", _posenc, True),
        candidate("numba loop", _numba),
    ]
    if kind != "skip":  # which whole arrays cannot do
        found += _whole_arrays(candidate)
    return Bench(name, title, tuple(found), scores.refresh, bind(scores.verify, kind))


def _whole_arrays(candidate: Callable[..., Candidate]) -> list[Candidate]:
    return [
        candidate("torch add_ of a ready bias", _torch_ready),
        candidate("torch builds and adds", _torch_build),
        candidate("torch.compile builds and adds", _torch_compile),
    ]


# ---- the bias itself ----


class Built:
    """What is built: (32, 4096, 4096) into an array that was touched."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.out = limits.aligned((HEADS, BUILT, BUILT), np.float32)
        self.slopes: Array = 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)

    def refresh(self) -> None:
        """Nothing changes the inputs."""

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless three rows of three heads are right; MPT's rows differ by a constant each."""
        if not candidate.output:
            return
        found = self.out if candidate.output == "given" else to_float32(result).reshape(HEADS, BUILT, BUILT)
        for head in (0, 7, HEADS - 1):
            for i in (0, 1000, BUILT - 1):
                wanted = -self.slopes[head] * np.abs(np.arange(BUILT) - i)
                if not np.allclose(found[head, i], wanted, rtol=1e-5):
                    raise AssertionError(f"row {i} of head {head} is wrong")
        self.out.fill(np.nan)


def _posenc_built(built: Built) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(built.threads)
    return lambda: posenc.alibi_bias(built.slopes, BUILT, BUILT, out=built.out)


def _numpy_built(built: Built) -> Run:
    at, slopes = np.arange(BUILT, dtype=np.float32), -built.slopes[:, None, None].astype(np.float32)
    return lambda: np.multiply(slopes, np.abs(at[:, None] - at), out=built.out) is None


def _torch_built(built: Built) -> Run:
    torch = peers.torch_with(built.threads)
    slopes = -torch.from_numpy(built.slopes).float()[:, None, None]
    at = torch.arange(BUILT)
    return lambda: slopes * (at[:, None] - at).abs()


def _mpt_built(built: Built) -> Run:
    """llm-foundry's `build_alibi_bias(full=True)`, its lines."""
    torch = peers.torch_with(built.threads)

    def run() -> Any:
        alibi = torch.arange(1 - BUILT, 1, dtype=torch.int32).view(1, 1, 1, BUILT)
        alibi = alibi - torch.arange(1 - BUILT, 1, dtype=torch.int32).view(1, 1, BUILT, 1)
        alibi = alibi.abs().mul(-1)
        m = torch.arange(1, HEADS + 1, dtype=torch.float32).mul(8 / HEADS)
        return alibi * (1.0 / torch.pow(2, m)).view(1, HEADS, 1, 1)

    return run


def _jax_built(built: Built) -> Run:
    jax = peers.load("jax")
    jnp = jax.numpy
    slopes, at = -jnp.asarray(built.slopes, jnp.float32)[:, None, None], jnp.arange(BUILT)
    make = jax.jit(lambda: slopes * abs(at[:, None] - at))
    return lambda: make().block_until_ready()


def _built_bench(name: str, title: str, threads: int) -> Bench:
    built = Built(threads)

    def candidate(label: str, output: Output, setup: Callable[[Built], Run]) -> Candidate:
        angles: Angles = ""
        return Candidate(label, output, angles, functools.partial(setup, built))

    limit = functools.partial(_limit, built.out)
    found = [
        Candidate(FILL, "", "", functools.partial(limit, "fill", threads)),
        Candidate(FILL_STREAM, "", "", functools.partial(limit, "fill_stream", threads)),
        candidate("posenc", "given", _posenc_built),
        candidate("NumPy", "given", _numpy_built),
        candidate("torch", "new", _torch_built),
        candidate("MPT's builder", "new", _mpt_built),
        candidate("jax.jit", "new", _jax_built),
    ]
    return Bench(name, title, tuple(found), built.refresh, built.verify)


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    shape = f"scores (1, {HEADS}, {SEQ}, {SEQ}), float32, in place"
    titles = {
        "plain": f"ALiBi added, {shape}",
        "causal": f"ALiBi added and -inf after the query, {shape}",
        "skip": f"ALiBi added up to the query, {shape}",
        "t5": f"T5's bias looked up and added, {shape}",
    }
    names = {kind: "bias-t5" if kind == "t5" else f"bias-alibi-{kind}" for kind in titles}
    found: dict[str, Builder] = {
        names[kind]: functools.partial(_scores_bench, names[kind], title, kind) for kind, title in titles.items()
    }
    title = f"ALiBi built, ({HEADS}, {BUILT}, {BUILT}), float32"
    found["bias-alibi-built"] = functools.partial(_built_bench, "bias-alibi-built", title)
    return found
