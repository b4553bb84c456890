"""Benches of the check of attention: 12 layers x 12 heads x 2048 x 2048 weights, float32, against reading them once."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benchmarks import limits, peers
from benchmarks.harness import Bench, Candidate, Output, Run
from benchmarks.work import Array

Builder = Callable[[int], Bench]

LAYERS, HEADS, LENGTH, KINDS, RATE = 12, 12, 2048, 4, 0.01
READ = "one pass over the memory (NumPy's max)"
CHECK, ALL = "posenc, position_sanity_check", "posenc, the same with the laws of every head"


class Maps:
    """What is read, and its mean by distance in float64."""

    def __init__(self, causal: bool, threads: int) -> None:
        self.threads = threads
        rng = np.random.default_rng(0)
        distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
        kinds = []
        for _ in range(KINDS):
            weights = np.exp(rng.normal(size=(LENGTH, LENGTH)) - RATE * np.abs(distance))
            weights = np.where(distance >= 0, weights, 0) if causal else weights
            kinds.append((weights / weights.sum(1, keepdims=True)).astype(np.float32))
        self.maps = limits.aligned((LAYERS, HEADS, LENGTH, LENGTH), np.float32)
        for i, head in enumerate(np.ndindex(LAYERS, HEADS)):
            self.maps[head] = kinds[i % KINDS]
        self.expected = sum(self.by_distance(one) for one in kinds) / KINDS

    @staticmethod
    def by_distance(one: Array) -> Array:
        """Return the mean weight at each distance of the past."""
        wide = one.astype(np.float64)
        return np.array([np.trace(wide, -d) / (LENGTH - d) for d in range(LENGTH)])

    def refresh(self) -> None:
        """Nothing changes the maps."""

    def verify(self, candidate: Candidate, result: Any) -> None:
        """Raise AssertionError unless the mean weights by distance are right."""
        if not candidate.name.startswith(("posenc", "NumPy bincount")):
            return
        found = result if isinstance(result, np.ndarray) else result.past.mean_weight
        error = float(np.abs(found / self.expected[: len(found)] - 1).max())
        if not error < 1e-6:
            raise AssertionError(f"mean weights by distance are off by {error:.2g}")


def _read(maps: Maps) -> Run:
    layers = list(maps.maps.reshape(maps.threads, -1))
    if maps.threads == 1:
        return maps.maps.max
    pool = ThreadPoolExecutor(maps.threads)
    return lambda: list(pool.map(np.max, layers))


def _check(maps: Maps, every_head: bool) -> Run:
    posenc = peers.load("posenc")
    posenc.set_num_threads(maps.threads)
    check = posenc.checks.position_sanity_check

    def run() -> Any:
        report = check(maps.maps, sinks=0)
        if every_head:
            report.heads  # noqa: B018  made when first asked for
        return report

    return run


def _bincount(maps: Maps) -> Run:
    distance = (np.arange(LENGTH)[:, None] - np.arange(LENGTH) + LENGTH - 1).ravel()
    counts = np.arange(LENGTH, 0, -1)

    def run() -> Array:
        total = np.zeros(2 * LENGTH - 1)
        for head in maps.maps.reshape(-1, LENGTH * LENGTH):
            total += np.bincount(distance, head, minlength=2 * LENGTH - 1)
        return np.asarray(total[LENGTH - 1 :] / counts / (LAYERS * HEADS))

    return run


_CANDIDATES: tuple[tuple[str, Output, Callable[[Maps], Run]], ...] = (
    (READ, "", _read),
    (CHECK, "", functools.partial(_check, every_head=False)),
    (ALL, "", functools.partial(_check, every_head=True)),
    ("NumPy bincount, the mean by distance alone", "", _bincount),
)


def _bench(name: str, title: str, causal: bool, threads: int) -> Bench:
    maps = Maps(causal, threads)
    found = [Candidate(row, output, "", functools.partial(setup, maps)) for row, output, setup in _CANDIDATES]
    return Bench(name, title, tuple(found), maps.refresh, maps.verify)


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    works = {"attention-causal": ("causal", True), "attention-both-sides": ("bidirectional", False)}
    return {
        name: functools.partial(_bench, name, f"Attention check, 12 x 12 x 2048 x 2048 float32, {what}", causal)
        for name, (what, causal) in works.items()
    }
