"""Identification of rotations of known parameters, and of what is none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import posenc
from posenc import axes, scaling
from posenc.checks import identify, wrap_hf

Rope = posenc.Rope

#: what comes back as it is, parameters and all
EXACT = [
    Rope(128, layout="half"),
    Rope(64, layout="interleaved", base=500000.0, precision="float32"),
    Rope(96, layout="interleaved_to_half", rotary_dim=64, rotary_offset=32),
    Rope(128, layout="half", base=1e6, rotary_dim=32),
    Rope(4, layout="half"),
    Rope(128, layout="half", base=500000.0, scaling=scaling.Llama3(8.0)),
    Rope(128, layout="interleaved", base=500000.0, scaling=scaling.Llama3(32.0), precision="float32"),
    Rope(128, layout="half", base=500000.0, scaling=scaling.Llama3(16.0, 1.0, 1.0, 8192)),
    Rope(128, layout="half", base=500000.0, scaling=scaling.Llama3(4.0, 1.0, 2.0, 4096)),
    Rope(64, layout="half", base=150000.0, scaling=scaling.Yarn(32.0, 4096, truncate=False)),
    Rope(128, layout="half", base=1e4, scaling=scaling.Yarn(40.0, 4096)),
    Rope(128, layout="half", base=1e6, scaling=scaling.Yarn(4.0, 32768, attention_factor=1.0)),
    Rope(64, layout="half", base=1e4, scaling=scaling.Yarn(4.0, 32768, 16.0)),
    Rope(128, layout="half", base=1e6, scaling=scaling.Linear(8.0)),
    Rope(256, layout="half", base=1e6, scaling=scaling.Proportional(0.25)),
    Rope(64, layout="half", scaling=scaling.DynamicNTK(4.0, 2048)),
    Rope(64, layout="half", scaling=scaling.DynamicLinear(2048)),
    Rope(64, layout="half", scaling=scaling.NTKByParts(4.0, 4096)),
    Rope(63, layout="half"),
    Rope(81, layout="interleaved", base=500000.0, precision="float32"),
    axes.mrope(128, [16, 24, 24], layout="half", base=1e6),
    axes.mrope(128, [24, 20, 20], layout="half", base=5e6, order="interleaved"),
    axes.mrope(128, [22, 22, 20], layout="interleaved", base=5e5, order="hw_then_t"),
    axes.axial(80, layout="half"),
    axes.pixtral(64),
    axes.axial_blocks(64, base=100.0),
    axes.named("flux", 128),
    axes.named("cogvideox", 64),
]


def called(rope: Any, offset: float = 0) -> Any:
    return lambda x, positions: rope(x, positions=positions + offset)


@pytest.mark.parametrize("rope", EXACT, ids=lambda rope: repr(rope)[:100])
def test_it_comes_back(rope: Any) -> None:
    found = identify(called(rope), rope.head_dim, axes=rope.axes)
    assert found.ok, str(found)
    assert found.rope == rope
    assert found.residual < 1e-6
    assert found.faults == ()
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.name in str(found)


@pytest.mark.parametrize(
    ("sections", "order"),
    [((16, 24, 24), "chunked"), ((24, 20, 20), "interleaved"), ((22, 22, 20), "hw_then_t"), ((24, 20, 20, 0), None)],
)
def test_sections_and_their_order(sections: tuple[int, ...], order: str | None) -> None:
    rope = axes.mrope(128, sections, layout="half", order=order or "interleaved_ggml")
    found = identify(called(rope), 128, axes=rope.axes)
    assert found.rope == rope
    if order:
        assert (found.facts["sections"], found.facts["axes_order"]) == (sections, order)
    else:
        assert found.facts["axes_order"] == "interleaved_ggml"


def test_what_the_function_is_given() -> None:
    """Contiguous arrays of its own, which it may write into."""
    rope = Rope(32, layout="half")

    def fn(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        assert x.flags.c_contiguous
        assert x.flags.writeable
        assert (x.dtype, positions.dtype) == (np.float32, np.int64)
        rope(x, positions=positions, out=x)
        positions[:] = -1
        return x

    assert identify(fn, 32).rope == rope


@pytest.mark.parametrize("first", [1.0, 1.05])
def test_longrope(first: float) -> None:
    lists = [tuple(np.linspace(first, last, 32).round(4).tolist()) for last in (first if first == 1 else 2.5, 8.0)]
    rope = Rope(64, layout="half", scaling=scaling.LongRope(*lists, 4096, attention_factor=1.25))
    found = identify(called(rope), 64)
    assert found.ok, str(found)
    assert found.rope == rope
    assert any("over base 10000" in note for note in found.notes) == (first != 1)


#: what is the same under another name -> the words that say so
SAME = [
    (Rope(128, layout="half", scaling=scaling.NTK(1000.0)), "the same as base 10000 with scaling NTK(1000)"),
    (Rope(64, layout="half", scaling=scaling.VllmNTK(4.0)), "VllmNTK(4)"),
]


@pytest.mark.parametrize(("rope", "words"), SAME)
def test_other_names_of_the_same(rope: Rope, words: str) -> None:
    found = identify(called(rope), rope.head_dim)
    assert found.ok
    assert any(words in note for note in found.notes), found.notes
    assert np.allclose(found.rope.inv_freq, rope.inv_freq, rtol=1e-6)


@pytest.mark.parametrize("offset", [1, 2, -7, 0.5, 300])
def test_offsets(offset: float) -> None:
    rope = Rope(64, layout="half")
    found = identify(called(rope, offset), 64)
    assert found.facts["position_offset"] == offset
    assert found.ok
    assert found.rope == rope
    x, where = np.ones((1, 1, 3, 64), np.float32), np.array([0, 5, 99])
    assert np.allclose(found.reproduce(x, where), called(rope, offset)(x, where), atol=1e-6)


def test_clockwise_and_factors() -> None:
    turned = Rope(64, layout="half", scaling=scaling.InverseFrequencies(tuple(-Rope(64, layout="half").inv_freq), 1.25))
    found = identify(called(turned), 64)
    assert found.ok
    assert found.facts["direction"] == "clockwise"
    assert found.facts["attention_factor"] == pytest.approx(1.25, rel=1e-6)
    assert found.facts["base"] == 10000
    assert np.allclose(found.rope.inv_freq, turned.inv_freq, rtol=1e-6)


def test_bfloat16_tables_are_told_apart() -> None:
    import ml_dtypes

    rope = Rope(128, layout="half", base=500000.0)

    def rounded(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        cos, sin = (t.astype(ml_dtypes.bfloat16).astype(np.float32) for t in rope.table(positions))
        return posenc.apply_rotary_emb(x, cos, sin, layout="half")

    found = identify(rounded, 128)
    assert found.facts["table_precision"] == "cos and sin in bfloat16"
    assert found.facts["base"] == 500000
    assert found.ok
    assert found.residual < 1e-6


@pytest.mark.parametrize("precision", ["exact", "float32"])
def test_precision_of_angles(precision: str) -> None:
    rope = Rope(128, layout="half", precision=precision)
    assert identify(called(rope), 128).facts["angles"] == precision


def test_a_short_table_is_no_obstacle() -> None:
    cos, sin = Rope(64, layout="half").table(100)

    def of_table(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return posenc.apply_rotary_emb(x, cos, sin, layout="half", positions=positions)

    found = identify(of_table, 64)
    assert found.ok
    assert found.rope == Rope(64, layout="half")
    assert "IndexError" in found.notes[0]


def test_fixed_heads_and_torch() -> None:
    torch = pytest.importorskip("torch")
    rope = Rope(32, layout="interleaved")

    def three_heads(x: Any, positions: Any) -> Any:
        assert x.shape[1] == 3
        assert isinstance(positions, torch.Tensor)
        return rope(x, positions=positions)

    assert identify(three_heads, 32, heads=3, like="torch").rope == rope
    assert identify(three_heads, 32, heads=3, like=torch.ones(1)).rope == rope


# ---- what is no rotation is not given a name


def random_matrix(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return x @ np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)


def random_angles(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    angles = np.stack([np.random.default_rng(int(p)).uniform(-3, 3, 16) for p in positions])
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return posenc.apply_rotary_emb(x, cos, sin, layout="half")


def random_pairs(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    order = np.random.default_rng(1).permutation(32)
    y = np.empty_like(x)
    y[..., order] = Rope(32, layout="half")(np.ascontiguousarray(x[..., order]), positions=positions)
    return y


def noise(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return (x + np.random.default_rng(0).standard_normal(x.shape)).astype(np.float32)


@pytest.mark.parametrize("fn", [random_matrix, random_angles, random_pairs, noise, lambda x, p: 0 * x])
def test_unknown(fn: Any) -> None:
    found = identify(fn, 32)
    assert not found.ok
    assert found.name.startswith("unknown")


def test_frequencies_of_no_rule_are_measured() -> None:
    given = np.random.default_rng(5).uniform(0.001, 1, 16)
    found = identify(called(Rope(32, layout="half", inv_freq=given)), 32)
    assert not found.ok
    assert np.allclose(found.rope.inv_freq, given, rtol=1e-6)
    assert found.residual < 1e-4
    assert found.runner_up is not None
    assert found.runner_up[1] > 0.1


def test_the_runner_up_is_another_rule_and_compared_with_the_function() -> None:
    """Every scaling by a factor of 1 is the unscaled rule under another name, float32 angles or not."""

    def in_float32(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        steps = 1 / np.float32(1e5) ** (np.arange(0, 64, 2, dtype=np.float32) / np.float32(64))
        return rotated_by(positions.astype(np.float32)[:, None] * steps, x)

    def rotated_by(angles: np.ndarray, x: np.ndarray) -> np.ndarray:
        a, b = x[..., :32], x[..., 32:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(np.float32)

    found = identify(in_float32, 64)
    assert found.ok
    assert found.runner_up is None
    scaled = identify(called(Rope(64, layout="half", scaling=posenc.scaling.Llama3(factor=8.0))), 64)
    assert scaled.residual < 1e-5 < 1e-3 < scaled.runner_up[1]


def test_wrong_parameters() -> None:
    rope = Rope(32, layout="half")
    with pytest.raises(TypeError, match="head_dim must be given"):
        identify(called(rope))
    with pytest.raises(TypeError, match="fn must be a callable"):
        identify(3, 32)
    with pytest.raises(
        ValueError, match=r"fn must return an array of x's shape \(1, 1, 2, 32\), got shape \(1, 1, 2, 31\)"
    ):
        identify(lambda x, p: x[..., 1:], 32)
    with pytest.raises(ValueError, match="expected must have head_dim 32, got 64"):
        identify(called(rope), 32, expected=Rope(64, layout="half"))
    with pytest.raises(ValueError, match="kind must be one of"):
        identify(called(rope), 32, kind="rope")


def test_wrap_hf_says_what_it_cannot_do() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"forward must take \(x, position_ids\), got Linear\(input\)"):
        wrap_hf(torch.nn.Linear(1, 1))


def test_a_part_of_interleaved_pairs_by_the_base_of_the_head() -> None:
    """Proportional frequencies of a few leading pairs are those of a small base: no YaRN has a ramp there."""
    rope = posenc.Rope(128, layout="interleaved", base=500000.0, scaling=scaling.Proportional(0.25))
    found = identify(lambda x, p: rope(x, positions=p), 128)
    assert found.ok
    x = np.ones((1, 1, 5, 128), np.float32)
    np.testing.assert_allclose(found.rope(x, offset=3000), rope(x, offset=3000), atol=2e-3)


def test_what_is_expected_need_not_be_a_rope() -> None:
    """It was not compared at all, and nothing said so."""
    blocks, other = axes.axial_blocks(32, base=100.0), axes.axial_blocks(32, base=500.0)

    def turn(x: Any, where: Any) -> Any:
        return blocks(x, positions=where)

    assert identify(turn, 32, expected=identify(turn, 32, axes=2).rope).ok
    found = identify(turn, 32, expected=other)
    assert not found.ok
    assert "differs from the expected BlockRope" in found.notes[-1]
