"""Identification of sinusoidal tables, of others' code and of mistakes in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import posenc
from posenc.checks import explain_mismatch, identify

Array = np.ndarray


def angles(p: Any, dim: int, divisor: float | None = None, base: float = 10000.0) -> Array:
    half = dim // 2
    return np.outer(np.asarray(p, np.float64), base ** (-np.arange(half) / (half if divisor is None else divisor)))


def paper(p: Any, dim: int = 64, **how: Any) -> Array:
    a = angles(p, dim, **how)
    return np.stack([np.sin(a), np.cos(a)], -1).reshape(len(a), dim).astype(np.float32)


def halves(p: Any, dim: int = 64, **how: Any) -> Array:
    a = angles(p, dim, **how)
    return np.concatenate([np.sin(a), np.cos(a)], -1).astype(np.float32)


def fairseq(p: Any) -> Array:
    """padding_idx 1: its row is zero."""
    table = halves(p, divisor=31)
    table[np.asarray(p) == 1] = 0
    return table


@pytest.mark.parametrize(
    ("fn", "facts"),
    [
        (paper, {"convention": "paper", "base": 10000, "position_offset": 0, "padding_idx": None}),
        (halves, {"convention": "concatenated", "base": 10000}),
        (lambda p: halves(p, divisor=31), {"convention": "tensor2tensor", "base": 10000}),
        (fairseq, {"convention": "tensor2tensor", "padding_idx": 1}),
        (lambda p: np.roll(halves(p), 32, axis=1), {"convention": "cos_first", "base": 10000}),
        (lambda p: paper(p + 2), {"convention": "paper", "position_offset": 2}),
        (lambda p: paper(p, base=500.0), {"convention": "paper", "base": 500}),
        (lambda p: np.sqrt(2 / 64) * halves(p, divisor=31), {"convention": "mlx", "base": 10000}),
    ],
)
def test_identified(fn: Any, facts: dict[str, Any]) -> None:
    found = identify(fn, kind="table")
    assert found.ok, str(found)
    assert {key: found.facts[key] for key in facts} == facts
    where = np.array([0, 1, 7, 1000])
    assert np.allclose(found.reproduce(where), fn(where), atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_another_spacing_with_another_base_is_the_same_table(base: float, dtype: Any) -> None:
    """base ** (-i/31) is (base ** (32/31)) ** (-i/32): the plain base is the one that was meant, in float64 too."""
    freq = np.exp(np.arange(32) * -(np.log(base) / 31))

    def by_its_code(p: Any) -> Array:
        a = np.outer(p, freq)
        return np.concatenate([np.sin(a), np.cos(a)], -1).astype(dtype)

    found = identify(by_its_code, kind="table")
    assert (found.facts["convention"], found.facts["base"]) == ("tensor2tensor", base)


DIMS = [(name, dim) for name in posenc.additive.CONVENTIONS for dim in (64, 65) if (name, dim) != ("mlx", 65)]


@pytest.mark.parametrize(("convention", "dim"), DIMS)
def test_every_convention_reproduces(convention: str, dim: int) -> None:
    def fn(p: Array) -> Array:
        return posenc.sinusoidal_table(p, dim, convention=convention)

    found = identify(fn, kind="table")
    assert found.ok, str(found)
    assert found.residual < 2e-6
    assert np.allclose(found.reproduce(np.arange(9)), fn(np.arange(9)), atol=1e-6)


def test_transformers_and_short_tables() -> None:
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.m2m_100.modeling_m2m_100")
    module = modeling.M2M100SinusoidalPositionalEmbedding(512, 64, padding_idx=1)
    found = identify(lambda p: module.weights[p], kind="table", like=torch.ones(1))
    assert found.ok, str(found)
    assert found.facts["convention"] in ("fairseq", "tensor2tensor")
    assert (found.facts["padding_idx"], found.facts["base"]) == (1, 10000)


@pytest.mark.parametrize(
    "fn",
    [
        lambda p: np.random.default_rng(0).standard_normal((len(p), 64)),
        lambda p: np.zeros((len(p), 64)),
        lambda p: paper(p) * np.linspace(1, 2, 64),
        lambda p: np.sin(angles(p, 128)),
    ],
)
def test_unknown(fn: Any) -> None:
    found = identify(fn, kind="table")
    assert not found.ok
    assert "unknown" in found.name


WHERE = np.arange(200)


@pytest.mark.parametrize(
    ("actual", "expected", "fault"),
    [
        (halves(WHERE), paper(WHERE), "convention"),
        (halves(WHERE, divisor=31), halves(WHERE), "convention"),
        (fairseq(WHERE), halves(WHERE, divisor=31), "convention"),
        (paper(WHERE + 2), paper(WHERE), "offset"),
        (paper(WHERE, base=1000.0), paper(WHERE), "base"),
        (paper(WHERE).astype(np.float16).astype(np.float32), paper(WHERE), "half_tables"),
        (paper(WHERE), paper(WHERE), "none"),
        (paper(WHERE) + 0.1, paper(WHERE), "unknown"),
    ],
)
def test_explained(actual: Array, expected: Array, fault: str) -> None:
    found = explain_mismatch(actual, expected, kind="table")
    assert found.fault == fault, str(found)


@pytest.mark.parametrize("first", [0, 7, 300])
def test_rows_that_begin_anywhere_are_explained(first: int) -> None:
    p = np.arange(first, first + 100)
    right = paper(p)
    for actual, fault, text in ((halves(p), "convention", "concatenated, expected paper"),
                                (paper(p + 3), "offset", "3.0, expected 0.0"),
                                (paper(p, base=500.0), "base", "500.0, expected 10000.0")):  # fmt: skip
        found = explain_mismatch(actual, right, kind="table", positions=p)
        assert (found.fault, text in str(found.finding)) == (fault, True), str(found)
    zero = right.copy()
    zero[1] = 0
    assert f"row {first + 1} zero" in str(explain_mismatch(zero, right, kind="table", positions=p).finding)


def test_too_few_rows_to_explain() -> None:
    for p in ([5], [0], [0, 3, 17]):
        found = explain_mismatch(halves(p), paper(p), kind="table", positions=p)
        assert (found.ok, found.fault) == (False, "unknown")
    with pytest.raises(ValueError, match=r"positions must have shape \(2,\) for tables of 2 rows, got \(3,\)"):
        explain_mismatch(paper([0, 1]), paper([1, 2]), kind="table", positions=[0, 1, 2])
