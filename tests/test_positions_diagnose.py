"""Every finding of the diagnosis: seen where the mistake is made, and not where it is not."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import assert_refused
from posenc import positions
from posenc.positions import diagnose

reproducible = settings(derandomize=True, deadline=None, max_examples=60)

LEFT = [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
IDS = [[0, 31, 32, 2, 1], [1, 1, 0, 31, 2]]
TEXT = np.broadcast_to(np.arange(4), (3, 2, 4))


def kinds(report: positions.Report) -> list[str]:
    return [finding.kind for finding in report.findings]


#: kind -> positions that show it, right ones, and the description of both
CASES: list[tuple[str, Any, Any, dict[str, Any]]] = [
    ("not_reset", np.arange(7), [0, 1, 2, 0, 0, 1, 2], {"cu_seqlens": [0, 3, 4, 7]}),
    ("not_reset", [0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 0, 0, 1, 2], {"cu_seqlens": [0, 3, 4, 7]}),  # one of them
    ("not_reset", [[0, 1, 2, 3, 9]], [[0, 1, 0, 1, 9]], {"cu_seqlens": [0, 2, 4]}),  # padding behind
    ("not_reset", np.tile(np.arange(4), (3, 1)), np.tile([0, 1, 0, 1], (3, 1)), {"cu_seqlens": [0, 2, 4], "axes": 3}),
    ("off_by_one", [1, 2, 3, 1, 2], [0, 1, 2, 0, 1], {"cu_seqlens": [0, 3, 5]}),
    ("off_by_one", [[9, 9, 1, 2, 3], [1, 2, 3, 4, 5]], [[9, 9, 0, 1, 2], [0, 1, 2, 3, 4]], {"attention_mask": LEFT}),
    ("off_by_one", [6, 7, 8], [7, 8, 9], {"offset": 7}),
    ("off_by_one", positions.grid((2, 3)) + 1, positions.grid((2, 3)), {"grid": (2, 3)}),
    ("shifted", [10, 11, 12], [7, 8, 9], {"offset": 7}),
    ("padding_counted", [[0, 1, 2, 3, 4]] * 2, [[1, 1, 0, 1, 2], [0, 1, 2, 3, 4]], {"attention_mask": LEFT}),
    ("padding_counted", np.arange(5), [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]], {"attention_mask": LEFT}),  # for all rows
    (
        "padding_counted",
        [[2, 3, 4, 5, 6]] * 2,
        [[2, 3, 4, 5, 1], [1, 1, 2, 3, 4]],
        {"input_ids": IDS, "padding_idx": 1},
    ),
    ("no_padding_offset", np.arange(5), [[2, 3, 4, 5, 1], [1, 1, 2, 3, 4]], {"input_ids": IDS, "padding_idx": 1}),
    (
        "no_padding_offset",
        [[0, 1, 2, 3, 0], [0, 0, 0, 1, 2]],
        [[2, 3, 4, 5, 1], [1, 1, 2, 3, 4]],
        {"input_ids": IDS, "padding_idx": 1},
    ),
    ("swapped_axes", positions.grid((2, 3), order="xy"), positions.grid((2, 3)), {"grid": (2, 3)}),
    ("swapped_axes", positions.grid((2, 3)), positions.grid((2, 3), order="xy"), {"grid": (2, 3), "order": "xy"}),
    ("swapped_axes", positions.grid((2, 3, 4))[[0, 2, 1]], positions.grid((2, 3, 4)), {"grid": (2, 3, 4)}),
    ("column_by_column", [[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2]], positions.grid((2, 3)), {"grid": (2, 3)}),
    ("no_offset", [[0, 1], [0, 1]], [[4, 5], [7, 8]], {"offset": [4, 7]}),
    ("wrong_scheme", [0, 1, 2, 3], [0, 1, 6, 7], {"rank": 0, "world_size": 2}),
    ("wrong_scheme", [2, 3, 4, 5], [4, 5, 6, 7], {"rank": 1, "world_size": 2, "scheme": "contiguous"}),
    ("wrong_scheme", [2, 3, 4, 5, 6, 7], [1, 2, 2, 3, 4, 5], {"rank": 1, "world_size": 2, "cu_seqlens": [0, 4, 12]}),
    ("rank_ignored", [0, 1, 2, 3], [2, 3, 4, 5], {"rank": 1, "world_size": 2}),
    ("rank_ignored", [[0, 1, 6, 7]] * 3, [[2, 3, 4, 5]] * 3, {"rank": 1, "world_size": 2}),
    ("not_reset", [1, 2, 6, 7, 8, 9], [1, 2, 2, 3, 4, 5], {"rank": 1, "world_size": 2, "cu_seqlens": [0, 4, 12]}),
    ("cut_as_one", [3, 0, 1, 2, 3, 4], [1, 2, 2, 3, 4, 5], {"rank": 1, "world_size": 2, "cu_seqlens": [0, 4, 12]}),
    ("axes", TEXT, TEXT[0], {}),
    ("negative", [[0, 0, -1, 0, 1]], [[-1, -1, 0, 1, 2]], {"attention_mask": [[0, 0, 1, 1, 1]]}),
    ("negative", [-1, 0, 1], [0, 1, 2], {}),
    ("negative", TEXT - 1, TEXT, {"axes": 3}),
    ("not_increasing", [0, 1, 1, 2], [0, 1, 2, 3], {}),
    ("not_increasing", [[0, 1, 2], [0, 1, 0]], [[0, 1, 2], [5, 6, 9]], {}),
    ("not_increasing", np.array([0, 1, 0], np.uint8), np.array([0, 1, 2], np.uint8), {}),
    ("off_by_one", np.array([6, 7], np.uint16), np.array([7, 8], np.uint16), {"offset": 7}),
    ("half_precision", torch.arange(3.0).bfloat16(), torch.arange(3.0), {}),
    ("half_precision", np.arange(3, dtype=np.float16), np.arange(3, dtype=np.float32), {"offset": 0}),
    ("half_precision", np.arange(3).astype(ml_dtypes.bfloat16), np.arange(3), {"offset": 0}),
    ("different", [0, 5, 2, 0, 1], [0, 1, 2, 0, 1], {"cu_seqlens": [0, 3, 5]}),
]


@pytest.mark.parametrize(("kind", "wrong", "right", "described"), CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("as_torch", [False, True])
def test_finding(kind: str, wrong: Any, right: Any, described: dict[str, Any], as_torch: bool) -> None:
    if as_torch and not isinstance(wrong, torch.Tensor) and getattr(wrong, "dtype", None) != ml_dtypes.bfloat16:
        wrong, right = torch.tensor(np.array(wrong)), torch.tensor(np.array(right))
        described = {
            name: torch.tensor(value) if isinstance(value, list) else value for name, value in described.items()
        }
    found = diagnose(wrong, **described)
    assert kind in kinds(found)
    assert len(found.findings) == 1 or kind == "negative"
    assert diagnose(right, **described).findings == ()


def test_every_kind_is_tested() -> None:
    """The kinds that the docstring lists are those of the cases."""
    listed = {word.strip('"') for word in diagnose.__doc__.split() if word.startswith('"') and "_" in word}
    listed = {word.rstrip('",.') for word in listed} | {"negative", "axes", "shifted", "different"}
    assert {case[0] for case in CASES} == listed


def test_axes_taken_for_documents() -> None:
    """cu_seqlens that a varlen attention derives from flattened (3, batch, seq) positions counts each axis."""
    packed = np.tile([0, 1, 2, 0, 1], (3, 1))[:, None]
    mistaken = positions.to_cu_seqlens(packed.reshape(-1))
    assert mistaken.tolist() == [0, 3, 5, 8, 10, 13, 15]
    assert kinds(diagnose(packed, axes=3, cu_seqlens=mistaken)) == ["axes"]
    assert diagnose(packed, axes=3, cu_seqlens=[0, 3, 5]).findings == ()


# ---- builders are right ----


@given(of=st.lists(st.integers(1, 6), min_size=1, max_size=6), pad=st.integers(0, 3))
@reproducible
def test_documents_are_fine_and_their_neighbours_not(of: list[int], pad: int) -> None:
    cu = np.cumsum([0, *of])
    right = positions.from_cu_seqlens(cu, int(cu[-1]) + pad)
    assert diagnose(right, cu_seqlens=cu).findings == ()
    assert kinds(diagnose(right + 1, cu_seqlens=cu)) == ["off_by_one"]
    wanted = ["not_reset"] if len(of) > 1 else []
    assert kinds(diagnose(np.arange(len(right)), cu_seqlens=cu)) == wanted


@given(h=st.integers(1, 5), w=st.integers(1, 5), order=st.sampled_from(["ij", "xy"]))
@reproducible
def test_grids_are_fine(h: int, w: int, order: str) -> None:
    right = positions.grid((h, w), order=order)
    assert diagnose(right, grid=(h, w), order=order).findings == ()
    assert diagnose(right[:, None].repeat(3, axis=1), grid=(h, w), order=order).findings == ()
    assert kinds(diagnose(right[::-1], grid=(h, w), order=order)) == (["swapped_axes"] if (h, w) != (1, 1) else [])


# ---- the report ----


def test_report_is_readable() -> None:
    report = diagnose([[0, 1, 2, 3, 4]] * 2, attention_mask=LEFT)
    assert str(report) == (
        "padding_counted (3 of 10, first at (0, 2)): padding before the tokens is counted like them; "
        "use from_attention_mask(attention_mask)"
    )
    assert str(diagnose([0, 1, 2])) == "nothing wrong with these positions"
    two = diagnose(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.bfloat16))
    assert str(two).splitlines() == [
        "half_precision (dtype bfloat16): bfloat16 tells integers apart up to 256 only, positions beyond fall together"
        "; keep positions as integers, out of any cast",
        "negative (1 of 3, first at 0): positions count from 0, and cumsum(mask) - 1 leaves -1 at padding; "
        "use from_attention_mask(attention_mask)",
    ]


def test_says_what_is_there_instead() -> None:
    finding = diagnose([0, 5, 2, 0, 1], cu_seqlens=[0, 3, 5]).findings[0]
    assert finding.explanation == "the position there is 5, not 1, and no known mistake gives these"
    assert finding.where == "1 of 5, first at 1"
    finding = diagnose([10, 11, 12], offset=7).findings[0]
    assert finding.explanation == "every position is too large by 3"
    assert finding.remedy == "use with_offsets(seq, offset)"


def test_remedies_run() -> None:
    """What a remedy of these names gives is fine."""
    cu_seqlens, attention_mask, input_ids, padding_idx = [0, 4, 12], LEFT, IDS, 1
    cases: list[tuple[Any, dict[str, Any]]] = [
        (np.arange(12), {"cu_seqlens": cu_seqlens}),
        (np.arange(5), {"attention_mask": attention_mask}),
        (np.arange(5), {"input_ids": input_ids, "padding_idx": padding_idx}),
        (positions.grid((2, 3))[::-1], {"grid": (2, 3)}),
        (np.arange(6), {"rank": 1, "world_size": 2, "cu_seqlens": cu_seqlens}),
    ]
    names = {**vars(positions), **locals()}
    for wrong, described in cases:
        (finding,) = diagnose(wrong, **described).findings
        mended = eval(finding.remedy.removeprefix("use "), names)
        assert diagnose(mended, **described).findings == ()


def test_report_is_a_value() -> None:
    report = diagnose([0, 0])
    assert report == diagnose([0, 0])
    assert hash(report) == hash(diagnose([0, 0]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.findings = ()  # type: ignore[misc]


REFUSED = [
    (lambda: diagnose([]), ValueError, "positions must have shape (seq,) or more axes, and not be empty, got (0,)"),
    (lambda: diagnose(3), ValueError, "positions must have shape (seq,) or more axes, and not be empty, got ()"),
    (lambda: diagnose([0, np.nan]), ValueError, "positions must be finite, got nan"),
    (lambda: diagnose([0, 1], grid=4), TypeError, "grid must be a sequence of integers, got 4"),
    (lambda: diagnose("012"), TypeError, "positions must be numbers"),
    (
        lambda: diagnose(np.zeros((2, 2, 2, 2), int)),
        ValueError,
        "positions must have shape (seq,) or (batch, seq), got (2, 2, 2, 2)",
    ),
    (lambda: diagnose([0, 1], axes=3), ValueError, "positions must have shape (3, seq) or (3, batch, seq), got (2,)"),
    (
        lambda: diagnose([0, 1], grid=(1, 2)),
        ValueError,
        "positions must have shape (2, seq) or (2, batch, seq), got (2,)",
    ),
    (
        lambda: diagnose(positions.with_prefix(positions.grid((2, 2)), 1), grid=(2, 2)),
        ValueError,
        "positions must have shape (2, 4), got (2, 5)",
    ),
    (lambda: diagnose([0, 1], axes=0), ValueError, "axes must be at least 1, got 0"),
    (
        lambda: diagnose([0, 1], cu_seqlens=[0, 2], offset=0),
        ValueError,
        "a batch must be described in one way, got cu_seqlens and offset",
    ),
    (lambda: diagnose([0, 1], rank=0, world_size=1, offset=0), ValueError, "in one way, got rank and offset"),
    (lambda: diagnose([0, 1], rank=0), ValueError, "rank and world_size must be given together"),
    (lambda: diagnose([0, 1], world_size=2), ValueError, "rank and world_size must be given together"),
    (lambda: diagnose([0, 1], input_ids=[5, 6]), ValueError, "input_ids and padding_idx must be given together"),
    (lambda: diagnose([0, 1], padding_idx=1), ValueError, "input_ids and padding_idx must be given together"),
    (lambda: diagnose([0, 1], cu_seqlens=[0, 3]), ValueError, "positions must have shape (3,), got (2,)"),
    (
        lambda: diagnose(TEXT, axes=3, cu_seqlens=[0, 5]),
        ValueError,
        "cu_seqlens must end within the 4 tokens of positions, got 5",
    ),
    (
        lambda: diagnose(TEXT, axes=3, offset=0),
        ValueError,
        "positions of several axes must be described by cu_seqlens or a grid, got offset",
    ),
    (lambda: diagnose([0], attention_mask=[[1, 1, 1]]), ValueError, "positions must have shape (1, 3), got (1,)"),
    (lambda: diagnose([0, 1], attention_mask=[[1, 1, 1]]), ValueError, "positions must have shape (1, 3), got (2,)"),
    (lambda: diagnose([0, 1], rank=3, world_size=2), ValueError, "rank must be at most 1, got 3"),
    (
        lambda: diagnose([0, 1], rank=0, world_size=2, scheme="ring"),
        ValueError,
        "scheme must be one of 'contiguous', 'zigzag'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    assert_refused(error, message, call)
