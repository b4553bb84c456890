"""Benches of biases that content decides, added to scores in place: DeBERTa-v3's two terms, Transformer-XL's shift."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Bench, Candidate, Run
from benchmarks.work import Array, as_torch

Builder = Callable[[int], Bench]

HEADS, SEQ, BUCKETS, MOST = 12, 2048, 256, 512
SCALE = "in-place scale"


class Scores:
    """Scores of normal deviates, what is added to them, and the right answers."""

    def __init__(self, threads: int) -> None:
        random = np.random.default_rng(0)
        self.threads = threads
        self.x = limits.aligned((HEADS, SEQ, SEQ), np.float32)
        self._first = random.standard_normal((SEQ, SEQ), dtype=np.float32)
        self.of_query, self.of_key = (random.standard_normal((HEADS, SEQ, 2 * BUCKETS), np.float32) for _ in "qk")
        self.products = random.standard_normal((HEADS, SEQ, 2 * SEQ - 1), np.float32)

    def refresh(self) -> None:
        """Put the scores back to their first values, the same for every head."""
        self.x[...] = self._first

    @functools.cached_property
    def entries(self) -> Array:
        """Return which entry each distance looks up, by DeBERTa-v2's formula in float64, (queries, keys)."""
        u, middle = np.arange(SEQ)[:, None] - np.arange(SEQ), BUCKETS // 2
        far = np.log(np.maximum(np.abs(u), middle) / middle) / np.log((MOST - 1) / middle) * (middle - 1)
        bucket = np.where(np.abs(u) <= middle, u, np.sign(u) * (np.ceil(far) + middle)).astype(np.int64)
        return np.clip(bucket + BUCKETS, 0, 2 * BUCKETS - 1)

    def head(self, kind: str, head: int) -> Array:
        """Return what a head of a kind of work must be."""
        rows = np.arange(SEQ)[:, None]
        if kind == "shift":
            return self._first + self.products[head][rows, SEQ - 1 - rows + np.arange(SEQ)]
        found = self.of_query[head][rows, self.entries]
        if kind == "both":
            found = found + self.of_key[head][rows, self.entries.T].T
        return self._first + found

    def verify(self, kind: str, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless the terms were added once; three heads are looked at."""
        if candidate.output:
            for head in (0, 5, HEADS - 1):
                wrong = ~np.isclose(self.x[head], self.head(kind, head), rtol=1e-5, atol=1e-5)
                if wrong.any():
                    raise AssertionError(f"{wrong.sum()} of {wrong.size} entries of head {head} are wrong")


def _scale(scores: Scores, kind: str) -> Run:
    return limits.call("scale", (scores.x,), threads=scores.threads)


def _posenc(scores: Scores, kind: str) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(scores.threads)
    x, bias = scores.x, posenc.bias
    if kind == "shift":
        return lambda: bias.add_relative_shift(x, scores.products, convention="conformer", out=x)
    of_key = scores.of_key if kind == "both" else None
    how = {"c2p": scores.of_query, "p2c": of_key, "num_buckets": BUCKETS, "max_distance": MOST}
    return lambda: bias.add_disentangled_bias(x, **how, out=x)


def _torch(scores: Scores, kind: str, compiled: bool) -> Run:
    """Gather as modeling_deberta_v2.py does, its index at hand; or add posenc's view of the shift."""
    torch = peers.torch_with(scores.threads)
    x = as_torch(scores.x)
    if kind == "shift":
        view = peers.load("posenc").bias.relative_shift(as_torch(scores.products), convention="conformer")
        return lambda: x.add_(view) is None
    of_query, of_key = as_torch(scores.of_query), as_torch(scores.of_key)
    index = as_torch(scores.entries).expand(HEADS, -1, -1)

    def add(x: Any) -> Any:
        found = torch.gather(of_query, -1, index)
        return x.add_(found + torch.gather(of_key, -1, index.mT).mT if kind == "both" else found)

    add = torch.compile(add) if compiled else add
    return lambda: add(x) is None


def _bench(name: str, title: str, kind: str, threads: int) -> Bench:
    scores = Scores(threads)

    def candidate(label: str, setup: Callable[..., Run], *arguments: Any) -> Candidate:
        return Candidate(label, "in place", "", functools.partial(setup, scores, kind, *arguments))

    found = [Candidate(SCALE, "", "", functools.partial(_scale, scores, kind)), candidate("posenc", _posenc)]
    if kind == "shift":
        found.append(candidate("torch add_ of the shifted view", _torch, False))
    else:
        found.append(candidate("transformers' gathers", _torch, False))
        found.append(candidate("torch.compile of the gathers", _torch, True))
    return Bench(name, title, tuple(found), scores.refresh, functools.partial(scores.verify, kind))


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    shape = f"scores ({HEADS}, {SEQ}, {SEQ}), float32, in place"
    titles = {
        "deberta-both": ("both", f"DeBERTa-v3's two terms looked up and added, {shape}"),
        "deberta-c2p": ("c2p", f"DeBERTa-v3's c2p alone, {shape}"),
        "relative-shift": ("shift", f"Transformer-XL's shift added, {shape}"),
    }
    return {
        f"bias-{name}": functools.partial(_bench, f"bias-{name}", title, kind) for name, (kind, title) in titles.items()
    }
