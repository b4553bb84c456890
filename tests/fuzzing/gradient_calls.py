"""Calls of the gradients of rotations: of x, added or written, of tables, of frequencies and of positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fuzzing.call import Call, Expected, NoReferenceError, Verb, as_float64, dtype_name, tolerance_of
from fuzzing.memory import HUGE, Choices, array
from fuzzing.rotate_numbers import angles, choose_rows, on_every_axis, places
from fuzzing.rotate_scene import LAYOUTS, ByLength, Scene, random_scene
from posenc import _reference, gradients


def accumulation(choose: Choices, inputs: list[Any], outputs: list[list[Any]]) -> dict[str, Any]:
    """Return `out` and `accumulate`: both, one of them, or neither."""
    named: dict[str, Any] = {}
    if choose.maybe(0.8):
        found = [choose.output_for(x, out) for x, out in zip(inputs, outputs, strict=True)]
        named["out"] = found[0] if len(found) == 1 else tuple(found)
    if choose.maybe(0.7):
        named["accumulate"] = choose.given((True, True, False))
    return named


def of_x(choose: Choices, scene: Scene) -> Call:
    inputs = [choose.given(scene.q), choose.given(scene.k)][: choose.pick((1, 2))]
    named = {"seq_axis": choose.given((scene.seq_axis,))} | choose.where(scene.positions, scene.offsets)
    named |= accumulation(choose, inputs, [scene.q_out, scene.k_out][: len(inputs)])
    if choose.maybe(0.002):
        inputs, named["out"] = [choose.pick(HUGE)], choose.pick(scene.q_out)
    return Call(gradients.of_x, (scene.rope, *inputs), named, lambda: expected_of_x(scene.rope, inputs, named))


def of_x_by_tables(choose: Choices, scene: Scene) -> Call:
    x, (cos, sin) = choose.given(scene.q), choose.pick(scene.tables)
    cos, sin = choose.given((cos,), 0.01), choose.given((sin,), 0.01)
    offset = scene.rope.rotary_offset if choose.maybe(0.97) else choose.pick(choose.junk)
    named = {"layout": choose.pick(LAYOUTS), "seq_axis": choose.given((scene.seq_axis,)), "rotary_offset": offset}
    named |= choose.where(scene.rows, scene.offsets) | {"conjugate": choose.maybe(0.3)}
    named |= accumulation(choose, [x], [scene.q_out])
    return Call(gradients.of_x_by_tables, (x, cos, sin), named, lambda: expected_by_tables((x, cos, sin), named))


def of_tables(choose: Choices, scene: Scene) -> Call:
    x, grad, rope = choose.given(scene.q), choose.given(scene.q), scene.rope
    pairs = choose.given((len(rope.inv_freq),))
    pairs = 3 if type(pairs) is int and pairs > 2**16 else pairs
    named = {"layout": choose.pick(LAYOUTS), "seq_axis": choose.given((scene.seq_axis,))}
    named |= {"rotary_offset": choose.given((rope.rotary_offset,)), "conjugate": choose.given((False, True))}
    named |= {"per_batch": choose.maybe(0.3), "dtype": choose.given((np.float64, np.float32))}
    shape = scene.q[0].shape
    if choose.maybe(0.5):
        rows = (shape[scene.seq_axis], len(rope.inv_freq))
        shapes = choose.pick(((rows, rows), ((1, *rows), (1, *rows)), ((shape[0], *rows), (shape[0], *rows))))
        kind = choose.pick((np.float32, np.float64, np.float64))
        named["out"] = tuple(array(choose, size, kind, output=choose.maybe(0.98)) for size in shapes)
    return Call(gradients.of_tables, (x, grad, pairs), named, lambda: expected_of_tables(x, grad, pairs, named))


def of_numbers(choose: Choices, scene: Scene) -> Call:
    x, grad = choose.given(scene.q), choose.given(scene.q)
    named = {"seq_axis": choose.given((scene.seq_axis,))} | choose.where(scene.positions, scene.offsets)
    if choose.maybe(0.5):
        return Call(
            gradients.of_positions,
            (scene.rope, x, grad),
            named,
            lambda: expected_of_positions(scene.rope, x, grad, named),
        )
    if choose.maybe(0.4):
        named["out"] = choose.given((np.ones(len(scene.rope.inv_freq)), np.ones(2 * len(scene.rope.inv_freq))[::2]))
    return Call(
        gradients.of_frequencies,
        (scene.rope, x, grad),
        named,
        lambda: expected_of_frequencies(scene.rope, x, grad, named),
    )


# ---- what the numbers should be ----


def added(x: Any, gradient: np.ndarray, out: Any, named: dict[str, Any], slack: float, factor: float) -> Any:
    """Return what out should hold, and how far it may be off."""
    tolerance = tolerance_of(x, slack, factor)
    if not named.get("accumulate"):
        return gradient, tolerance
    return as_float64(out) + gradient, tolerance + tolerance_of(out, 0, 1) + tolerance_of(x, 0, factor)


def expected_of_x(rope: Any, inputs: list[Any], named: dict[str, Any]) -> Expected | None:
    if isinstance(rope.scaling, ByLength):
        return None
    turn = angles(rope, on_every_axis(rope, places(as_float64(inputs[0]), named), named.get("positions")))
    factor = rope.attention_factor
    table = factor * np.cos(turn), factor * np.sin(turn)
    how = (rope.layout, rope.rotary_offset, named["seq_axis"])
    slack = float(np.abs(turn).max(initial=0)) * 2**-51 + (2**-23 if rope.precision == "float32" else 0)
    outs = named.get("out")
    outs = outs if isinstance(outs, tuple) else [outs] * len(inputs)
    wanted = [_reference.transposed(as_float64(x), *table, *how) for x in inputs]
    return [
        added(x, gradient, out, named, slack, factor) for x, gradient, out in zip(inputs, wanted, outs, strict=True)
    ]


def expected_by_tables(arrays: Any, named: dict[str, Any]) -> Expected:
    x = as_float64(arrays[0])
    rows = places(x, named).astype(np.int64)
    cos, sin = (choose_rows(as_float64(table), rows) for table in arrays[1:])
    factor = float(np.hypot(cos, sin).max(initial=0))
    how = (named["layout"], named["rotary_offset"], named["seq_axis"])
    gradient = _reference.transposed(x, cos, -sin if named["conjugate"] else sin, *how)
    return [added(arrays[0], gradient, named.get("out"), named, 0, factor)]


def largest_sum(x: Any, grad: Any) -> float:
    """Return a bound of any sum of products."""
    x, grad = as_float64(x), as_float64(grad)
    return float(np.abs(x).max(initial=0) * np.abs(grad).max(initial=0)) * (2 * x.size + 1)


def expected_of_tables(x: Any, grad: Any, pairs: int, named: dict[str, Any]) -> Expected | None:
    if named["conjugate"]:
        return None
    at = {"rotary_offset": named["rotary_offset"], "seq_axis": named["seq_axis"]}
    out = named.get("out")
    per_batch = named["per_batch"] if out is None else out[0].ndim == 3 and len(out[0]) != 1
    wanted = _reference.table_gradients(
        as_float64(x), as_float64(grad), pairs, named["layout"], per_batch=per_batch, **at
    )
    if out is None:
        if per_batch and named["seq_axis"] % as_float64(x).ndim == 0:  # no batch before the sequence: one row for all
            wanted = tuple(table[None] for table in wanted)
        starts: Any = (0.0, 0.0)
        narrow = np.dtype(named["dtype"]) == np.float32
    else:
        starts, narrow = [as_float64(table) for table in out], dtype_name(out[0]) == "float32"
        wanted = [table.reshape(start.shape) for table, start in zip(wanted, starts, strict=True)]
    step = 2.0**-22 if narrow else 2.0**-45
    bound = largest_sum(x, grad)
    return [
        (start + table, step * (bound + float(np.abs(start).max(initial=0))))
        for start, table in zip(starts, wanted, strict=True)
    ]


def angle_sums(rope: Any, x: Any, grad: Any, named: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the gradient of the angles, the positions on every axis, and how far a sum of the former may be off."""
    if isinstance(rope.scaling, ByLength) or rope.precision == "float32":
        raise NoReferenceError
    given = on_every_axis(rope, places(as_float64(x), named), named.get("positions"))
    lead = 1 if rope.axes > 1 else 0
    if given.ndim - lead == 2 and given.shape[lead] == 1:
        given = given.take(0, lead)
    turn = angles(rope, given)
    tables = _reference.table_gradients(
        as_float64(x),
        as_float64(grad),
        len(rope.inv_freq),
        rope.layout,
        rotary_offset=rope.rotary_offset,
        seq_axis=named["seq_axis"],
        per_batch=given.ndim - lead == 2,
    )
    factor = rope.attention_factor
    of_angles = _reference.angle_gradients(*tables, factor * np.cos(turn), factor * np.sin(turn))
    off = largest_sum(x, grad) * factor * (2.0**-44 + 2.0**-50 * float(np.abs(turn).max(initial=0)))
    return of_angles, given, off


