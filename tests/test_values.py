"""What functions return and constructors make: pickled, copied, compared and shown like the values that they are."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import posenc
from posenc import additive, axes, bias, checks, config, consistency, positions, query_scale, scaling, stateful, xpos

ROPE = posenc.Rope(8, layout="half")
LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 2}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def late(x: Any, where: Any) -> Any:
    return ROPE(x, positions=where + 1)


VALUES: dict[str, Callable[[], Any]] = {
    "a rotation": lambda: ROPE,
    "given frequencies": lambda: posenc.Rope(8, layout="half", inv_freq=[1, 0.5, 0.2, 0.1], axis_of_freq=[0, 0, 1, 1]),
    "a scaling": lambda: scaling.Yarn(4.0, 2048),
    "LongRoPE": lambda: scaling.LongRope((1.0, 1.0), (2.0, 2.0), 2048, factor=4.0),
    "blocks": lambda: axes.axial_blocks(16),
    "unequal": lambda: axes.vjepa2(64),
    "xPos": lambda: xpos.XPos(ROPE),
    "a convention": additive.mlx,
    "a learned table": lambda: additive.learned_table("bert", 4),
    "a query scale": query_scale.Llama4Scale,
    "a model": lambda: config.read(LLAMA),
    "an explanation": lambda: config.explain(LLAMA),
    "positions": lambda: positions.diagnose(np.arange(8)),
    "decoding": lambda: consistency.decode_consistency(ROPE, prompt=8, steps=2, head_dim=8),
}
#: equal to themselves alone: they hold arrays or NaN, or may change
OBJECTS: dict[str, Callable[[], Any]] = {
    "mixed frequencies": lambda: axes.MixedRope(8, noise(2, 2, 4), layout="half"),
    "ALiBi": lambda: bias.Alibi([0.5]),
    "T5": lambda: bias.T5(noise(32, 2), bidirectional=True),
    "KERPLE": lambda: bias.Kerple([0.5], [0.5]),
    "windows": lambda: bias.WindowBias(noise(9, 2), (2, 2)),
    "attention": lambda: checks.position_sanity_check(np.full((1, 16, 16), 1 / 16)),
    "decay": lambda: checks.rotary_decay(ROPE, 64),
    "a convention found": lambda: checks.identify(late, 8),
    "a failed check": lambda: checks.check_rope(late, ROPE),
    "a failed property": lambda: checks.origin(late, ROPE),
    "a mismatch": lambda: checks.explain_mismatch(ROPE(noise(4, 8), offset=1), x=noise(4, 8), rope=ROPE),
    "a memory": lambda: stateful.TransformersDynamicNTK(
        8, layout="half", factor=2.0, original_max_position_embeddings=16
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    value = VALUES[name]()
    for other in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value), VALUES[name]()):
        assert other == value
        assert hash(other) == hash(value)
        assert repr(other) == repr(value)
    assert " at 0x" not in repr(value)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name: str) -> None:
    value = OBJECTS[name]()
    for other in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value)):
        assert isinstance(other == value, bool)
        assert type(other) is type(value)
        assert str(other) == str(value)
    assert " at 0x" not in str(value)


def test_a_model_stays_read_only() -> None:
    found = pickle.loads(pickle.dumps(config.read(LLAMA)))
    with pytest.raises(TypeError):
        found.ropes["all"] = ROPE


def test_what_biases_show() -> None:
    assert repr(bias.Alibi([0.5, 0.25])) == "<Alibi of 2 heads, form='distance'>"
    t5 = bias.T5(noise(32, 2), bidirectional=True)
    assert repr(t5) == "<T5 of 2 heads, order='buckets_heads', bidirectional=True, max_distance=128>"
