"""Resized tables are those of F.interpolate of torch, up to its float32 rounding, and of DINOv2 by its call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import posenc
from conftest import assert_same_bits

OLD = (14, 10)
NEW = [(7, 5), (16, 20), (3, 33), (1, 1), (28, 20), (5, 9), (13, 11)]


def by_torch(table: np.ndarray, old: tuple[int, ...], prefix: int = 0, **how: Any) -> np.ndarray:
    """Interpolate as vision models do: to channels first, F.interpolate, and back behind the prefix."""
    places = torch.from_numpy(table[prefix:]).reshape(1, *old, -1)
    moved = places.permute(0, len(old) + 1, *range(1, len(old) + 1))
    resized = functional.interpolate(moved, align_corners=False, **how)
    rows = resized.permute(0, *range(2, len(old) + 2), 1).reshape(-1, table.shape[-1])
    return np.concatenate([table[:prefix], rows.numpy()])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_grids(mode: str, antialias: bool, rng: np.random.Generator) -> None:
    """In float64 to its last bits; in float32 to what torch's float32 coordinates leave."""
    for dtype, tolerance in ((np.float64, 1e-13), (np.float32, 1e-5)):
        table = rng.standard_normal((2 + 140, 6)).astype(dtype)
        for new in NEW:
            wanted = by_torch(table, OLD, 2, size=new, mode=mode, antialias=antialias)
            how = {"old_shape": OLD, "mode": mode, "antialias": antialias}
            found = posenc.resize_table(table, new, prefix_tokens=2, **how)
            assert found.dtype == dtype
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() < tolerance
            assert_same_bits(found[:2], table[:2])


@pytest.mark.parametrize("new", [1, 20, 77, 300])
def test_lengths(new: int, rng: np.random.Generator) -> None:
    table = rng.standard_normal((50, 6))
    wanted = by_torch(table, (50,), size=(new,), mode="linear")
    assert np.abs(posenc.resize_table(table, new) - wanted).max() < 1e-13
    assert np.abs(posenc.resize_table(table[None], (new,))[0] - wanted).max() < 1e-13


@pytest.mark.parametrize("antialias", [False, True])
def test_dinov2s_scale_factor(antialias: bool, rng: np.random.Generator) -> None:
    """interpolate_pos_encoding of DINOv2 passes scale_factor=(new + 0.1) / old, and that is not the size's scale."""
    table = rng.standard_normal((1 + 37 * 37, 4))
    factor = ((16 + 0.1) / 37, (20 + 0.1) / 37)
    how: dict[str, Any] = {"mode": "bicubic", "antialias": antialias}
    wanted = by_torch(table, (37, 37), 1, scale_factor=factor, **how)
    found = posenc.resize_table(table, (16, 20), prefix_tokens=1, scale_offset=0.1, antialias=antialias)
    assert np.abs(found - wanted).max() < 1e-12
    assert np.abs(posenc.resize_table(table, (16, 20), prefix_tokens=1, antialias=antialias) - wanted).max() > 1e-2


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("new", [(7, 10), (14, 12), (14, 10)])
def test_an_axis_that_keeps_its_length(
    new: tuple[int, int], mode: str, antialias: bool, rng: np.random.Generator
) -> None:
    """Torch copies it but for the plain bicubic, although the scale factor is not 1."""
    table = rng.standard_normal((140, 3))
    factor = tuple((n + 0.1) / old for n, old in zip(new, OLD, strict=True))
    wanted = by_torch(table, OLD, scale_factor=factor, mode=mode, antialias=antialias)
    how = {"old_shape": OLD, "mode": mode, "antialias": antialias}
    assert np.abs(posenc.resize_table(table, new, scale_offset=0.1, **how) - wanted).max() < 1e-13


def test_literals() -> None:
    """A ramp stays a ramp inside; the cubic's own weights at a half: -3/32, 19/32, 19/32, -3/32 with a = -3/4."""
    ramp = np.arange(8.0)[:, None]
    assert posenc.resize_table(ramp, 4)[:, 0].tolist() == [0.5, 2.5, 4.5, 6.5]
    impulse = np.zeros((16, 1))
    impulse[5] = 1  # row 1, column 1 of 4 x 4
    found = posenc.resize_table(impulse, (2, 2), old_shape=(4, 4), mode="bicubic").reshape(2, 2)
    assert found.tolist() == [[(19 / 32) ** 2, -19 * 3 / 32**2], [-19 * 3 / 32**2, (3 / 32) ** 2]]


def test_kinds_and_what_stays() -> None:
    table = torch.randn(1, 17, 4)
    assert posenc.resize_table(table, (4, 4), prefix_tokens=1) is table
    found = posenc.resize_table(table, (2, 3), prefix_tokens=1)
    assert isinstance(found, torch.Tensor)
    assert found.shape == (1, 7, 4)
    half = posenc.resize_table(np.ones((16, 4), np.float16), (5, 5))
    assert half.dtype == np.float16
    assert (half == 1).all()


WRONG: dict[str, tuple[type[Exception], Any]] = {
    "old_shape must be given: 12 rows": (ValueError, lambda: posenc.resize_table(np.ones((12, 2)), (3, 3))),
    "mode 'linear' is not for a new_shape of 2": (
        ValueError,
        lambda: posenc.resize_table(np.ones((9, 2)), (3, 4), mode="linear"),
    ),
    "mode 'bicubic' is not for a new_shape of 1": (
        ValueError,
        lambda: posenc.resize_table(np.ones((9, 2)), 4, mode="bicubic"),
    ),
    "mode must be one of": (ValueError, lambda: posenc.resize_table(np.ones((9, 2)), 4, mode="area")),
    "old_shape (2, 4) must have 2 axes and 9": (
        ValueError,
        lambda: posenc.resize_table(np.ones((9, 2)), (3, 4), old_shape=(2, 4)),
    ),
    "new_shape must be a length or": (ValueError, lambda: posenc.resize_table(np.ones((9, 2)), (3, 4, 5))),
    "new_shape must be a length or (height, width), got <class 'torch": (
        TypeError,
        lambda: posenc.resize_table(np.ones((9, 2)), torch.ones(1, 2, 3, 3).to_mkldnn()),
    ),
    "new_shape must be at least 1": (ValueError, lambda: posenc.resize_table(np.ones((9, 2)), 0)),
    "table must have shape (rows, dim)": (ValueError, lambda: posenc.resize_table(np.ones(9), 4)),
    "table must be float16, float32 or": (TypeError, lambda: posenc.resize_table(np.ones((9, 2), int), 4)),
    "prefix_tokens must be at most 9": (ValueError, lambda: posenc.resize_table(np.ones((9, 2)), 4, prefix_tokens=10)),
    "antialias must be True or False": (TypeError, lambda: posenc.resize_table(np.ones((9, 2)), 4, antialias=1)),
    "scale_offset must be at least 0": (ValueError, lambda: posenc.resize_table(np.ones((9, 2)), 4, scale_offset=-0.1)),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_resized(text: str) -> None:
    error, call = WRONG[text]
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
