"""Calls that add: positions of tables, sinusoids, their tables, the gradient of a table, grids and resized tables."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import posenc
from conftest import OtherArray
from fuzzing.call import Call, Expected, NoReferenceError, Verb, as_float64, tolerance_of
from fuzzing.memory import FLOATS, HUGE, TORCH_FLOATS, Choices, array, noise, tensor, torch
from fuzzing.rotate_numbers import places
from fuzzing.rotate_scene import random_positions, random_shape
from posenc import _reference
from posenc.additive import CONVENTIONS, GRIDS

DIMS = (1, 2, 3, 4, 7, 8, 16, 33, 64)
PADDING = (None, None, 0, 1, 3, -1, 2**40)


@dataclasses.dataclass
class Scene:
    """Arguments that fit together."""

    dim: int
    seq_axis: int
    x: list[Any]
    out: list[Any]
    tables: list[Any]
    gradients: list[Any]
    positions: list[Any]
    rows: list[Any]
    offsets: list[Any]

    def arrays(self) -> list[Any]:
        """Return everything whose memory may be compared."""
        return [*self.x, *self.out, *self.tables, *self.gradients, *self.positions, *self.rows, *self.offsets]


def random_scene(choose: Choices) -> Scene:
    dim, name = choose.pick(DIMS), choose.pick(TORCH_FLOATS)
    shape, axis = random_shape(choose, dim)
    dtype = FLOATS[TORCH_FLOATS.index(name)]
    batch, seq = shape[0] if axis > 0 else 1, shape[axis]
    wide = np.float64 if dtype is np.float64 else np.float32
    height = seq + choose.randint(1, 9)

    def some(output: bool) -> list[Any]:
        found = [array(choose, tuple(shape), dtype, output=output) for _ in range(3)]
        found += [tensor(choose, tuple(shape), name, output=output)] if torch else []
        return found + ([] if output else [OtherArray(noise(choose, tuple(shape), np.float32))])

    tables = [array(choose, (height, dim), kind) for kind in (wide, wide, dtype)]
    rows = [choose_rows(choose, batch, seq, height) for _ in range(4)]
    starts = [choose.randint(0, height - seq) for _ in range(batch)]
    offsets = [0, choose.randint(0, height - seq), starts, np.array(starts), 2**31 - 100]
    return Scene(
        dim,
        axis,
        some(False),
        some(True),
        tables + ([torch.from_numpy(np.array(tables[0], order="C"))] if torch else []),
        [array(choose, (height, dim), wide, output=True) for _ in range(2)],
        random_positions(choose, 1, batch, seq),
        rows,
        offsets,
    )


def choose_rows(choose: Choices, batch: int, seq: int, height: int) -> Any:
    """Return rows of a table: repeated, counting, for all or for each."""
    shape = choose.pick(((seq,), (1, seq), (batch, seq)))
    found = np.abs(noise(choose, shape, np.float64) * 1e6).astype(np.int64) % height
    if choose.maybe(0.4):
        found[...] = np.arange(seq)
    return found if choose.maybe(0.5) else found.astype(choose.pick((np.int32, np.uint8, np.int16)))


def how_of(choose: Choices, scene: Scene, positions: list[Any]) -> dict[str, Any]:
    named = {"seq_axis": choose.given((scene.seq_axis,)), "padding_idx": choose.given(PADDING)}
    return named | choose.where(positions, scene.offsets) | {"table_scale": choose.given((1.0, 1.0, -0.5, 3))}


def by_table(choose: Choices, scene: Scene) -> Call:
    x, table, named = choose.given(scene.x), choose.given(scene.tables), how_of(choose, scene, scene.rows)
    if choose.maybe(0.6):
        named["out"] = choose.output_for(x, scene.out)
    if choose.maybe(0.002):
        x, named["out"] = choose.pick(HUGE), choose.pick(scene.out)
    return Call(posenc.add_positions, (x, table), named, lambda: expected_sum(x, table, named))


def by_sinusoid(choose: Choices, scene: Scene) -> Call:
    x, named = choose.given(scene.x), how_of(choose, scene, scene.positions)
    named |= {"convention": choose.given(tuple(CONVENTIONS)), "precision": choose.given(("exact", "exact", "float32"))}
    if choose.maybe(0.6):
        named["out"] = choose.output_for(x, scene.out)
    if choose.maybe(0.002):
        x, named["out"] = choose.pick(HUGE), choose.pick(scene.out)
    return Call(posenc.add_sinusoidal, (x,), named, lambda: expected_sinusoid(x, named))


def table(choose: Choices, scene: Scene) -> Call:
    positions, dim = choose.given([*scene.positions, 0, 1, 5]), choose.given((scene.dim,))
    positions = 7 if type(positions) is int and 2**16 < positions <= 2**31 else positions
    dim = 9 if type(dim) is int and dim > 2**16 else dim
    named = {"convention": choose.given(tuple(CONVENTIONS)), "dtype": choose.given((np.float32, np.float64))}
    named |= {"padding_idx": choose.given(PADDING), "base": choose.given((1e4, 2, 77.5))}
    if choose.maybe(0.3) and isinstance(positions, np.ndarray) and isinstance(dim, int) and 0 < dim < 999:
        named["out"] = array(choose, (*positions.shape[:3], dim), choose.pick((np.float32, np.float64)), output=True)
    return Call(posenc.sinusoidal_table, (positions, dim), named)


def gradient(choose: Choices, scene: Scene) -> Call:
    grad, named = choose.given(scene.x), how_of(choose, scene, scene.rows)
    rows = choose.given((5, 40))
    rows = 3 if type(rows) is int and rows > 2**16 else rows
    if choose.maybe(0.7):
        named |= {"out": choose.given(scene.gradients), "accumulate": choose.given((True, False))}
        return Call(posenc.position_table_gradient, (grad,), named)
    return Call(posenc.position_table_gradient, (grad, rows), named, lambda: expected_gradient(grad, rows, named))


def others(choose: Choices, scene: Scene) -> Call:
    """Grids, timesteps, resized tables; sizes that would take memory are left out."""

    def small(value: Any) -> Any:
        return 4 if type(value) is int and value > 64 else value

    kind = choose.random()
    if kind < 0.4:
        named = {"convention": choose.given(tuple(GRIDS)), "normalise": choose.given((False, True))}
        shape = tuple(small(choose.given((1, 2, 3, 5))) for _ in range(choose.pick((1, 2, 2, 3))))
        return Call(posenc.sinusoidal_grid, (shape, small(choose.given((16, 32, 24, 7)))), named)
    if kind < 0.7:
        named = {"downscale_freq_shift": choose.given((0, 1, 0.5)), "flip_sin_to_cos": choose.given((True, False))}
        named |= {"scale": choose.given((1, 1000)), "max_period": choose.given((1e4, 2))}
        return Call(posenc.timestep_embedding, (choose.given(scene.positions), small(choose.given(DIMS))), named)
    named = {"mode": choose.given((None, "bicubic", "bilinear", "linear")), "antialias": choose.given((True, False))}
    named |= {"prefix_tokens": choose.given((0, 1)), "scale_offset": choose.given((0.0, 0.1))}
    shape = choose.pick((3, (3, 5), small(choose.given((2, 7)))))
    return Call(posenc.resize_table, (choose.given(scene.tables), shape), named)


# ---- what the numbers should be ----


def rows_of(values: np.ndarray, padding: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return positions without a batch axis of one, and which of them are kept as they are."""
    values = values[0] if values.ndim == 2 and len(values) == 1 else values
    return values, None if padding is None else values == padding


