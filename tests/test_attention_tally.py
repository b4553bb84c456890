"""One pass over attention maps: its sums against the oracle, for every dtype and stride; refusals; no copy; one answer.

The kernels themselves are tried by tests/c/checkasm_tally.h.
"""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
import torch

from conftest import Guarded, assert_same_bits, assert_untouched, run_python
from posenc import _core, _reference
from posenc.checks import position_sanity_check

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
SHAPES = [(1, 1), (1, 9), (9, 5), (5, 9), (45, 130), (64, 64)]


def tally(view: object, width: int, diagonal: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    queries, keys = view.shape  # type: ignore[attr-defined]
    sums = np.zeros(queries + keys - 1), np.full((queries, -(-keys // width)), np.nan), np.full((queries, 4), np.nan)
    assert _core.tally(view, width, diagonal, *sums) is None
    return sums


def views(rng: np.random.Generator, shape: tuple[int, int], dtype: type) -> dict[str, np.ndarray]:
    """Return the same numbers, as they may lie in memory."""
    plain = rng.random(shape).astype(dtype)
    wide = np.repeat(plain, 3, axis=1)
    tall = np.repeat(plain, 2, axis=0)
    return {
        "plain": plain,
        "columns": np.asfortranarray(plain),
        "every third": wide[:, ::3],
        "every other row": tall[::2],
        "backwards": np.ascontiguousarray(plain[::-1, ::-1])[::-1, ::-1],
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_the_oracle(rng: np.random.Generator, shape: tuple[int, int], dtype: type) -> None:
    given = views(rng, shape, dtype)
    for width in (1, 7, 64):
        for diagonal in (-2, 0, 3, shape[1] - shape[0], 1000):
            wanted = _reference.tally(given["plain"], width, diagonal)
            found = {name: tally(view, width, diagonal) for name, view in given.items()}
            for sums in found.values():
                for mine, its in zip(sums, wanted, strict=True):
                    np.testing.assert_allclose(mine, its, rtol=1e-12, atol=1e-12)
            for name, sums in found.items():
                for mine, its in zip(sums, found["plain"], strict=True):
                    assert (mine == its).all(), name


def test_a_map_by_hand() -> None:
    """Rows (1), (1/4, 3/4): distance 0 has 1 + 3/4, distance 1 has 1/4."""
    by_offset, mass, sides = tally(np.array([[1.0, 0.0], [0.25, 0.75]]), 2, 0)
    assert by_offset.tolist() == [0.25, 1.75, 0.0]
    assert mass.tolist() == [[1.0], [1.0]]
    assert sides.tolist() == [[1.0, 0.0, 0.0, 0.0], [1.0, 0.75, 0.0, 0.0]]


def test_between_guard_pages(guarded: Guarded, rng: np.random.Generator) -> None:
    for side in ("before", "after"):
        for n in (1, 7, 8, 9, 33, 100):
            array = guarded(rng.random((3, n)).astype(np.float32), side=side)
            with assert_untouched(array):
                tally(array, 40, 0)


def test_tensors(rng: np.random.Generator) -> None:
    array = rng.random((17, 40)).astype(np.float32)
    for mine, its in zip(tally(torch.from_numpy(array), 9, 2), tally(array, 9, 2), strict=True):
        assert_same_bits(mine, its)
    half = torch.from_numpy(array).to(torch.bfloat16)
    wide = half.to(torch.float32).numpy()
    for mine, its in zip(tally(half, 9, 2), tally(wide, 9, 2), strict=True):
        assert_same_bits(mine, its)


def test_zeros_and_minus_zeros_are_weights() -> None:
    for zero in (0.0, -0.0):
        by_offset, mass, _ = tally(np.full((20, 70), zero, np.float32), 64, 0)
        assert not by_offset.any()
        assert not mass.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
def test_the_first_bad_weight_is_named(value: float, dtype: type) -> None:
    for shape, at in (((4, 300), (2, 299)), ((4, 300), (0, 0)), ((5, 8), (3, 4))):
        array = np.full(shape, 0.5, dtype)
        array[at] = value
        array[-1, -1] = value
        for view in (array, np.asfortranarray(array)):
            sums = np.zeros(sum(shape) - 1), np.empty((shape[0], -(-shape[1] // 64))), np.empty((shape[0], 4))
            assert _core.tally(view, 64, 0, *sums) == at


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        ({"width": 0}, "width must lie between 1 and 1024, got 0"),
        ({"width": 1025}, "width must lie between 1 and 1024, got 1025"),
        ({"map": np.ones((2, 3, 4))}, "a map of attention must have 2 axes, (queries, keys), got 3"),
        ({"by_offset": np.zeros(9)}, "by_offset must be contiguous float64"),
        ({"by_offset": np.zeros(8, np.float32)}, "by_offset must be contiguous float64"),
        ({"mass": np.zeros((4, 4))[:, ::2]}, "mass must be contiguous float64"),
        ({"sides": np.zeros((4, 3))}, "sides must be contiguous float64"),
    ],
)
def test_sums_of_a_wrong_shape_are_refused(replace: dict[str, object], message: str) -> None:
    right: dict[str, object] = {"map": np.ones((4, 5)), "width": 3, "diagonal": 0}
    right |= {"by_offset": np.zeros(8), "mass": np.zeros((4, 2)), "sides": np.zeros((4, 4))}
    with pytest.raises(ValueError, match=re.escape(message)):
        _core.tally(*(right | replace).values())  # type: ignore[arg-type]


def test_nothing_is_copied(rng: np.random.Generator) -> None:
    array = rng.random((2, 4, 1024, 1024), dtype=np.float32)  # 32 MiB
    position_sanity_check(array[:, :, :64, :64])
    tracemalloc.start()
    try:
        position_sanity_check(array)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < array.nbytes / 8, f"{most / 2**20:.1f} MiB"
    tracemalloc.start()
    copied = array.copy()
    assert tracemalloc.get_traced_memory()[1] >= copied.nbytes  # the instrument sees a copy
    tracemalloc.stop()


def test_the_same_bits_for_any_number_of_threads(
    threads: Callable[[int | None], None], rng: np.random.Generator
) -> None:
    array = rng.random((6, 512, 512), dtype=np.float32)
    found = []
    for n in (1, 2, 5):
        threads(n)
        found.append(repr(position_sanity_check(array).to_dict()))
    assert found[0] == found[1] == found[2]


CHILD = """
import numpy as np
from posenc import _core
a = np.random.default_rng(7).random((33, 77)).astype(np.float32)
a = np.where(np.arange(33)[:, None] + 44 >= np.arange(77), a, 0)
sums = np.zeros(109), np.empty((33, 8)), np.empty((33, 4))
_core.tally(a, 10, 44, *sums)
print(b"".join(s.tobytes() for s in sums).hex())
"""


def test_the_same_bits_on_every_level() -> None:
    found = {level: run_python(CHILD, POSENC_ISA=level) for level in _core.runtime()[1]}
    assert len(set(found.values())) == 1
