"""Every rotary module of the installed transformers, against what posenc.config reads from the config it is built of.

The modules are found by reading transformers' source, so that a new one is tested as soon as it is installed: it fails
here until the family tables know it. Frequencies and tables of precision="float32" against the module's own forward,
rotated queries and keys against the function that its own file applies.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch

import transformers_zoo as zoo
from posenc import config
from posenc.axes import BlockRope, UnequalRope
from transformers_zoo import HEADS, Case, Tables

CASES = {str(case): case for case in zoo.cases()}
FLOAT32 = 2e-6  # between tables of the same frequencies, to position 4096: 1 ulp is 1.2e-7

#: Files that define a function that rotates and have no rotary class -> why, or the test that covers them.
WITHOUT_A_CLASS = {
    "codegen": "test_tables_of_gptj",
    "gptj": "test_tables_of_gptj",
    "lightglue": "test_learned_angles_are_refused",
    "vjepa2": "test_vjepa2",
    "jamba": "never calls it",
    "nemotron_asr_streaming": "never calls it",
    "nemotron_h": "never calls it",
    "parakeet": "never calls it",
}


@functools.cache
def read(case: Case) -> config.ModelPositions:
    own, _ = zoo.built(case)
    return config.read(own, family=zoo.UNNAMED.get(case.config, own.model_type), precision="float32")


def turned(rope: Any) -> np.ndarray:
    """Return the frequencies in the order of the columns of the table."""
    return rope.first.inv_freq if isinstance(rope, UnequalRope) else rope.inv_freq


def is_clockwise(rope: Any) -> bool:
    return bool((turned(rope) < 0).any())


def tables_of(case: Case, name: str, rope: Any) -> Tables:
    own, module = zoo.built(case)
    axes = len(rope.ropes) if isinstance(rope, BlockRope) else getattr(rope, "first", rope).axes
    return zoo.tables(module, case, own, len(turned(rope)), axes, None if name == "all" else name)


def their_frequencies(case: Case, name: str, rope: Any) -> np.ndarray | None:
    """Return the module's buffer where its order is that of the pairs."""
    _, module = zoo.built(case)
    buffers = dict(module.named_buffers())
    found = buffers.get(f"{name}_inv_freq", buffers.get("inv_freq"))
    if found is None or found.shape != turned(rope).shape or case.axial or case.rotary in REORDERED:
        return None
    return found.numpy().astype(np.float64)


#: Modules that reorder their frequencies in forward (Ernie), or scale positions and frequencies by 2 pi (DINOv3).
REORDERED = {"Ernie4_5_VLMoeTextRotaryEmbedding", "MistralLarge4TextRotaryEmbedding"}


def ulp(values: np.ndarray) -> np.ndarray:
    return np.spacing(np.abs(values).astype(np.float32)).astype(np.float64)


def allowed(case: Case, name: str, rope: Any, positions: np.ndarray) -> np.ndarray:
    """Return how far tables may be apart: float32 noise, and where a frequency differs, what that does to the angle."""
    bound = np.full(len(turned(rope)), FLOAT32)
    theirs = their_frequencies(case, name, rope)
    if theirs is None:  # not to be compared one by one: 2 units for each
        gap = 2 * ulp(turned(rope))
        gap = np.where(np.isin(np.abs(turned(rope)), buffer_of(case)), 0, gap)
    else:
        gap = np.abs(theirs - np.abs(turned(rope)))
    farthest = np.abs(positions).max()
    return bound + np.where(gap > 0, farthest * gap + ulp(farthest * turned(rope)), 0)  # another angle, rounded again


def buffer_of(case: Case) -> np.ndarray:
    buffers = [buffer.numpy().ravel() for name, buffer in zoo.built(case)[1].named_buffers() if "inv_freq" in name]
    return np.concatenate(buffers).astype(np.float64) if buffers else np.empty(0)


SOME = set(list(CASES)[::12])


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if name in SOME else pytest.mark.broad, id=name) for name, case in CASES.items()],
)
def test_tables_and_rotations(case: Case) -> None:
    positions = read(case)
    assert positions.kind == ("unequal" if case.folder == "hunyuan_vl" else "rope")
    for name, rope in positions.ropes.items():
        assert_frequencies(case, name, rope)
        if case.folder != "hunyuan_vl":  # its rope has two tables: test_hunyuan_vl
            gap = assert_tables(case, name, rope)
            assert_rotations(case, name, rope, gap)


def assert_frequencies(case: Case, name: str, rope: Any) -> None:
    """Within 2 units of the module's, whose power is not correctly rounded; zeros (no rotation) are zeros."""
    theirs = their_frequencies(case, name, rope)
    if theirs is not None:
        ours = np.abs(turned(rope))
        assert ((theirs == 0) == (ours == 0)).all()
        assert (np.abs(theirs - ours) <= 2.5 * ulp(theirs)).all(), np.abs(theirs / ours - 1).max()


