"""What the family tables know of configs that say nothing, and what turns without a rotary class of its own."""

from __future__ import annotations

import inspect
import os
from typing import Any

import numpy as np
import pytest

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.gptj import modeling_gptj
from transformers.models.vjepa2 import modeling_vjepa2

import transformers_zoo as zoo
from posenc import config
from posenc.config._family import Family, Switch

CASES = {str(case): case for case in zoo.cases() if case.config not in zoo.NEEDED}
#: Keys that say something about positions; without them, only the family's own facts are left.
POSITIONAL = {
    *("rope_parameters", "rope_scaling", "rope_theta", "compress_rope_theta", "partial_rotary_factor", "rotary_dim"),
    *("layer_types", "layers_block_type", "no_rope_layers", "no_rope_layer_interval", "layer_rope_theta"),
    *("rope_scaling_layers", "per_layer_config", "head_dim", "qk_rope_head_dim"),
    *("spatial_rope_base_frequency", "uid_rope_base_frequency"),
}
#: Names of this project for configs of transformers that have no model_type, and of models that it no longer has.
OWN_NAMES = {*zoo.UNNAMED.values(), "nezha", "realm", "transfo-xl"}


@pytest.mark.broad
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_without_a_word_on_positions(case: zoo.Case) -> None:
    """The same ropes and layers as from transformers' default config, which says everything."""
    own, _ = zoo.built(case)
    name = zoo.UNNAMED.get(case.config, own.model_type)
    whole = own.to_dict()
    told = config.read(whole, family=name)
    bare = config.read({key: value for key, value in whole.items() if key not in POSITIONAL}, family=name)
    assert bare.ropes == told.ropes
    assert bare.layers == told.layers


def families(entry: Any) -> list[Family]:
    entries = entry.cases.values() if isinstance(entry, Switch) else [entry]
    return [one for one in entries if isinstance(one, Family)]


def reads_a_part(case: zoo.Case) -> bool:
    rotary = getattr(case.module, case.rotary)
    return any(
        "partial_rotary_factor" in inspect.getsource(one)
        for one in rotary.__mro__[:-1]
        if one.__module__ == rotary.__module__
    )


@pytest.mark.broad
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_who_reads_a_partial_rotary_factor(case: zoo.Case) -> None:
    """A family has a rotated part exactly where its rotary class reads one; latent heads turn whole."""
    own, _ = zoo.built(case)
    for family in families(config.FAMILIES[zoo.UNNAMED.get(case.config, own.model_type)]):
        for kind in family.kinds.values():
            assert family.latent or (kind.partial is not None) == reads_a_part(case)


@pytest.mark.broad
def test_names_are_those_of_transformers() -> None:
    known = set(CONFIG_MAPPING_NAMES) | {zoo.built(case)[0].model_type for case in zoo.cases()} | OWN_NAMES
    assert set(config.FAMILIES) <= known


@pytest.mark.broad
def test_composite_models_answer_with_their_text() -> None:
    """The same part as transformers' get_text_config, for every composite whose text is a known family."""
    count = 0
    for name in CONFIG_MAPPING_NAMES:
        whole = default_composite(name)
        text = None if whole is None else whole.get_text_config(decoder=True)
        if text is None or text.model_type not in config.FAMILIES or type(text).__name__ in zoo.NEEDED:
            continue
        if name != "lightglue":  # refused
            assert config.read(whole).family == text.model_type, name
            count += 1
    assert count > 140


def default_composite(name: str) -> Any:
    """Return the default config of a composite model, or None where it is none or has none."""
    kind = CONFIG_MAPPING[name]
    if not kind.sub_configs:
        return None
    try:
        return kind()
    except (ValueError, TypeError, StrictDataclassError):  # it needs parts, or contradicts itself
        return None


# ---- rotations without a class


@pytest.mark.parametrize(("model_type", "rotary_dim"), [("gptj", 64), ("gptj", 32), ("codegen", 64)])
def test_tables_of_gptj(model_type: str, rotary_dim: int) -> None:
    """create_sinusoidal_positions gives [sin | cos]; CodeGen's is a copy of GPT-J's."""
    own = AutoConfig.for_model(model_type, rotary_dim=rotary_dim)
    rope = config.read(own, precision="float32").rope()
    assert (rope.layout, rope.rotary_dim, rope.head_dim) == ("interleaved", rotary_dim, 256)
    sin, cos = modeling_gptj.create_sinusoidal_positions(2048, rotary_dim).chunk(2, dim=-1)
    for a, b in zip(rope.table(2048), (cos, sin), strict=True):
        assert np.abs(a - b.numpy()).max() <= 2e-4  # its frequencies are in float32 by another formula
    q = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 8, 3, 256), np.float32))
    turned = modeling_gptj.apply_rotary_pos_emb(q[..., :rotary_dim], sin[None, :8], cos[None, :8])
    theirs = torch.cat([turned, q[..., rotary_dim:]], dim=-1)
    assert torch.allclose(rope(q, seq_axis=1), theirs, rtol=0, atol=1e-5)


def test_vjepa2() -> None:
    """No rotation, reproduced: rotate_queries_or_keys for each of three blocks (posenc.axes.vjepa2)."""
    own = AutoConfig.for_model("vjepa2")
    rope = config.read(own).rope()
    head_dim = own.hidden_size // own.num_attention_heads
    width = 2 * (head_dim // 3 // 2)
    positions = np.stack([np.arange(10) % n for n in (2, 5, 7)])
    q = torch.from_numpy(np.random.default_rng(2).standard_normal((1, 2, 10, head_dim), np.float32))
    blocks = [
        modeling_vjepa2.rotate_queries_or_keys(q[..., axis * width : (axis + 1) * width], torch.from_numpy(row))
        for axis, row in enumerate(positions)
    ]
    theirs = torch.cat([*blocks, q[..., 3 * width :]], dim=-1)
    assert torch.allclose(rope(q, positions=positions), theirs, rtol=0, atol=1e-5)


def test_hunyuan_vl() -> None:
    """No rotation, reproduced: the tables of transformers hold other axes for the second element of a pair."""
    case = next(case for case in zoo.cases() if case.folder == "hunyuan_vl")
    own, module = zoo.built(case)
    rope = config.read(own, precision="float32").rope()
    positions = np.stack([[np.arange(8) * (axis + 1)] for axis in range(4)])
    q = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 2, 8, 128), np.float32))
    cos, sin = module(q, torch.from_numpy(positions))
    theirs, _ = case.module.apply_rotary_pos_emb(q, q, cos, sin)
    assert torch.allclose(rope(q, positions=positions), theirs, rtol=0, atol=1e-5)
    norms = (theirs.norm(dim=-1) / q.norm(dim=-1) - 1).abs().max()
    assert norms > 0.01  # which no rotation does
