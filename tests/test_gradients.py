"""The backward pass in C: against the oracle, against finite differences, for every layout, dtype and way to lie.

The oracle's own formulas are held to finite differences of its forward rotation, which is held to mpmath elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import posenc
from conftest import assert_refused, assert_same_bits, assert_untouched
from posenc import _reference, gradients
from posenc.scaling import Yarn

Array = np.ndarray
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
KINDS = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
AXIS_OF_FREQ = [0, 1, 1, 0]
#: head_dim, what else a Rope is made of, seq_axis, shape without head_dim
CASES: dict[str, tuple[int, dict[str, Any], int, tuple[int, ...]]] = {
    "plain": (8, {}, -2, (2, 3, 5)),
    "packed": (8, {}, 0, (7, 3)),
    "heads inside": (8, {}, -3, (2, 5, 3)),
    "partial": (12, {"rotary_dim": 6, "rotary_offset": 3}, -2, (2, 3, 5)),
    "odd": (7, {}, -2, (2, 3, 5)),
    "several axes": (8, {"axis_of_freq": AXIS_OF_FREQ}, -2, (2, 3, 5)),
    "attention factor": (8, {"scaling": Yarn(4.0, 32)}, -2, (1, 3, 5)),
    "float32 recipe": (8, {"precision": "float32"}, -2, (2, 3, 5)),
    "wide": (2100, {}, -2, (2, 3)),
    "many rows": (8, {}, -2, (2, 3, 150)),
}


def draw(rng: np.random.Generator, shape: tuple[int, ...], kind: Any = np.float64) -> Array:
    return rng.standard_normal(shape).astype(kind)


class Case:
    """A rotation with positions of its own, its inputs, and the oracle's answers."""

    def __init__(self, name: str, layout: str, kind: Any, rng: np.random.Generator, per_row: bool = False) -> None:
        head_dim, how, self.seq_axis, lead = CASES[name]
        self.rope = posenc.Rope(head_dim, layout=layout, **how)
        self.x, self.grad = draw(rng, (*lead, head_dim), kind), draw(rng, (*lead, head_dim), kind)
        seq = self.x.shape[self.seq_axis]
        rows = (self.x.shape[0], seq) if per_row else (seq,)
        axes = (self.rope.axes,) if self.rope.axes > 1 else ()
        self.positions = np.round(rng.uniform(-9, 99, (*axes, *rows)) * 8) / 8
        self.options = {"positions": self.positions, "seq_axis": self.seq_axis}
        self.table = _reference.table(
            self.positions, self.rope.inv_freq, self.rope.axis_of_freq, self.rope.attention_factor
        )
        place = {"rotary_offset": self.rope.rotary_offset, "seq_axis": self.seq_axis}
        self.of_x = _reference.transposed(self.grad, *self.table, layout, **place)
        pairs = len(self.rope.inv_freq)
        self.of_tables = _reference.table_gradients(self.x, self.grad, pairs, layout, per_batch=per_row, **place)
        self.of_angles = _reference.angle_gradients(*self.of_tables, *self.table)

    def forward(self, x: Array, inv_freq: Array, positions: Array) -> float:
        """Return the loss whose gradients are asked for."""
        rope = self.rope
        y = _reference.rotate(
            x,
            positions,
            inv_freq,
            rope.layout,
            axis_of_freq=rope.axis_of_freq,
            rotary_offset=rope.rotary_offset,
            seq_axis=self.seq_axis,
            scale=rope.attention_factor,
        )
        return float((y * self.grad).sum())


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def slope(f: Callable[[Array], float], at: Array, index: tuple[int, ...], step: float) -> float:
    up, down = at.copy(), at.copy()
    up[index] += step
    down[index] -= step
    return (f(up) - f(down)) / (2 * step)


@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("wide", "packed", "many rows")])
def test_the_oracle_meets_finite_differences(name: str, layout: str, per_row: bool, rng: np.random.Generator) -> None:
    case = Case(name, layout, np.float64, rng, per_row)
    inv_freq = np.array(case.rope.inv_freq)
    x_index = tuple(int(rng.integers(n)) for n in case.x.shape)
    found = slope(lambda x: case.forward(x, inv_freq, case.positions), case.x, x_index, 0.5)  # linear in x
    assert found == pytest.approx(case.of_x[x_index], rel=1e-9, abs=1e-9)
    of_frequencies = _reference.frequency_gradient(case.of_angles, case.positions, case.rope.axis_of_freq)
    for i in range(len(inv_freq)):
        found = slope(lambda w: case.forward(case.x, w, case.positions), inv_freq, (i,), 1e-6)
        assert found == pytest.approx(of_frequencies[i], rel=1e-5, abs=1e-4)
    of_positions = _reference.position_gradient(case.of_angles, inv_freq, case.rope.axis_of_freq)
    index = tuple(int(rng.integers(n)) for n in case.positions.shape)
    found = slope(lambda p: case.forward(case.x, inv_freq, p), case.positions, index, 1e-5)
    assert found == pytest.approx(of_positions[index], rel=1e-6, abs=1e-6)