def scale_of(named: dict[str, Any]) -> float:
    """Return the scale of the table; one beyond float32 makes infinities there, and of them what is no number."""
    scale = float(named["table_scale"])
    if abs(scale) > 1e38:
        raise NoReferenceError
    return scale


def expected_sum(x: Any, table: Any, named: dict[str, Any]) -> Expected:
    rows, kept = rows_of(places(as_float64(x), named).astype(np.int64), named["padding_idx"])
    scale, looked_up = (
        scale_of(named),
        as_float64(table)[np.where(kept, 0, rows) if kept is not None else rows],
    )
    largest = scale * float(np.abs(looked_up).max(initial=0))
    wanted = _reference.add(as_float64(x), looked_up, scale, kept, named["seq_axis"])
    return [(wanted, tolerance_of(x, 0, 1) + tolerance_of(x, 0, 0) * abs(largest) + abs(largest) * tolerance_like(x))]


def tolerance_like(x: Any) -> float:
    """Return the rounding of a one of x's dtype."""
    return tolerance_of(np.ones(1, as_dtype(x)), 0, 1)


def as_dtype(x: Any) -> Any:
    name = str((x.array if isinstance(x, OtherArray) else x).dtype).removeprefix("torch.")
    return FLOATS[TORCH_FLOATS.index(name)]


def expected_sinusoid(x: Any, named: dict[str, Any]) -> Expected:
    values, kept = rows_of(places(as_float64(x), named), named["padding_idx"])
    convention, dim = CONVENTIONS[named["convention"]], as_float64(x).shape[-1]
    factor = float(np.sqrt(2 / dim)) if convention.scale is None else 1.0
    inv_freq = convention.inv_freq(dim)
    if named["precision"] == "float32":
        values, inv_freq = values.astype(np.float32).astype(np.float64), inv_freq.astype(np.float32).astype(np.float64)
    rows = _reference.sinusoid(values, inv_freq, convention.order, dim, factor)
    scale = scale_of(named)
    wanted = _reference.add(as_float64(x), rows, scale, kept, named["seq_axis"])
    far = float(np.abs(values).max(initial=0))
    slack = far * 2**-50 + (far * 2**-23 if named["precision"] == "float32" else 0) + 2**-23
    return [(wanted, tolerance_of(x, 0, 1) + abs(scale) * (slack + tolerance_like(x)))]


def expected_gradient(grad: Any, rows: int, named: dict[str, Any]) -> Expected:
    values, kept = rows_of(places(as_float64(grad), named).astype(np.int64), named["padding_idx"])
    if kept is not None:
        values = np.where(kept, -1, values)
    scale = scale_of(named)
    wanted = _reference.scatter(as_float64(grad), values, rows, scale, named["seq_axis"])
    return [(wanted, 1e-5 * (1 + abs(scale)) * (1 + float(np.abs(as_float64(grad)).sum())))]


VERB = Verb(random_scene, ((40, by_table), (30, by_sinusoid), (12, table), (12, gradient), (6, others)))
