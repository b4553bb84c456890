"""What test_same_bits.py hashes of biases and additions, and of all gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import posenc
from bits_of_rotations import KINDS, LAYOUTS, POSITIONS, Array, Way, integers, joined, numbers, placed, slices
from posenc import bias, gradients


def biases(way: Way, kind: str) -> Iterator[Array]:
    """Lines, lookups and masks: counted positions and listed ones, few queries and many; one call above 4 MiB."""
    slopes, table = posenc.alibi_slopes(6), numbers("float32", (32, 6), key=70)
    mask = {"causal": True, "window": 50, "sinks": 2}
    for queries, keys in ((37, 75), (3, 2100), (9, 130)):
        x = placed(numbers(kind, (2, 6, queries, keys), key=keys), way.shift)
        where = {"query_positions": integers(queries, 4000, key=71), "key_positions": integers(keys, 4000, key=72)}
        for options in ({}, mask, {**where, **mask}):
            rows = [(part, dict(options)) for part in slices(way, queries)]
            for part, own in rows:
                own["query_positions"] = own.get("query_positions", np.arange(keys - queries, keys))[part]
            yield joined(posenc.add_alibi(x[:, :, part], slopes, **own) for part, own in rows)
            yield joined(posenc.add_t5_bias(x[:, :, part], table, bidirectional=True, **own) for part, own in rows)
            yield posenc.add_alibi(x[..., ::-1], slopes, form="key", **options)
    many = placed(numbers(kind, (1, 6, 520, 2050 if kind != "float64" else 1025), key=73), way.shift)
    yield posenc.add_alibi(many, slopes, right_slopes=slopes[::-1], out=many)
    yield posenc.add_t5_bias(many, table, bidirectional=False, causal=True, out=many)


def sinusoids(way: Way) -> Iterator[Array]:
    """Tables of every convention, odd and wide, in both precisions and dtypes."""
    for name, convention in posenc.additive.CONVENTIONS.items():
        for dim in (6, 34, 63, 128, 2050, 4099):
            if dim % 2 and convention.odd == "refused":
                continue
            how = {"convention": name, "precision": "exact" if dim % 4 else "float32"}
            for positions in POSITIONS.values():
                for dtype in (np.float32, np.float64):
                    yield joined(
                        posenc.sinusoidal_table(placed(positions[part], way.shift), dim, dtype=dtype, **how)
                        for part in slices(way, len(positions))
                    )
    yield posenc.timestep_embedding(POSITIONS["fractions"][:20], 321, downscale_freq_shift=0.5, scale=1.5)
    yield posenc.sinusoidal_grid((5, 7), 32, convention="detr", normalise=True)


def sums(way: Way, kind: str) -> Iterator[Array]:
    """Rows of a table and rows that are made, added: by range, by position, strided, in place; and gradients."""
    dtype = np.float64 if kind == "float64" else np.float32
    for dim in (1, 31, 64, 130, 700):
        x = placed(numbers(kind, (2, 3, 41, dim), key=80 + dim), way.shift)
        table = placed(posenc.sinusoidal_table(60, dim, dtype=dtype), way.shift)
        rows, how = integers(41, 60, key=81), {"table_scale": 0.7}
        own = integers(2 * 41, 60, key=82).reshape(2, 41)
        yield joined(posenc.add_positions(x[:, :, p], table, offset=p.start, **how) for p in slices(way, 41))
        yield joined(posenc.add_positions(x[:, :, p], table, positions=rows[p], **how) for p in slices(way, 41))
        yield posenc.add_positions(x, table[:, ::-1], positions=own, padding_idx=7)
        yield posenc.add_positions(x, table.astype(x.dtype), positions=own)
        yield joined(posenc.add_sinusoidal(x[:, :, p], offset=999 + p.start, **how) for p in slices(way, 41))
        yield posenc.add_sinusoidal(x.transpose(2, 0, 1, 3), positions=np.resize(POSITIONS["hard"], 2), seq_axis=1)
        yield posenc.position_table_gradient(x, 60, positions=own, **how)
        yield posenc.add_positions(x[..., ::-1], table, out=x[..., ::-1])
    large = placed(numbers(kind, (3, 1500, 1100 // x.itemsize), key=83), way.shift)
    yield posenc.add_sinusoidal(large, out=large)
    yield posenc.position_table_gradient(large, 1500)


# ---- gradients: x in every way there is, sums whole ----


def of_rotations(way: Way, kind: str) -> Iterator[Array]:
    """Of x, out of place, in place and added; of tables, frequencies and positions, also of the rows of a batch."""
    for layout in LAYOUTS:
        for head_dim in (7, 34, 130):
            x, grad = (placed(numbers(kind, (2, 3, 41, head_dim), key=90 + i), way.shift) for i in (0, 1))
            rope = posenc.Rope(head_dim, layout=layout, base=5e4)
            yield joined(gradients.of_x(rope, grad[:, :, p], offset=p.start) for p in slices(way, 41))
            added = x.copy()
            yield gradients.of_x(rope, grad, out=added, accumulate=True)
            dtype = np.float64 if kind == "float64" else np.float32
            cos, sin = rope.table(41, dtype=dtype)
            yield gradients.of_x_by_tables(grad, cos, sin, layout=layout, out=added)
            pairs, rows = len(rope.inv_freq), integers(2 * 41, 3000, key=92).reshape(2, 41)
            for per_batch in (False, True):
                yield from gradients.of_tables(x, grad, pairs, layout=layout, per_batch=per_batch, dtype=dtype)
            yield gradients.of_frequencies(rope, x, grad, positions=rows)
            yield gradients.of_positions(rope, x, grad, positions=rows + 0.25)
        by_axis = posenc.Rope(34, layout=layout, axis_of_freq=integers(17, 3, key=93))
        x = placed(numbers(kind, (2, 3, 41, 34), key=94), way.shift)
        places = integers(3 * 41, 5000, key=95).reshape(3, 41)
        yield gradients.of_frequencies(by_axis, x, x[:, ::-1], positions=places)
        yield gradients.of_positions(by_axis, x[..., ::-1], x, positions=places)
    large = placed(numbers(kind, (1, 6, 3000, 512 // KINDS[kind].itemsize), key=96), way.shift)
    rope = posenc.Rope(large.shape[-1], layout="half")
    yield gradients.of_frequencies(rope, large, large[:, ::-1])
    yield from gradients.of_tables(large, large, large.shape[-1] // 2, layout="half")


def of_biases(way: Way, kind: str) -> Iterator[Array]:
    """Of slopes, tables, entries, queries and rows: counted positions and listed ones, masked, and a split call."""
    mask = {"causal": True, "window": 30, "sinks": 2}
    of_slopes, of_table = bias.gradients.of_slopes, bias.gradients.of_t5_table
    of_entries, of_products = bias.relative_gradients.of_disentangled, bias.relative_gradients.of_transformer_xl
    for queries, keys in ((1, 5), (37, 75), (9, 300)):
        grad = placed(numbers(kind, (2, 3, queries, keys), key=97), way.shift)
        where = {"query_positions": integers(queries, 400, key=98), "key_positions": integers(keys, 400, key=99)}
        shapes = {"c2p_shape": (2, 3, queries, 16), "p2c_shape": (3, keys, 16)}
        q = numbers(kind, (2, 3, queries, 9), key=100)
        for options in ({}, mask, {**where, **mask}):
            yield from of_slopes(grad, sides=True, per_batch=True, **options)
            yield of_slopes(grad[:, ::-1], form="key", **options)
            yield of_table(grad, bidirectional=True, max_distance=60, **options)
            yield from of_entries(grad, num_buckets=8, max_distance=60, scale=0.3, **shapes, **options)
        for options in ({}, {"window": 30, "causal": True}):
            r = numbers(kind, (3, keys + queries - 1, 9), key=101)
            yield from of_products(grad, q, r, q[:, :, :1], convention="conformer", scale=0.3, **options)
    large = placed(numbers(kind, (1, 6, 520, 1400 // KINDS[kind].itemsize), key=102), way.shift)
    yield of_slopes(large)
    yield of_table(large, bidirectional=False)
    yield from of_entries(large, c2p_shape=(1, 6, 520, 8), scale=0.3)[:1]
