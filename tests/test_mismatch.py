"""explain_mismatch: what it is given, what it refuses, and what it does not claim to know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import posenc
from posenc.checks import explain_mismatch
from posenc.checks._units import units

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
    found = explain_mismatch(ROPE(X, offset=1), turned)
    assert found.fault == "unknown"
    assert "with rope= every known fault is tried" in str(found)
    assert not explain_mismatch(1.25 * turned, turned).hint


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


@pytest.mark.parametrize(("kind", "step"), [(np.float32, 2.0**-23), (np.float16, 2.0**-10), (np.float64, 2.0**-52)])
def test_units_of_the_last_place(kind: Any, step: float) -> None:
    one = np.ones(5, kind)
    assert units(one * kind(1 + 3 * step), one.astype(np.float64)).tolist() == [3.0] * 5
    assert units(np.array([0, 2, np.nan], kind), np.array([0, 2, np.nan])).tolist() == [0, 0, 0]
    assert units(np.array([np.nan], kind), np.array([1.0]))[0] == np.inf


def test_what_is_only_somewhat_nearer_is_no_explanation() -> None:
    """ggml's angles, multiplied up in float32: no recipe here, and no fault is made of it."""
    angle, far = np.arange(100_000, 100_040).astype(np.float32), []
    ratio = np.float32(10000.0 ** (-2 / 64))
    for _ in range(32):
        far.append(angle)
        angle = angle * ratio
    cos, sin = (f(np.stack(far, -1).astype(np.float64)) for f in (np.cos, np.sin))
    found = explain_mismatch(
        posenc.apply_rotary_emb(X, cos.astype(np.float32), sin.astype(np.float32), layout="half"),
        x=X, rope=ROPE, positions=np.arange(100_000, 100_040),
    )  # fmt: skip
    assert found.residual > 1e-4
    assert found.fault in ("unknown", "none"), str(found)


def test_half_of_an_explanation_is_none() -> None:
    """A factor explains a half of the difference, float32's allowance at these positions would hide the other."""
    where = np.arange(100_000, 100_040)
    near = Rope(64, layout="half", inv_freq=ROPE.inv_freq * (1 + 2e-8 * np.sin(np.arange(32))))
    found = explain_mismatch(1.002 * near(X, positions=where), x=X, rope=ROPE, positions=where)
    assert found.fault == "unknown", str(found)
    assert found.runner_up is not None
    assert found.runner_up.fault == "attention_factor"


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
