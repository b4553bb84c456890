"""Biases that content decides, against the in-place scale of the same scores and what model code does.

    python -m benchmarks.relative [--threads 1] [--seq 2048]

Each candidate is checked against posenc's result before it is timed; the best of some runs, in turn, in one process.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import posenc
from posenc import bias

Candidate = Callable[[torch.Tensor], Any]


def candidates(heads: int, seq: int) -> dict[str, Candidate]:
    """Return what adds DeBERTa-v3's terms to scores in place, and Transformer-XL's shift."""
    generator = torch.Generator().manual_seed(0)
    c2p, p2c = (torch.randn(heads, seq, 512, generator=generator) for _ in "ab")
    products = torch.randn(heads, seq, 2 * seq - 1, generator=generator)
    distance = np.arange(seq)[:, None] - np.arange(seq)
    index = torch.from_numpy(bias.deberta_index(distance, 256, num_buckets=256, max_distance=512)).expand(heads, -1, -1)
    how = {"c2p": c2p, "p2c": p2c, "num_buckets": 256, "max_distance": 512}

    def gathered(x: torch.Tensor) -> torch.Tensor:  # modeling_deberta_v2.py, its index at hand
        theirs = torch.gather(c2p, -1, index) + torch.gather(p2c, -1, index.mT).mT
        return x.add_(theirs)

    compiled = torch.compile(gathered)
    return {
        "posenc, both": lambda x: bias.add_disentangled_bias(x, **how, out=x),
        "posenc, c2p alone": lambda x: bias.add_disentangled_bias(x, **how | {"p2c": None}, out=x),
        "transformers' gathers": gathered,
        "torch.compile of them": compiled,
        "posenc, shift": lambda x: bias.add_relative_shift(x, products, convention="conformer", out=x),
        "torch, shift as a view": lambda x: x.add_(bias.relative_shift(products, convention="conformer")),
    }


def verify(named: dict[str, Candidate], x: torch.Tensor) -> None:
    """The candidates of each kind agree."""
    for first, others in (
        ("posenc, both", ("transformers' gathers", "torch.compile of them")),
        ("posenc, shift", ("torch, shift as a view",)),
    ):
        wanted = named[first](x.clone())
        for other in others:
            torch.testing.assert_close(named[other](x.clone()), wanted, rtol=1e-5, atol=1e-5)


def best(call: Candidate, x: torch.Tensor, runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call(x)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    posenc.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    x = torch.zeros(options.heads, options.seq, options.seq)
    named = candidates(options.heads, options.seq)
    verify(named, x)
    scale = best(lambda x: x.mul_(0.5), x, options.runs)
    print(f"in-place scale of {tuple(x.shape)}: {1e3 * scale:.1f} ms, {options.threads} thread(s)")
    for name, call in named.items():
        taken = best(call, x, options.runs)
        print(f"{name:26} {1e3 * taken:8.1f} ms   {taken / scale:6.2f} of the scale")


if __name__ == "__main__":
    main()
