"""Calls that rotate: Rope, apply_rotary_emb, tables, frequencies, weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import posenc
from fuzzing.call import Call, Verb
from fuzzing.memory import HUGE, NOISE, Choices, array
from fuzzing.rotate_numbers import expected_by_tables, expected_rotation, expected_table
from fuzzing.rotate_scene import HEAD_DIMS, LAYOUTS, ByLength, Scene, random_scene


def count_or_positions(choose: Choices, scene: Scene) -> Any:
    """Return what a table is made for; numbers that would take memory are left out."""
    given = choose.given(scene.table_sizes)
    return 7 if type(given) is int and 2**20 < given <= 2**31 else given


def rotation(choose: Choices, scene: Scene) -> Call:
    rope = scene.rope
    q, k = choose.given(scene.q), choose.given(scene.k) if choose.maybe(0.5) else None
    named = {"seq_axis": choose.given((scene.seq_axis,)), "inverse": choose.maybe(0.3)}
    named |= choose.where(scene.positions, scene.offsets)
    if choose.maybe(0.6):
        out = choose.output_for(q, scene.q_out)
        named["out"] = out if k is None else (out, choose.output_for(k, scene.k_out))
    if choose.maybe(0.002):
        q, named["out"] = choose.pick(HUGE), choose.pick(scene.q_out) if k is None else (q, k)
    inputs = (q,) if k is None else (q, k)
    return Call(rope, inputs, named, lambda: expected_rotation(rope, inputs, named))


def by_tables(choose: Choices, scene: Scene) -> Call:
    x, (cos, sin) = choose.given(scene.q), choose.pick(scene.tables)
    cos, sin = choose.given((cos,), 0.01), choose.given((sin,), 0.01)
    offset = scene.rope.rotary_offset if choose.maybe(0.97) else choose.pick(choose.junk)
    named = {
        "layout": choose.pick(LAYOUTS),
        "seq_axis": choose.given((scene.seq_axis,)),
        "rotary_offset": offset,
    }
    named |= choose.where(scene.rows, scene.offsets) | {"conjugate": choose.maybe(0.3)}
    if choose.maybe(0.6):
        named["out"] = choose.output_for(x, scene.q_out)
    if choose.maybe(0.002):
        x, named["out"] = choose.pick(HUGE), choose.pick(scene.q_out)
    return Call(posenc.apply_rotary_emb, (x, cos, sin), named, lambda: expected_by_tables((x, cos, sin), named))


def table(choose: Choices, scene: Scene) -> Call:
    rope = scene.rope
    positions, named = count_or_positions(choose, scene), {"dtype": choose.given((np.float32, np.float64, "f4"))}
    if choose.maybe(0.3) and isinstance(positions, np.ndarray) and positions.ndim < 5:
        shape = (*positions.shape[rope.axes > 1 :], len(rope.inv_freq))
        named["out"] = tuple(array(choose, shape, choose.pick((np.float32, np.float64)), output=True) for _ in "cs")
    return Call(rope.table, (positions,), named, lambda: expected_table(rope, positions))


def frequencies(choose: Choices, scene: Scene) -> Call:
    named: dict[str, Any] = {"precision": choose.given(("exact", "float32")), "scale": choose.given((1.0, 2.5, -1))}
    if choose.maybe(0.2):
        named["axis_of_freq"] = choose.given((scene.rope.axis_of_freq,))
    arguments = (count_or_positions(choose, scene), choose.given((scene.rope.inv_freq,), 0.1))
    return Call(posenc.rotary_table, arguments, named)


def new_rope(choose: Choices, scene: Scene) -> Call:
    """Any parameters; lengths that would take memory are left out."""
    named: dict[str, Any] = {"layout": choose.given(LAYOUTS), "precision": choose.given(("exact", "float32"))}
    for name, options in (
        ("base", (1e4, 5e5, 2)),
        ("rotary_dim", range(9)),
        ("rotary_offset", range(5)),
        ("inv_freq", (NOISE[:4], None)),
        ("axis_of_freq", ([0, 1, 0, 2], None)),
        ("scaling", (None, ByLength(), posenc.scaling.InverseFrequencies((1.0,) * 4))),
    ):
        if choose.maybe(0.3):
            named[name] = choose.given(options, 0.15)
    head_dim = choose.given(HEAD_DIMS, 0.1)
    too_long = type(head_dim) is int and 2**20 < head_dim < 2**63
    return Call(posenc.Rope, (8 if too_long else head_dim,), named)


def weights(choose: Choices, scene: Scene) -> Call:
    names = ("half", "interleaved")
    named = {"source": choose.given(names), "target": choose.given(names), "rotary_dim": choose.given((None, 2, 4, 6))}
    heads = choose.given((1, 2, 3, 4))
    if type(heads) is int and heads > 2**20:  # would take memory for a weight without rows
        heads = 5
    return Call(posenc.permute_rotary_weights, (choose.given(scene.q), heads), named)


VERB = Verb(random_scene, ((45, rotation), (30, by_tables), (15, table), (4, frequencies), (4, new_rope), (2, weights)))
