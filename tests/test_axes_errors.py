"""Every wrong parameter of the axes' functions and objects: which error, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import posenc
from axes_peers import grid
from conftest import assert_refused
from posenc import axes, scaling

POSITIONS = grid(4, 5)
MIXED = axes.MixedRope(24, axes.mixed_frequencies(24, [0.3, 1.0, 2.0]), layout="interleaved")


def plain(head_dim: int = 24, **more: Any) -> posenc.Rope:
    return posenc.Rope(head_dim, **{"layout": "half", **more})


NTK, YARN = scaling.NTK(2.0), scaling.Yarn(factor=4.0, original_max_position_embeddings=64)
DYNAMIC = scaling.DynamicNTK(factor=2.0, original_max_position_embeddings=64)
WRONG: list[tuple[type[Exception], str, Any]] = [
    (TypeError, "axes must be an integer, got []", lambda: axes.axial(24, layout="half", axes=[])),
    (TypeError, "axes must be an integer, got ''", lambda: axes.axial_blocks(24, axes="")),
    (ValueError, "every axis from 0 on, got [0, 2147483648]", lambda: axes.axial(24, layout="half", axes=[0, 1 << 31])),
    (ValueError, "head_dim must be a multiple of 4", lambda: axes.axial(26, layout="half")),
    (
        ValueError,
        "widths must be even, with a sum of at most head_dim (24)",
        lambda: axes.axial(24, layout="half", widths=(16, 12)),
    ),
    (ValueError, "widths must be even", lambda: axes.axial(24, layout="half", widths=(9, 9))),
    (
        ValueError,
        "widths must have one entry for each of the 2 blocks",
        lambda: axes.axial(24, layout="half", widths=(8, 8, 8)),
    ),
    (TypeError, "widths[1] must be an integer, got 8.0", lambda: axes.axial(24, layout="half", widths=(8, 8.0))),
    (ValueError, "axes must be at most 8", lambda: axes.axial(36, layout="half", axes=9)),
    (TypeError, "axes must be an integer", lambda: axes.axial(24, layout="half", axes=2.0)),
    (ValueError, "every axis from 0 on, got [0, 2]", lambda: axes.axial(24, layout="half", axes=(0, 2))),
    (
        ValueError,
        "axes must name an axis for each of 2 blocks",
        lambda: axes.from_bands(8, [[1.0], [2.0]], layout="half", axes=(0,)),
    ),
    (ValueError, "axes must name every axis once, got [0, 0]", lambda: axes.axial_blocks(24, axes=(0, 0))),
    (
        ValueError,
        "scaling must be one, or 2 for as many blocks, got 3",
        lambda: axes.axial(24, layout="half", scaling=[NTK] * 3),
    ),
    (
        ValueError,
        "scaling must give every block one attention factor",
        lambda: axes.axial(24, layout="half", scaling=[NTK, YARN]),
    ),
    (ValueError, "scaling must not depend on the length", lambda: axes.axial(24, layout="half", scaling=DYNAMIC)),
    (TypeError, "scaling must be None or a scaling", lambda: axes.axial(24, layout="half", scaling="ntk")),
    (ValueError, "base must lie between", lambda: axes.axial(24, layout="half", base=1e301)),
    (
        ValueError,
        "order must be one of 'blocks', 'alternating', got 'zigzag'",
        lambda: axes.axial(24, layout="half", order="zigzag"),
    ),
    (
        ValueError,
        "order 'alternating' needs blocks of one length",
        lambda: axes.axial(24, layout="half", widths=(8, 4), order="alternating"),
    ),
    (ValueError, "bands must not be empty", lambda: axes.from_bands(8, [], layout="half")),
    (TypeError, "bands must be a sequence of arrays", lambda: axes.from_bands(8, 1.0, layout="half")),
    (
        ValueError,
        "rotary_offset + rotary_dim must be at most head_dim (8)",
        lambda: axes.from_bands(8, [[1.0] * 5], layout="half"),
    ),
    (TypeError, "ropes must be a sequence of Ropes", lambda: axes.BlockRope((plain(), "rope"))),
    (ValueError, "ropes must be at least two", lambda: axes.BlockRope((plain(),))),
    (
        ValueError,
        "ropes must have one head_dim",
        lambda: axes.BlockRope((plain(24, rotary_dim=8), plain(32, rotary_offset=8))),
    ),
    (
        ValueError,
        "ropes must turn separate parts of the head, got [(0, 24), (8, 24)]",
        lambda: axes.BlockRope((plain(), plain(rotary_offset=8))),
    ),
    (
        ValueError,
        "ropes must have one axis each",
        lambda: axes.BlockRope((plain(rotary_dim=12, axis_of_freq=[0, 1] * 3), plain(rotary_offset=12))),
    ),
    (
        ValueError,
        "no scaling that depends on the length",
        lambda: axes.BlockRope((plain(rotary_dim=12, scaling=DYNAMIC), plain(rotary_offset=12))),
    ),
    (TypeError, "first and second must be Ropes", lambda: axes.UnequalRope(plain(), None)),
    (
        ValueError,
        "first and second must have one head_dim, layout",
        lambda: axes.UnequalRope(plain(), plain(layout="interleaved")),
    ),
    (
        ValueError,
        "layout must be 'half' or 'interleaved'",
        lambda: axes.UnequalRope(*[plain(layout="interleaved_to_half")] * 2),
    ),
    (ValueError, "head_dim must be at least 6", lambda: axes.vjepa2(4)),
    (
        ValueError,
        "sections must be 2 to 8, with the sum head_dim/2 = 12.0, got [4, 4]",
        lambda: axes.hunyuan_vl(24, [4, 4]),
    ),
    (
        ValueError,
        "inv_freq must have shape (axes, heads, pairs) or (axes, pairs), got (3,)",
        lambda: axes.MixedRope(24, [1.0] * 3, layout="half"),
    ),
    (
        ValueError,
        "inv_freq must have at most head_dim/2 = 12.0 pairs, got 13",
        lambda: axes.MixedRope(24, np.ones((2, 13)), layout="half"),
    ),
    (ValueError, "inv_freq must be finite", lambda: axes.MixedRope(24, [[np.inf], [1.0]], layout="half")),
    (
        ValueError,
        "layout must be one of 'half', 'interleaved'",
        lambda: axes.MixedRope(24, np.ones((2, 3)), layout="interleaved_to_half"),
    ),
    (
        ValueError,
        "must be an axis of 3 heads beside seq_axis, got -3 of (2, 4, 20, 24)",
        lambda: MIXED(np.ones((2, 4, 20, 24), np.float32), positions=POSITIONS),
    ),
    (
        ValueError,
        "positions must have shape (axes, seq) = (2, seq), got (2, 2, 20)",
        lambda: MIXED.table(np.ones((2, 2, 20))),
    ),
    (TypeError, "positions must be integers or floats", lambda: MIXED.table(np.ones((2, 20), bool))),
    (TypeError, "dtype must be float32 or float64, got int64", lambda: MIXED.table(np.ones((2, 0)), dtype=int)),
    (
        TypeError,
        "out must be a pair of arrays, one for q and one for k",
        lambda: MIXED(
            *[np.ones((3, 20, 24), np.float32)] * 2, positions=POSITIONS, out=np.ones((3, 20, 24), np.float32)
        ),
    ),
    (
        ValueError,
        "positions must be as many as tokens along seq_axis (19), got 20",
        lambda: MIXED(np.ones((3, 19, 24), np.float32), positions=POSITIONS),
    ),
    (
        ValueError,
        "x must have head_dim 24 in its last axis, got 26",
        lambda: MIXED(np.ones((3, 20, 26), np.float32), positions=POSITIONS),
    ),
    (TypeError, "x must be a NumPy array or a torch CPU tensor", lambda: MIXED([[1.0]], positions=POSITIONS)),
    (
        TypeError,
        "inverse must be True or False, got 1",
        lambda: MIXED(np.ones((3, 20, 24), np.float32), positions=POSITIONS, inverse=1),
    ),
    (
        TypeError,
        "q and k must have the same dtype, got float32 and float64",
        lambda: MIXED(np.ones((3, 20, 24), np.float32), np.ones((3, 20, 24)), positions=POSITIONS),
    ),
]


@pytest.mark.parametrize(("error", "message", "call"), WRONG, ids=[message[:40] for _, message, _ in WRONG])
def test_wrong_parameters(error: type[Exception], message: str, call: Any) -> None:
    assert_refused(error, message, call)