def assert_tables(case: Case, name: str, rope: Any) -> float:
    found = tables_of(case, name, rope)
    cos, sin = rope.table(found.positions)
    if is_clockwise(rope):  # transformers' tables turn the other way, and so does its rotate_half
        sin = -sin
    bound = allowed(case, name, rope, found.positions)
    gaps = [np.abs(ours - theirs) for ours, theirs in ((cos, found.cos), (sin, found.sin))]
    for gap in gaps:
        assert (gap <= bound).all(), f"{name}: {gap.max():.1e} apart, {np.argwhere(gap > bound)[:3].tolist()}"
    return float(max(gap.max() for gap in gaps))


# ---- rotations


def applied(case: Case, rope: Any) -> Callable[..., Any]:
    """Return the function of the file that its attention calls for these tables."""
    module = case.module
    names = [name for name in vars(module) if name.startswith(("apply_rotary", "vision_apply", "apply_multi"))]
    wanted = [
        name
        for name in names
        if ("vision" in name or "2d" in name or "multidim" in name) == (case.axial or "Vision" in case.rotary)
        and ("interleave" in name) == (getattr(rope, "layout", "") == "interleaved_to_half")
    ]
    found = wanted or [name for name in names if "interleave" not in name]
    return getattr(module, sorted(found, key=len)[0])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def assert_rotations(case: Case, name: str, rope: Any, gap: float) -> None:
    """q and k turned by the file's own function with the module's own tables, and by the Rope."""
    if case.rotary in OUTSIDE:
        return
    found = tables_of(case, name, rope)
    sequence = found.positions.shape[-1]
    head_dim = rope.ropes[0].head_dim if isinstance(rope, BlockRope) else rope.head_dim
    batch = found.positions.shape[-2] if found.positions.ndim > 1 + (len(set_of_axes(rope)) > 1) else 1
    q, k = normal(1, batch, HEADS, sequence, head_dim), normal(2, batch, 2, sequence, head_dim)
    theirs = zoo.rotated(applied(case, rope), case, found, q, k, 2 * len(turned(rope)))
    ours = rope(q, k, positions=found.positions)
    for a, b in zip(ours, theirs, strict=True):
        if b is not None:
            assert torch.allclose(a, b, rtol=0, atol=(4 * gap + FLOAT32) * float(q.abs().max()))


def set_of_axes(rope: Any) -> set[int]:
    if isinstance(rope, BlockRope):
        return set(range(len(rope.ropes)))
    return {0} if rope.axis_of_freq is None else set(rope.axis_of_freq.tolist())


#: Rotated in a method of the attention module, whose lines repeat rotate_half, or by a function of another shape.
OUTSIDE = {
    "EfficientLoFTRRotaryEmbedding",
    "SeamlessM4TConformerRotaryPositionalEmbedding",
    "Wav2Vec2BertRotaryPositionalEmbedding",
    "Wav2Vec2ConformerRotaryPositionalEmbedding",
}


# ---- that this list of exceptions stays as short as it can be


def test_nothing_is_forgotten() -> None:
    assert len(CASES) > 200
    assert zoo.files_that_rotate_without_a_class() == set(WITHOUT_A_CLASS)
    classes = {case.config for case in CASES.values()}
    assert set(zoo.NEEDED) <= classes
    assert set(zoo.BUILT_FROM) | set(zoo.UNNAMED) <= classes


@pytest.mark.parametrize("name", zoo.NEEDED)
def test_exceptions_are_needed(name: str) -> None:
    """Without them the default config cannot be run by transformers, turns nothing, or is pinned below."""
    case = next(case for case in CASES.values() if case.config == name)
    own = case.config_class()
    try:
        module = getattr(case.module, case.rotary)(own).eval()
        found = config.read(own, family=own.model_type, precision="float32")
        zoo.tables(module, case, own, len(turned(found.rope())), found.rope().axes, None)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError):  # transformers', or ours
        return
    pytest.fail(f"the default {name} works: remove it from zoo.NEEDED")


def test_most_frequencies_are_the_same_bits() -> None:
    """torch's vectorised power misses the nearest float32 in about one of a hundred."""
    same, count = 0, 0
    for case in CASES.values():
        for name, rope in read(case).ropes.items():
            theirs = their_frequencies(case, name, rope)
            if theirs is not None:
                same += int((theirs == np.abs(turned(rope))).sum())
                count += len(theirs)
    assert count > 10_000
    assert same / count > 0.98
