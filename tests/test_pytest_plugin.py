"""The pytest plugin in a pytest of its own, and the asserts and strategies of posenc.testing."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import run_python
from posenc import testing

pytest_plugins = ["pytester"]
Rope = posenc.Rope

SUITE = """
    import numpy as np
    import posenc
    rope = posenc.Rope(32, layout="half")

    def right(x, positions):
        return rope(x, positions=positions)

    def late(x, positions):
        return rope(x, positions=positions + 3)

    def test_right(assert_rope, assert_rope_matches, assert_relative, assert_isometry, assert_offset_equals_prefill,
                   assert_packed_equals_separate, assert_left_padding):
        for each in (assert_rope, assert_rope_matches, assert_relative, assert_isometry, assert_offset_equals_prefill,
                     assert_packed_equals_separate, assert_left_padding):
            each(right, rope)

    def test_late(assert_rope_matches):
        assert_rope_matches(late, rope)

    def test_explained(assert_explained):
        x = np.ones((1, 2, 9, 32), np.float32)
        assert_explained(late(x, np.arange(9)), x=x, rope=rope)
"""


def test_fixtures_fail_with_a_diagnosis(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    text = result.stdout.str()
    assert text.count("offset: positions +3 (residual") >= 2
    assert "first bad index" in text
    assert "ulp" in text
    assert "usual cause" in text
    assert "testing.py" not in text.split("short test summary")[0].split("____ test_late")[1].split("AssertionError")[0]


def test_it_can_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess("-p", "no:posenc", "--fixtures")
    assert "assert_rope_matches" not in result.stdout.str()


def test_loading_it_loads_no_numpy() -> None:
    code = "import sys, posenc_pytest; print(sorted({'numpy', 'torch', 'posenc', 'hypothesis'} & set(sys.modules)))"
    assert run_python(code) == "[]"
    code = "import sys, posenc.testing; print(sorted({'torch', 'pytest', 'hypothesis'} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_every_assert_is_a_fixture() -> None:
    import posenc_pytest

    for name in testing.CHECKS:
        assert callable(getattr(testing, name))
        assert hasattr(posenc_pytest, name)


ROPE = Rope(32, layout="half")


def right(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return ROPE(x, positions=positions)


def no_rotation(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Norms grow with the position."""
    return (x * (1 + positions[:, None] / 1000)).astype(np.float32)


def counts_itself(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return ROPE(x)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("assert_rope", counts_itself),
        ("assert_rope_matches", counts_itself),
        ("assert_relative", no_rotation),
        ("assert_isometry", no_rotation),
        ("assert_offset_equals_prefill", counts_itself),
        ("assert_packed_equals_separate", counts_itself),
        ("assert_left_padding", counts_itself),
    ],
)
def test_each_assert_can_fail(name: str, wrong: Any) -> None:
    check = getattr(testing, name)
    check(right, ROPE)
    with pytest.raises(AssertionError, match=r"FAIL|NOT a right"):
        check(wrong, ROPE)


def test_attention_decays() -> None:
    distance = np.arange(48)[:, None] - np.arange(48)
    for rate in (0.1, 0.0):
        weights = np.where(distance >= 0, np.exp(-rate * distance), 0.0)
        weights /= weights.sum(axis=-1, keepdims=True)
        if rate:
            testing.assert_attention_decays(weights)
        else:
            with pytest.raises(AssertionError, match="flat"):
                testing.assert_attention_decays(weights)


def test_what_needs_no_rope_takes_a_head_dim() -> None:
    testing.assert_isometry(right, 32)
    testing.assert_relative(right, 32)
    with pytest.raises(TypeError, match=r"rope must be a posenc\.Rope, got 32"):
        testing.assert_rope_matches(right, 32)


def test_a_function_that_raises_fails_with_its_words() -> None:
    def broken(x: Any, positions: Any) -> Any:
        raise RuntimeError("no kernel for this")

    with pytest.raises(AssertionError, match="raises RuntimeError: no kernel for this") as caught:
        testing.assert_isometry(broken, 32)
    assert "the question got no answer" in str(caught.value)
    assert "changes norms" not in str(caught.value)  # nothing is known of them


# ---- strategies


@settings(derandomize=True, deadline=None, max_examples=30)
@given(data=st.data(), rope=testing.ropes(), where=testing.position_ids(6))
def test_strategies(data: st.DataObject, rope: posenc.Rope, where: np.ndarray) -> None:
    x = data.draw(testing.heads(rope, seq=6))
    assert x.shape == (1, 2, 6, rope.head_dim)
    assert x.dtype == np.float32
    assert where.shape == (6,)
    assert where.dtype == np.int64
    assert 0 <= where.min() <= where.max() <= 131071
    assert np.array_equal(rope(x, positions=where)[..., :3, :], rope(x[..., :3, :], positions=where[:3]))


def test_one_layout_alone() -> None:
    from hypothesis import find

    assert find(testing.ropes(layout="interleaved"), lambda rope: True).layout == "interleaved"
    assert sys.modules["hypothesis"]
