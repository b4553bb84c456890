"""Rotations broken as users report them: identified, explained, and refused by the checks."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import posenc
from broken import BROKEN, HEAD, Broken, right
from posenc import checks, scaling
from posenc.checks._faults import FAULTS

named = pytest.mark.parametrize("case", BROKEN, ids=str)
LIMIT = 2.0  # seconds for one identification


def wanted(case: Broken) -> posenc.Rope:
    arguments: dict[str, Any] = {"layout": "half", **case.expected}
    if "scaling" in arguments:
        name, *parameters = arguments["scaling"]
        arguments["scaling"] = getattr(scaling, name)(*parameters)
    return posenc.Rope(HEAD, **arguments)


def made(case: Broken) -> Any:
    """Return the function, one that remembers being new."""
    return case.fn() if isinstance(case.fn, type) else case.fn


def sample(case: Broken, rng: np.random.Generator, most: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Return x and positions: a short sequence, then far tokens."""
    rope = wanted(case)
    x = rng.standard_normal((1, 4, 48, HEAD)).astype(np.float32)
    if rope.axes > 1:
        return x, rng.integers(0, 3000, (rope.axes, 48))
    return x, np.r_[np.arange(24), np.sort(rng.choice(np.arange(24, most), 24, replace=False))]


def test_there_are_enough() -> None:
    assert len(BROKEN) >= 25
    assert {case.fault for case in BROKEN} <= set(FAULTS)
    assert len({case.fault for case in BROKEN}) >= 25


@named
def test_identify_names_the_fault(case: Broken) -> None:
    start = time.process_time()  # of this process alone, whoever else is at work
    found = checks.identify(made(case), HEAD, expected=wanted(case))
    assert time.process_time() - start < LIMIT
    assert case.fault in [fault.fault for fault in found.faults], str(found)
    assert not found.ok


@pytest.mark.parametrize("case", [case for case in BROKEN if case.intrinsic], ids=str)
def test_identify_names_the_fault_without_being_told(case: Broken) -> None:
    found = checks.identify(made(case), HEAD, axes=wanted(case).axes)
    assert case.fault in [fault.fault for fault in found.faults], str(found)
    assert not found.ok


@pytest.mark.parametrize("case", [case for case in BROKEN if case.fault != "state"], ids=str)
def test_explain_mismatch_names_the_fault(case: Broken, rng: np.random.Generator) -> None:
    rope = wanted(case)
    x, positions = sample(case, rng, most=4000 if case.name == "always_the_long_list" else 20000)
    actual, expected = made(case)(x, positions), rope(x, positions=positions)
    found = checks.explain_mismatch(actual, expected, x=x, rope=rope, positions=positions)
    assert found.fault == case.fault, str(found)
    assert not found.ok
    assert found.first_bad is not None
    assert found.max_ulp > 100


def test_explain_mismatch_after_a_long_call(rng: np.random.Generator) -> None:
    """The numbers alone say which length they are of; that an earlier call did it, only calls can show."""
    case = next(case for case in BROKEN if case.fault == "state")
    fn, rope = made(case), wanted(case)
    x = rng.standard_normal((1, 4, 48, HEAD)).astype(np.float32)
    fn(x, np.repeat([0, 9000], 24))
    found = checks.explain_mismatch(fn(x, np.arange(48)), x=x, rope=rope)
    assert (found.fault, "9001" in str(found.finding)) == ("length", True), str(found)


@named
def test_check_rope_refuses_it(case: Broken) -> None:
    found = checks.check_rope(made(case), wanted(case))
    assert not found
    assert any(not p.ok for p in found.properties)
    assert "usual cause" in str(found)
    assert found.diagnosis is not None


def test_not_a_number_fails() -> None:
    """Positions of float16 have none above 65504, and the result is NaN there."""
    case = next(case for case in BROKEN if case.name == "positions_in_float16")
    report = checks.check_rope(made(case), wanted(case))
    for name in ("rope_matches", "isometry", "relative", "inverse"):
        assert not report[name].ok


def test_what_is_no_number_at_all() -> None:
    found = checks.identify(lambda x, p: x * np.nan, HEAD)
    assert found.name == "unknown: no output is a finite number"


def test_the_length_decides_in_short_calls_too() -> None:
    """The long list of LongRoPE in every call is right in a long one; what calls of a few tokens get is not."""
    case = next(case for case in BROKEN if case.name == "always_the_long_list")
    found = checks.rope_matches(case.fn, wanted(case))
    assert not found
    assert "of a call of 8 tokens" in found.where


def test_a_wider_result_is_named_and_a_narrower_one_refused() -> None:
    rope = posenc.Rope(HEAD, layout="half")
    wider = checks.dtypes(lambda x, p: right(x, p).astype(np.float64), rope)
    assert wider.ok
    assert "promoted by wider tables: float32 in, float64 out, float16 in, float64 out" in wider.where
    narrower = checks.dtypes(lambda x, p: right(x, p).astype(np.float16), rope)
    assert not narrower.ok
    assert narrower.where == "float32 in, float16 out"
    same = checks.dtypes(lambda x, p: right(x, p).astype(x.dtype), rope)
    assert same.ok
    assert "promoted" not in same.where


def test_the_right_one_is_right() -> None:
    """The same code without a mistake: nothing is found."""
    rope = posenc.Rope(HEAD, layout="half")
    found = checks.identify(right, HEAD, expected=rope)
    assert found.ok
    assert found.rope == rope
    assert found.faults == ()
    assert found.residual < 1e-6
    report = checks.check_rope(right, rope)
    assert report.ok, str(report)
    assert "promoted by wider tables: float16 in, float32 out" in report["dtypes"].where
    x = np.ones((1, 2, 9, HEAD), np.float32)
    assert checks.explain_mismatch(right(x, np.arange(9)), x=x, rope=rope).fault == "none"