def assert_near(found: Array, wanted: Array, tolerance: float) -> None:
    """Relative to the largest element: single ones may cancel."""
    assert found.shape == np.shape(wanted)
    scale = max(float(np.abs(wanted).max(initial=0)), 1e-30)
    assert float(np.abs(found.astype(np.float64) - wanted).max(initial=0)) <= tolerance * scale


@pytest.mark.parametrize("kind", KINDS)
def test_of_x(name: str, layout: str, kind: str, rng: np.random.Generator) -> None:
    case = Case(name, layout, KINDS[kind], rng)
    with assert_untouched(case.grad):
        found = gradients.of_x(case.rope, case.grad, **case.options)
    assert found.dtype == case.grad.dtype
    tolerance = {"float32": 4e-7, "float64": 1e-14, "float16": 1.01 * 2**-11, "bfloat16": 1.01 * 2**-8}[kind]
    assert_near(found, case.of_x, max(tolerance, 2e-5 if name == "float32 recipe" else 0))
    both = gradients.of_x(case.rope, case.grad, case.grad, **case.options)
    assert_same_bits(both[0], found)
    if layout != "interleaved_to_half" or 2 * len(case.rope.inv_freq) <= 2048:
        gradients.of_x(case.rope, case.grad, out=case.grad, **case.options)
        assert_same_bits(case.grad, found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "per_row"),
    [(name, per_row) for name in CASES for per_row in (False, True) if not (per_row and name == "packed")],
)
def test_of_numbers(name: str, layout: str, kind: str, per_row: bool, rng: np.random.Generator) -> None:
    """Tables, frequencies and positions: all sums are float64, whatever x is."""
    case = Case(name, layout, KINDS[kind], rng, per_row)
    rope, pairs = case.rope, len(case.rope.inv_freq)
    with assert_untouched(case.x, case.grad):
        place = {"layout": layout, "rotary_offset": rope.rotary_offset, "seq_axis": case.seq_axis}
        tables = gradients.of_tables(case.x, case.grad, pairs, per_batch=per_row, **place)
        of_frequencies = gradients.of_frequencies(rope, case.x, case.grad, **case.options)
        of_positions = gradients.of_positions(rope, case.x, case.grad, **case.options)
    for found, wanted in zip(tables, case.of_tables, strict=True):
        assert_near(found, wanted, 1e-14)
    loose = 2e-5 if name == "float32 recipe" else 1e-13
    wanted = _reference.frequency_gradient(case.of_angles, case.positions, rope.axis_of_freq)
    assert_near(of_frequencies, wanted, loose)
    assert of_positions.shape == case.positions.shape
    assert_near(of_positions, _reference.position_gradient(case.of_angles, rope.inv_freq, rope.axis_of_freq), loose)


def test_strides(layout: str, rng: np.random.Generator) -> None:
    """Transposed, reversed, broadcast and strided inputs, x and its gradient each in its own way."""
    rope = posenc.Rope(8, layout=layout)
    x = draw(rng, (5, 2, 3, 16), np.float32).transpose(1, 2, 0, 3)[..., ::2]
    grad = np.broadcast_to(draw(rng, (2, 1, 5, 8), np.float32)[:, :, ::-1], (2, 3, 5, 8))
    packed = np.ascontiguousarray(x), np.ascontiguousarray(grad)
    found = gradients.of_frequencies(rope, x, grad), *gradients.of_tables(x, grad, 4, layout=layout)
    wanted = gradients.of_frequencies(rope, *packed), *gradients.of_tables(*packed, 4, layout=layout)
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other, 1e-14)


def test_orders_of_axes_agree(layout: str, rng: np.random.Generator) -> None:
    """(batch, heads, seq, dim) and (batch, seq, heads, dim) in memory: the same bits."""
    rope = posenc.Rope(8, layout=layout)
    x, grad = draw(rng, (2, 3, 70, 8), np.float32), draw(rng, (2, 3, 70, 8), np.float32)
    other = [np.ascontiguousarray(a.swapaxes(1, 2)) for a in (x, grad)]
    assert_same_bits(gradients.of_frequencies(rope, x, grad), gradients.of_frequencies(rope, *other, seq_axis=-3))
    assert_same_bits(gradients.of_positions(rope, x, grad), gradients.of_positions(rope, *other, seq_axis=-3))