def axis_of_freq(rope: Any) -> np.ndarray | None:
    return rope.axis_of_freq if rope.axes > 1 else None


def expected_of_frequencies(rope: Any, x: Any, grad: Any, named: dict[str, Any]) -> Expected:
    of_angles, given, off = angle_sums(rope, x, grad, named)
    wanted = _reference.frequency_gradient(of_angles, given, axis_of_freq(rope))
    start = as_float64(named["out"]) if "out" in named else 0.0
    return [(start + wanted, off * max(float(np.abs(given).max(initial=0)), 1) + 2.0**-50)]


def expected_of_positions(rope: Any, x: Any, grad: Any, named: dict[str, Any]) -> Expected:
    """In the shape of positions or offsets: one row for all of a batch stays one."""
    of_angles, _, off = angle_sums(rope, x, grad, named)
    wanted = _reference.position_gradient(of_angles, rope.inv_freq, axis_of_freq(rope))
    if named.get("positions") is not None:
        wanted = wanted.reshape(np.shape(named["positions"]))
    elif np.ndim(named.get("offset", 0)) == 1 and wanted.ndim == (2 if rope.axes > 1 else 1):
        wanted = wanted[..., None, :]
    return [(wanted, off * max(float(np.abs(rope.inv_freq).max(initial=0)), 1) * len(rope.inv_freq) + 2.0**-50)]


VERB = Verb(random_scene, ((40, of_x), (20, of_x_by_tables), (20, of_tables), (20, of_numbers)))
