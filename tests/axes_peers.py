"""What the tests of several position axes share: grids, peers' tables at half width, and the comparisons."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import Any

import numpy as np
import pytest

import wheels

IN_CI = bool(os.environ.get("CI"))


def needs(*packages: str) -> None:
    """Skip a module or a test without these packages; not in CI, where a missing package is a failure."""
    for package in packages:
        if not IN_CI and importlib.util.find_spec(package) is None:
            pytest.skip(f'needs {package}: pip install ".[test]"', allow_module_level=True)


def timm_embeddings() -> Any:
    """Return timm.layers.pos_embed_sincos, alone.

    It needs torch only, but timm's own __init__ imports torchvision, whose wheels of PyPI do not load beside a CPU
    build of torch. So timm is read from its wheel, and the packages above the module are stand-ins that only know where
    their modules lie.
    """
    try:
        root = wheels.cached(*wheels.TIMM) / "timm"
    except wheels.WheelUnavailableError as error:
        if IN_CI:
            raise
        pytest.skip(str(error), allow_module_level=True)
    for name, folder in (("timm", root), ("timm.layers", root / "layers")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(folder)]
    try:
        return importlib.import_module("timm.layers.pos_embed_sincos")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "timm"]:
            del sys.modules[name]


def grid(*shape: int) -> np.ndarray:
    """Return integer coordinates of a grid, row by row: (axes, tokens)."""
    return np.indices(shape).reshape(len(shape), -1)


def halved(table: Any, layout: str) -> np.ndarray:
    """Return a table of doubled width, (c, c) or c0 c0 c1 c1, at half width; both halves must be the same."""
    table = np.asarray(table)
    half = table.shape[-1] // 2
    first, second = (table[..., :half], table[..., half:]) if layout == "half" else (table[..., 0::2], table[..., 1::2])
    assert np.array_equal(first, second)
    return first


def assert_tables(rope: Any, positions: Any, cos: Any, sin: Any, *, reach: Any = 0.0) -> None:
    """Tables of a Rope within 2e-6 of a peer's, and of what float32 may lose: `reach`, radians or an array of them."""
    found = rope.table(positions)
    for ours, theirs in zip(found, (cos, sin), strict=True):
        theirs = np.asarray(theirs)
        assert ours.shape == theirs.shape
        off = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        assert (off <= 2e-6 + reach).all(), f"off by {off.max():.3g} at {np.unravel_index(off.argmax(), off.shape)}"


def lost(rope: Any, positions: Any, frequencies: Any) -> np.ndarray:
    """Return how far an angle may be off where a peer's float32 frequencies differ from ours, by 2 ulp at most.

    torch's float32 power is not correctly rounded: about one frequency of a hundred is an ulp away.
    """
    theirs, ours = np.asarray(frequencies, np.float64), rope.inv_freq
    assert theirs.shape == ours.shape
    apart = np.abs(theirs - ours)
    assert (apart <= 2 * np.spacing(np.abs(ours).astype(np.float32))).all()
    return np.abs(positions).max() * apart


def assert_rotated(found: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    """Rotated arrays or tensors, alike within float32 noise (|x| < 6, tables 2e-6 apart)."""
    found, wanted = (
        (found if isinstance(found, tuple) else (found,)),
        (wanted if isinstance(wanted, tuple) else (wanted,)),
    )
    for a, b in zip(found, wanted, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        off = np.abs(a.astype(np.float64) - b).max()
        assert off <= tolerance, f"off by {off:.3g}"
