"""explain_mismatch: what it is given, what it refuses, and what it does not claim to know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import posenc
from posenc.checks import explain_mismatch

Rope = posenc.Rope
ROPE = Rope(64, layout="half")


def x_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).standard_normal(shape).astype(np.float32)


X = x_of(1, 4, 40, 64)


@pytest.mark.parametrize(
    "rope",
    [ROPE, Rope(64, layout="interleaved", base=5e5), Rope(96, layout="half", rotary_dim=32, rotary_offset=8)],
)
def test_without_a_rope_it_is_read_from_x_and_expected(rope: Rope) -> None:
    x = x_of(2, 3, 40, rope.head_dim)
    found = explain_mismatch(rope(x, offset=2), rope(x), x=x)
    assert (found.fault, str(found.finding).startswith("offset: positions +2")) == ("offset", True), str(found)
    assert explain_mismatch(rope(x), rope(x), x=x).ok


def test_expected_alone_is_un_rotated() -> None:
    found = explain_mismatch(ROPE(X, positions=-np.arange(40)), ROPE(X), rope=ROPE)
    assert found.fault == "clockwise"


def test_two_tensors_alone() -> None:
    turned = ROPE(X)
    order = np.arange(64).reshape(2, 32).T.ravel()
    assert explain_mismatch(turned[..., order], turned).fault == "layout"
    assert explain_mismatch(1.25 * turned, turned).fault == "attention_factor"
    assert explain_mismatch(turned.astype(np.float16), turned).fault == "half_arithmetic"
    assert explain_mismatch(turned, turned).fault == "none"
    assert explain_mismatch(ROPE(X, offset=1), turned).fault == "unknown"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda c, s: (c, s), "none"),
        (lambda c, s: (s, c), "swapped_cos_sin"),
        (lambda c, s: (c, -s), "clockwise"),
        (lambda c, s: (1.25 * c, 1.25 * s), "attention_factor"),
        (lambda c, s: (np.roll(c, -1, 0)[:-1], np.roll(s, -1, 0)[:-1]), "offset"),
        (
            lambda c, s: (c.astype(np.float16).astype(np.float32), s.astype(np.float16).astype(np.float32)),
            "half_tables",
        ),
        (lambda c, s: (c[:, ::-1], s[:, ::-1]), "unknown"),
    ],
)
def test_rotary_tables(change: Any, fault: str) -> None:
    found = explain_mismatch(change(*ROPE.table(100)), rope=ROPE)
    assert found.fault == fault, str(found)


def test_torch_and_16_bit_results() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X).bfloat16()
    wide = x.float().numpy()
    assert explain_mismatch(ROPE(x), x=x, rope=ROPE).ok
    late = explain_mismatch(ROPE(x, offset=1), ROPE(x), x=x, rope=ROPE)
    assert late.fault == "offset"
    assert explain_mismatch(ROPE(wide, offset=1), x=wide, rope=ROPE).fault == "offset"


def test_several_axes_and_batches() -> None:
    rope = posenc.axes.mrope(64, [16, 8, 8], layout="half")
    where = np.random.default_rng(1).integers(0, 99, (3, 2, 40))
    x = x_of(2, 4, 40, 64)
    swapped = rope(x, positions=where[[0, 2, 1]])
    assert explain_mismatch(swapped, x=x, rope=rope, positions=where).fault == "swapped_axes"
    rows = np.stack([np.arange(40), np.arange(40) + 7])
    assert explain_mismatch(ROPE(x), x=x, rope=ROPE, positions=rows).fault == "positions_ignored"


def test_noise_is_unknown_with_the_nearest() -> None:
    noisy = ROPE(X) + np.random.default_rng(2).standard_normal(X.shape).astype(np.float32)
    found = explain_mismatch(noisy, x=X, rope=ROPE)
    assert found.fault == "unknown"
    assert found.finding is None
    assert found.runner_up is not None
    assert "nearest" in str(found)
    assert found.to_dict()["fault"] == "unknown"


def test_two_faults_at_once_are_not_named_after_one() -> None:
    other = Rope(64, layout="interleaved", base=500000.0)
    assert explain_mismatch(1.5 * other(X, offset=3), x=X, rope=ROPE).fault == "unknown"


def test_a_large_tensor_is_sampled() -> None:
    x = x_of(1, 8, 4096, 64)
    found = explain_mismatch(Rope(64, layout="half", base=5e5)(x), x=x, rope=ROPE)
    assert found.fault == "base"
    assert found.first_bad == (0, 0, 1, 1)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="expected is not what rope makes of x at these positions"):
        explain_mismatch(ROPE(X), ROPE(X, offset=1), x=X, rope=ROPE)
    with pytest.raises(TypeError, match="a rotation needs rope, or expected"):
        explain_mismatch(ROPE(X))
    with pytest.raises(TypeError, match="a rotation needs expected, or the x that was rotated"):
        explain_mismatch(ROPE(X), rope=ROPE)
    with pytest.raises(TypeError, match="rope must be given: expected is no rotation of x"):
        explain_mismatch(ROPE(X), X[..., ::-1], x=X)
    with pytest.raises(TypeError, match=r"rope must be a posenc\.Rope for a rotary_table, got None"):
        explain_mismatch(ROPE.table(9))
    with pytest.raises(ValueError, match="one shape"):
        explain_mismatch(ROPE(X), x=X[:, :, 1:], rope=ROPE)
    with pytest.raises(TypeError, match="expected must be given for a bias"):
        explain_mismatch(np.zeros((1, 2, 2)), kind="bias")