@pytest.mark.parametrize("shape", [(2, 4, 1500, 96), (1500, 4, 2, 96)], ids=["long", "many"])
@pytest.mark.parametrize("per_row", [False, True], ids=["shared", "per row"])
def test_threads_give_the_same_bits(
    shape: tuple[int, ...], per_row: bool, threads: Callable[[int], None], rng: np.random.Generator
) -> None:
    """Above the size at which calls are split; and the blocks of one thread are those of two."""
    rope = posenc.Rope(shape[-1], layout="half")
    x, grad = draw(rng, shape, np.float32), draw(rng, shape, np.float32)
    offset = rng.integers(0, 999, shape[0]) if per_row else 7
    results = []
    for n in (1, 2, 3):
        threads(n)
        results.append(
            (
                gradients.of_x(rope, grad, offset=offset),
                gradients.of_frequencies(rope, x, grad, offset=offset),
                gradients.of_positions(rope, x, grad, offset=offset),
                *gradients.of_tables(x, grad, 48, layout="half", per_batch=per_row),
            )
        )
    for other in results[1:]:
        for found, wanted in zip(other, results[0], strict=True):
            assert_same_bits(found, wanted)
    positions = np.add.outer(offset, np.arange(shape[2])).astype(float)
    cos, sin = _reference.table(positions, rope.inv_freq)
    of_angles = _reference.angle_gradients(
        *_reference.table_gradients(x, grad, 48, "half", per_batch=per_row), cos, sin
    )
    assert_near(results[0][1], _reference.frequency_gradient(of_angles, positions), 1e-12)
    assert_near(results[0][2], _reference.position_gradient(of_angles, rope.inv_freq), 1e-12)


def test_adding_to_what_is_there(rng: np.random.Generator) -> None:
    """Frequencies and tables grow by the gradient; a float32 table is rounded once."""
    rope = posenc.Rope(8, layout="half")
    x, grad = draw(rng, (2, 3, 5, 8)), draw(rng, (2, 3, 5, 8))
    before, fresh = draw(rng, (4,)), gradients.of_frequencies(rope, x, grad)
    total = before.copy()
    assert gradients.of_frequencies(rope, x, grad, out=total) is total
    assert_same_bits(total, before + fresh)
    exact = gradients.of_tables(x, grad, 4, layout="half")
    old = draw(rng, (5, 4), np.float32), draw(rng, (5, 4), np.float32)
    tables = old[0].copy(), old[1].copy()
    gradients.of_tables(x, grad, 4, layout="half", out=tables)
    for found, start, more in zip(tables, old, exact, strict=True):
        assert_same_bits(found, (start.astype(np.float64) + more).astype(np.float32))


def test_conjugate_tables(layout: str, rng: np.random.Generator) -> None:
    x, grad = draw(rng, (2, 5, 8)), draw(rng, (2, 5, 8))
    cos, sin = gradients.of_tables(x, grad, 4, layout=layout)
    cos2, sin2 = gradients.of_tables(x, grad, 4, layout=layout, conjugate=True)
    assert_same_bits(cos2, cos)
    np.testing.assert_array_equal(sin2, -sin)


def test_by_tables_and_by_positions_agree(layout: str, rng: np.random.Generator) -> None:
    rope = posenc.Rope(8, layout=layout)
    grad = draw(rng, (2, 5, 8), np.float32)
    cos, sin = rope.table(5)
    assert_same_bits(gradients.of_x_by_tables(grad, cos, sin, layout=layout), gradients.of_x(rope, grad))


def test_transposed_is_not_inverse(rng: np.random.Generator) -> None:
    """They differ by the attention factor squared, and <R x, g> = <x, R^T g> decides which is which."""
    rope = posenc.Rope(64, layout="half", scaling=Yarn(8.0, 128))
    assert rope.attention_factor > 1.1
    x, grad = draw(rng, (3, 9, 64)), draw(rng, (3, 9, 64))
    transposed, inverse = gradients.of_x(rope, grad), rope(grad, inverse=True)
    assert (rope(x) * grad).sum() == pytest.approx((x * transposed).sum(), rel=1e-12)
    np.testing.assert_allclose(transposed, inverse * rope.attention_factor**2, rtol=1e-12, atol=1e-12)


