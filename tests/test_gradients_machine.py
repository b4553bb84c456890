"""Gradients have the same bits on every instruction set of this processor, each in a process of its own."""

from __future__ import annotations

import pytest

from conftest import run_python
from posenc import _core

LEVELS = _core.runtime()[1]
PROGRAM = """
import hashlib, ml_dtypes, numpy as np, posenc
from posenc import gradients
rng, sha = np.random.default_rng(5), hashlib.sha256()
for layout in ("half", "interleaved", "interleaved_to_half"):
    for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        for head_dim in (7, 34, 130):
            rope = posenc.Rope(head_dim, layout=layout)
            x, grad, out = (rng.standard_normal((2, 3, 41, head_dim)).astype(kind) for _ in range(3))
            gradients.of_x(rope, grad, out=out, accumulate=True)
            pairs = len(rope.inv_freq)
            found = [gradients.of_x(rope, grad), out, *gradients.of_tables(x, grad, pairs, layout=layout)]
            found += [gradients.of_frequencies(rope, x, grad), gradients.of_positions(rope, x, grad)]
            for array in found:
                sha.update(array.tobytes())
print(sha.hexdigest())
"""


@pytest.mark.parametrize("level", LEVELS[:-1])
def test_the_same_bits_on_every_level(level: str) -> None:
    assert run_python(PROGRAM, POSENC_ISA=level) == run_python(PROGRAM, POSENC_ISA=LEVELS[-1])


def test_the_hash_sees_a_bit() -> None:
    assert run_python(PROGRAM) != run_python(PROGRAM.replace("accumulate=True", "accumulate=False"))
