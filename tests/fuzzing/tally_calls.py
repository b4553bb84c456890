"""Calls of the sums over maps of attention, as the checks make them of the compiled core."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fuzzing.call import Call, Verb
from fuzzing.memory import FLOATS, HUGE, TORCH_FLOATS, Choices, array, tensor, torch
from posenc import _core


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
    return Call(Tally(sums), (maps, scene.width, choose.pick(scene.diagonals)), {"out": tuple(sums)})


class Tally:
    """`_core.tally` with its outputs by a name that the fuzzer knows."""

    def __init__(self, sums: list[Any]) -> None:
        self.sums = sums

    def __call__(self, maps: Any, width: Any, diagonal: Any, out: Any) -> Any:
        """Add to the sums."""
        return _core.tally(maps, width, diagonal, *out)


VERB = Verb(random_scene, ((1, tally),))
