"""Scalings given what they cannot use: which error, and what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from posenc import scaling

ONES = (1.0,) * 4
WRONG = [
    (lambda: scaling.Linear(0), ValueError, "factor must be positive and finite, got 0"),
    (lambda: scaling.Linear("4"), TypeError, "factor must be a number, got '4'"),
    (lambda: scaling.Linear(math.nan), ValueError, "factor must be positive and finite, got nan"),
    (lambda: scaling.NTK(-1.0), ValueError, "factor must be positive and finite, got -1.0"),
    (lambda: scaling.NTK(2.0).frequencies(2, 1e4), ValueError, "rotary_dim above 2 .*, got 2"),
    (lambda: scaling.KerasDynamic(2.0).frequencies(2, 1e4), ValueError, "rotary_dim above 2 .*, got 2"),
    (lambda: scaling.DynamicNTK(2.0, 16).frequencies(2, 1e4, 32), ValueError, "rotary_dim above 2 .*, got 2"),
    (lambda: scaling.DynamicNTK(2.0, 0), ValueError, "original_max_position_embeddings must be at least 1, got 0"),
    (lambda: scaling.DynamicNTK(2.0, 2.5), TypeError, "original_max_position_embeddings must be an integer, got 2.5"),
    (lambda: scaling.NTKByParts(2.0, 2048, ntk_factor=1.5), ValueError, "ntk_factor must be between 0 and 1, got 1.5"),
    (lambda: scaling.Llama3(high_freq_factor=0.5), ValueError, r"high_freq_factor must be at least low_.*, got 0.5"),
    (lambda: scaling.Llama3(low_freq_factor=0), ValueError, "low_freq_factor must be positive and finite, got 0"),
    (lambda: scaling.Yarn(0.5, 4096), ValueError, "factor must be at least 1, got 0.5"),
    (lambda: scaling.Yarn(2.0, 4096, beta_fast=1, beta_slow=2), ValueError, r"beta_fast must be at least beta_slow"),
    (lambda: scaling.Yarn(2.0, 4096, truncate=1), TypeError, "truncate must be True or False, got 1"),
    (lambda: scaling.Yarn(2.0, 4096, mscale=-1), ValueError, "mscale must be at least 0, got -1"),
    (lambda: scaling.Yarn(2.0, 4096, mscale_rule="hf"), ValueError, "mscale_rule must be one of 'transformers'.*'hf'"),
    (lambda: scaling.Yarn(2.0, 4096, mscale=1, mscale_rule="ggml"), ValueError, "mscale_rule 'ggml' has no mscale"),
    (lambda: scaling.Yarn(2.0, 4096, mscale=1, attention_factor=1), ValueError, "attention_factor excludes mscale"),
    (lambda: scaling.Yarn(2.0, 4).frequencies(64, 1e4), ValueError, "no pair of 32 turns between 1 and 32 times"),
    (lambda: scaling.Yarn(2.0, 4096).frequencies(64, 1.0), ValueError, "needs a base above 1, got 1.0"),
    (lambda: scaling.LongRope(ONES, ONES[:3], 4096, factor=2), ValueError, "must have one length, got 4 and 3"),
    (lambda: scaling.LongRope(ONES, (1, 2, 0, 1), 4096, factor=2), ValueError, r"long_factor\[2\] must be positive"),
    (lambda: scaling.LongRope(ONES, ONES, 4096), ValueError, "LongRope needs factor"),
    (lambda: scaling.LongRope(ONES, ONES, 1, factor=2), ValueError, "original_max_position_embeddings must be above 1"),
    (lambda: scaling.LongRope(ONES, ONES, 9, factor=2, switch="x"), ValueError, "switch must be one of 'length'"),
    (lambda: scaling.LongRope(ONES, ONES, 9, attention_factor=2, long_mscale=1), ValueError, "excludes short_mscale"),
    (lambda: scaling.LongRope(ONES, ONES, 9, factor=2).frequencies(6, 1e4), ValueError, "must have 3 numbers .* got 4"),
    (lambda: scaling.Proportional(1.5), ValueError, "partial_rotary_factor must be between 0 and 1, got 1.5"),
    (lambda: scaling.Periods((1.0, 0.0)), ValueError, r"periods\[1\] must be positive and finite, got 0.0"),
    (lambda: scaling.Divisors(()), ValueError, "divisors must not be empty"),
    (lambda: scaling.Divisors(3.0), TypeError, "divisors must be a sequence of numbers, got 3.0"),
    (lambda: scaling.InverseFrequencies((1.0, math.inf)), ValueError, r"inv_freq\[1\] must be finite, got inf"),
    (lambda: scaling.Periods((1.0,)).frequencies(4, 1e4), ValueError, "periods must have 2 numbers .* got 1"),
    (lambda: scaling.VllmNTK(2.0, 0.0), ValueError, "mixed_b must be positive and finite, got 0.0"),
    (lambda: scaling.Linear(2.0).frequencies(8, 1e4, None, "double"), ValueError, "precision must be one of 'exact'"),
    # frequencies() is called by whoever writes a scaling of their own: what it is given reaches C
    (lambda: scaling.Linear(2.0).frequencies(-1, 1e4), ValueError, "rotary_dim must be at least 2, got -1"),
    (lambda: scaling.Linear(2.0).frequencies(0, 1e4), ValueError, "rotary_dim must be at least 2, got 0"),
    (lambda: scaling.Linear(2.0).frequencies(7, 1e4), ValueError, "rotary_dim must be even, got 7"),
    (lambda: scaling.Linear(2.0).frequencies(8.0, 1e4), TypeError, "rotary_dim must be an integer, got 8.0"),
    (lambda: scaling.Linear(2.0).frequencies(1 << 70, 1e4), ValueError, "rotary_dim must be at most"),
    (lambda: scaling.Yarn(2.0, 64).frequencies(-2, 1e4, None, "float32"), ValueError, "rotary_dim must be at least 2"),
    (lambda: scaling.Linear(2.0).frequencies(8, -1.0), ValueError, "base must be positive and finite, got -1.0"),
    (lambda: scaling.Linear(2.0).frequencies(8, math.nan, None, "float32"), ValueError, "base must be positive"),
]


@pytest.mark.parametrize(("make", "kind", "message"), WRONG)
def test_refused(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize("name", scaling.REFUSED)
def test_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"scaling '{name}' is refused: "):
        scaling.by_name(name, factor=2.0)