def test_length_dependent_scalings(rng: np.random.Generator) -> None:
    rope = posenc.Rope(8, layout="half", scaling=posenc.scaling.DynamicNTK(2.0, 16))
    x, grad = draw(rng, (40, 8)), draw(rng, (40, 8))
    fixed = rope.at(40)
    assert_same_bits(gradients.of_x(rope, grad), gradients.of_x(fixed, grad))
    assert_same_bits(gradients.of_frequencies(rope, x, grad), gradients.of_frequencies(fixed, x, grad))
    assert_same_bits(gradients.of_positions(rope, x, grad, seq_len=40), gradients.of_positions(fixed, x, grad))


def test_nothing_to_sum(rng: np.random.Generator) -> None:
    rope = posenc.Rope(8, layout="half")
    for shape in ((2, 0, 8), (0, 5, 8)):
        x = np.empty(shape, np.float32)
        assert gradients.of_x(rope, x).shape == shape
        assert_same_bits(gradients.of_frequencies(rope, x, x), np.zeros(4))
        assert gradients.of_positions(rope, x, x).shape == shape[1:2]


def test_wrong_input(rng: np.random.Generator) -> None:
    rope = posenc.Rope(8, layout="half")
    x, grad = draw(rng, (2, 5, 8)), draw(rng, (2, 5, 8))
    total, tables = np.zeros(4), (np.zeros((5, 4)), np.zeros((5, 4)))
    of, arrays = gradients.of_frequencies, (x, grad, total, *tables)

    def of_tables(**more: Any) -> object:
        return gradients.of_tables(x, grad, 4, layout="half", **more)

    assert_refused(TypeError, "x must be", lambda: of(rope, x.astype(int), grad, out=total), *arrays)
    assert_refused(TypeError, "grad must be", lambda: of(rope, x, grad.astype(int), out=total), *arrays)
    assert_refused(TypeError, "the dtype of x", lambda: of(rope, x, grad.astype(np.float32), out=total), *arrays)
    assert_refused(ValueError, "grad must have the shape of x", lambda: of(rope, x, grad[:1], out=total), *arrays)
    assert_refused(ValueError, "head_dim 8", lambda: of(rope, x[..., :6], grad[..., :6], out=total), *arrays)
    assert_refused(ValueError, "positions", lambda: of(rope, x, grad, positions=[1.0], out=total), *arrays)
    assert_refused(ValueError, "finite", lambda: of(rope, x, grad, positions=[np.nan] * 5, out=total), *arrays)
    assert_refused(ValueError, "out must have shape (4,)", lambda: of(rope, x, grad, out=total[:3]), *arrays)
    assert_refused(
        ValueError,
        "out must be contiguous, got a stride of 16 bytes",
        lambda: of(rope, x, grad, out=np.zeros(8)[::2]),
        *arrays,
    )
    assert_refused(
        TypeError, "out must be float64, got float32", lambda: of(rope, x, grad, out=np.zeros(4, "f")), *arrays
    )
    frozen = np.zeros(4)
    frozen.flags.writeable = False
    assert_refused(BufferError, "out is read-only", lambda: of(rope, x, grad, out=frozen), *arrays)
    assert_refused(ValueError, "overlap", lambda: of(rope, x, grad, out=x[0, 0, :4]), *arrays)
    assert_refused(ValueError, "overlap", lambda: of_tables(out=(tables[0], tables[0])), *arrays)
    assert_refused(ValueError, "4 columns", lambda: of_tables(out=tuple(table[:, :3] for table in tables)), *arrays)
    assert_refused(ValueError, "with per_batch", lambda: of_tables(out=tables, per_batch=True), *arrays)
    assert_refused(
        TypeError,
        "a pair of arrays, one for cos and one for sin, got <class",
        lambda: of_tables(out=tables[0]),
        *arrays,
    )
    assert_refused(ValueError, "cos must have shape", lambda: of_tables(out=(tables[0][:4], tables[1])), *arrays)
    assert_refused(ValueError, "sin must have shape", lambda: of_tables(out=(tables[0], tables[1][:4])), *arrays)
    assert_refused(TypeError, "float32 or float64", lambda: of_tables(out=(tables[0].astype("e"), tables[1])), *arrays)
    assert_refused(ValueError, "seq_axis", lambda: of_tables(seq_axis=5), *arrays)
    assert_refused(ValueError, "cos must have shape", lambda: gradients.of_tables(x, grad, 5, layout="half"), *arrays)
    assert_refused(ValueError, "layout", lambda: gradients.of_tables(x, grad, 4, layout="neox"), *arrays)
