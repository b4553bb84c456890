"""Calls of the sums over maps of attention, as the checks make them of the compiled core."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fuzzing.call import Call, Expected, Verb, as_float64
from fuzzing.memory import FLOATS, HUGE, TORCH_FLOATS, Choices, array, tensor, torch
from posenc import _core, _reference


@dataclasses.dataclass
class Scene:
    """Maps that are weights, and some that are none, with places for their sums."""

    maps: list[Any]
    width: int
    diagonals: list[Any]
    by_offset: list[Any]
    mass: list[Any]
    sides: list[Any]

    def arrays(self) -> list[Any]:
        """Return all arrays that calls are given."""
        return [*self.maps, *self.by_offset, *self.mass, *self.sides]


def random_scene(choose: Choices) -> Scene:
    queries, keys = choose.pick((0, 1, 3, 20)), choose.pick((0, 1, 7, 40, 300))
    width = choose.pick((1, 5, 64, 300))
    maps = [array(choose, (queries, keys), choose.pick(FLOATS)) for _ in range(3)]
    maps += [np.abs(array(choose, (queries, keys), kind)) for kind in FLOATS]
    if torch:
        maps.append(tensor(choose, (queries, keys), choose.pick(TORCH_FLOATS)).abs())
    offsets, blocks = max(queries + keys - 1, 0), -(-keys // width)

    def sums(*shape: int) -> list[Any]:
        return [np.zeros(shape), np.ones(shape), *([array(choose, shape, np.float64)] if choose.maybe(0.1) else ())]

    diagonals = [0, keys - queries, -queries - 5, keys + 7, 2**40, -(2**40)]
    return Scene(maps, width, diagonals, sums(offsets), sums(queries, blocks), sums(queries, 4))


def tally(choose: Choices, scene: Scene) -> Call:
    maps = choose.given(scene.maps)
    if choose.maybe(0.002):
        maps = choose.pick([a for a in HUGE if a.ndim == 2])
    sums = [choose.given(options, 0.01) for options in (scene.by_offset, scene.mass, scene.sides)]
    arguments = (maps, scene.width, choose.pick(scene.diagonals))
    return Call(Tally(), arguments, {"out": tuple(sums)}, lambda: expected_tally(*arguments, sums))


class Tally:
    """`_core.tally` with its outputs by a name that the fuzzer knows, which it returns."""

    def __call__(self, maps: Any, width: Any, diagonal: Any, out: Any) -> Any:
        """Add to the sums."""
        _core.tally(maps, width, diagonal, *out)
        return out


def expected_tally(maps: Any, width: int, diagonal: int, sums: list[Any]) -> Expected | None:
    """Of maps that hold weights; sums by offset are added to, the others written."""
    weights = as_float64(maps)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        return None
    by_offset, mass, sides = _reference.tally(weights, width, max(-(2**20), min(2**20, diagonal)))
    most = float(weights.sum()) * (weights.shape[1] + 1)
    start = as_float64(sums[0])
    bound = 2.0**-45 * (most + float(np.abs(start).max(initial=0)))
    return [(start + by_offset, bound), (mass.reshape(sums[1].shape), bound), (sides, bound)]


VERB = Verb(random_scene, ((1, tally),))
