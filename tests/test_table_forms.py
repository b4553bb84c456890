"""Tables as other systems keep them: against transformers' own, and the cache code of systems that are not installed.

Those are written out as their sources have them. What comes out of `split_table` is compared with torch's cosine and
sine of the same angles, and, turned through `apply_rotary_emb`, with the system's own rotation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
import torch
from transformers import CohereConfig, Llama4TextConfig, LlamaConfig
from transformers.models.cohere import modeling_cohere
from transformers.models.gptj import modeling_gptj
from transformers.models.llama import modeling_llama
from transformers.models.llama4 import modeling_llama4

import posenc
from conftest import assert_refused, assert_same_bits
from posenc import _angles
from posenc.table_forms import FORMS, join_table, split_table

Tensor = torch.Tensor
SEQ, WIDTH = 37, 16
ULP_OF_ONE = 2.0**-24  # of float32 below 1


def angles() -> Tensor:
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, WIDTH, 2).float() / WIDTH))
    return torch.outer(torch.arange(SEQ).float(), inv_freq)


def repeated(t: Tensor) -> Tensor:
    return t.repeat_interleave(2, -1)


def doubled(t: Tensor) -> Tensor:
    return torch.cat([t, t], dim=-1)


# ---- what systems keep ----


SMALL = {"hidden_size": WIDTH, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": WIDTH}
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


def llama() -> Any:
    config = LlamaConfig(**SMALL, **PLAIN)
    return modeling_llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(SEQ)[None])


def cohere() -> Any:
    config = CohereConfig(**SMALL, **PLAIN)
    return modeling_cohere.CohereRotaryEmbedding(config)(torch.zeros(1), torch.arange(SEQ)[None])


def gptj() -> Any:
    return modeling_gptj.create_sinusoidal_positions(SEQ, WIDTH)


def llama4() -> Any:
    config = Llama4TextConfig(**SMALL, **PLAIN)
    return modeling_llama4.Llama4TextRotaryEmbedding(config)(torch.zeros(1), torch.arange(SEQ)[None])


def meta() -> Any:
    """precompute_freqs_cis of meta-llama/llama, llama/model.py."""
    freqs = 1.0 / (10000.0 ** (torch.arange(0, WIDTH, 2)[: (WIDTH // 2)].float() / WIDTH))
    freqs = torch.outer(torch.arange(SEQ), freqs).float()
    return torch.polar(torch.ones_like(freqs), freqs)


def vllm() -> Any:
    """RotaryEmbedding._compute_cos_sin_cache of vLLM, rotary_embedding/base.py."""
    return torch.cat((angles().cos(), angles().sin()), dim=-1)


def torchtitan() -> Any:
    """CosSinRoPE's cache of torchtitan 0.3, models/common/rope.py."""
    theta = torch.cat([angles(), angles()], dim=-1)
    return torch.cat([theta.cos(), theta.sin()], dim=-1)


def timm_cat() -> Any:
    """RotaryEmbeddingCat of timm 1.0, layers/pos_embed_sincos.py, its values at these angles."""
    return torch.cat([repeated(angles().sin()), repeated(angles().cos())], -1)


def timm_dinov3() -> Any:
    """RotaryEmbeddingDinoV3 of the same file."""
    return torch.cat([doubled(angles().sin()), doubled(angles().cos())], -1)


def torchtune() -> Any:
    """RotaryPositionalEmbeddings.build_rope_cache of torchtune 0.6, modules/position_embeddings.py."""
    return torch.stack([torch.cos(angles()), torch.sin(angles())], dim=-1)


def megatron() -> Any:
    """RotaryEmbedding.forward of Megatron-LM, models/common/embeddings/rotary_pos_embedding.py: (seq, 1, 1, dim)."""
    return torch.cat((angles(), angles()), dim=-1)[:, None, None, :]


def megatron_interleaved() -> Any:
    """The same with rotary_interleaved=True."""
    freqs = angles()
    return torch.stack((freqs.view(-1, 1), freqs.view(-1, 1)), dim=-1).view(freqs.shape[0], -1)[:, None, None, :]


TABLES: dict[str, list[Callable[[], Any]]] = {
    "doubled": [llama],
    "repeated": [cohere],
    "cos_sin": [vllm],
    "doubled_cos_sin": [torchtitan],
    "sin_cos": [gptj],
    "doubled_sin_cos": [timm_dinov3],
    "repeated_sin_cos": [timm_cat],
    "stacked": [torchtune],
    "complex": [meta, llama4],
    "angles": [angles],
    "doubled_angles": [megatron],
    "repeated_angles": [megatron_interleaved],
}
CASES = [pytest.param(form, make, id=f"{form}-{make.__name__}") for form, makes in TABLES.items() for make in makes]


def flat(table: Any) -> Any:
    """(seq, width), whatever axes of length one the system adds."""
    return table.reshape(SEQ, WIDTH // 2)


def as_kind(table: Any, kind: str) -> Any:
    if kind == "torch":
        return table
    return tuple(t.numpy() for t in table) if isinstance(table, tuple) else table.numpy()


def test_every_form_has_a_system() -> None:
    assert set(TABLES) == set(FORMS)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("form", "make"), CASES)
def test_split(form: str, make: Callable[[], Any], kind: str) -> None:
    """Torch's own cosines and sines; bit for bit but for angles, where posenc's are the nearer ones."""
    cos, sin = split_table(as_kind(make(), kind), form)
    assert isinstance(cos, Tensor if kind == "torch" else np.ndarray)
    slack = ULP_OF_ONE if form.endswith("angles") or make in (gptj, llama4, meta) else 0.0
    for found, wanted in ((cos, angles().cos()), (sin, angles().sin())):
        assert np.abs(np.asarray(flat(found)) - wanted.numpy()).max() <= slack


@pytest.mark.parametrize(("form", "make"), CASES)
def test_split_gives_views(form: str, make: Callable[[], Any]) -> None:
    """Changing the table changes what was split from it; angles are another thing."""
    table = make()
    parts = split_table(table, form)
    before = [part.clone() for part in parts]
    for whole in table if isinstance(table, (tuple, list)) else (table,):
        whole *= 2
    for part, old in zip(parts, before, strict=True):
        assert torch.equal(part, old if form.endswith("angles") else 2 * old)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize(("form", "make"), CASES)
def test_join_makes_the_table(form: str, make: Callable[[], Any], kind: str) -> None:
    """What the system keeps, bit for bit, from its own cosines and sines."""
    table = as_kind(make(), kind)
    joined = join_table(*split_table(table, form), form)
    if form.endswith("angles"):
        assert np.abs(np.asarray(joined)).max() <= np.float32(np.pi)
        turns = (np.asarray(joined, np.float64) - np.asarray(table, np.float64)) / (2 * np.pi)
        assert np.abs(turns - np.round(turns)).max() <= 4e-8  # half an ulp of pi and the cosine's own rounding
        return
    parts, wanted = (t if isinstance(t, tuple) else (t,) for t in (joined, table))
    for found, expected in zip(parts, wanted, strict=True):
        assert type(found) is type(expected)
        assert found.dtype == expected.dtype
        assert np.array_equal(np.asarray(found), np.asarray(expected))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_round_trip(form: str, dtype: str) -> None:
    """Join, then split: the same values, in float32 at least."""
    if dtype.endswith("16") and (form == "complex" or form.endswith("angles")):
        with pytest.raises(TypeError, match="cos must be float32 or float64, got"):
            join_table(*(t.to(getattr(torch, dtype)) for t in (angles().cos(), angles().sin())), form)
        return
    kind = getattr(torch, dtype)
    parts = angles().to(torch.float64).cos().to(kind), angles().to(torch.float64).sin().to(kind)
    for table in (parts, tuple(part.reshape(1, SEQ, -1) for part in parts)):
        back = split_table(join_table(*table, form), form)
        for found, wanted in zip(back, table, strict=True):
            assert found.dtype == (torch.float64 if dtype == "float64" else torch.float32)
            assert found.shape == wanted.shape
            slack = {"float64": 1e-15, "float32": 3e-7}[dtype] if form.endswith("angles") else 0.0
            assert float((found - wanted).abs().max()) <= slack


def test_bfloat16_of_numpy() -> None:
    cos, sin = (np.asarray(t, ml_dtypes.bfloat16) for t in (angles().cos(), angles().sin()))
    table = join_table(cos, sin, "cos_sin")
    assert table.dtype == ml_dtypes.bfloat16
    for found, wanted in zip(split_table(table, "cos_sin"), (cos, sin), strict=True):
        assert_same_bits(found, wanted.astype(np.float32))


# ---- turned by them ----


def turned_llama(x: Tensor, table: Any) -> Tensor:
    return modeling_llama.apply_rotary_pos_emb(x, x, *table)[0]


def turned_cohere(x: Tensor, table: Any) -> Tensor:
    return modeling_cohere.apply_rotary_pos_emb(x, x, *table)[0]


def turned_llama4(x: Tensor, table: Any) -> Tensor:
    return modeling_llama4.apply_rotary_emb(x.transpose(1, 2), x.transpose(1, 2), table)[0].transpose(1, 2)


def turned_torchtune(x: Tensor, table: Any) -> Tensor:
    """RotaryPositionalEmbeddings.forward of torchtune."""
    pairs, cache = x.reshape(*x.shape[:-1], -1, 2), table[None, None]
    out = [
        pairs[..., 0] * cache[..., 0] - pairs[..., 1] * cache[..., 1],
        pairs[..., 1] * cache[..., 0] + pairs[..., 0] * cache[..., 1],
    ]
    return torch.stack(out, -1).flatten(3)


def turned_vllm(x: Tensor, table: Any) -> Tensor:
    """apply_rotary_emb_torch of vLLM, neox style."""
    cos, sin = table.chunk(2, dim=-1)
    x1, x2 = torch.chunk(x, 2, dim=-1)
    return torch.cat((x1 * cos - x2 * sin, x2 * cos + x1 * sin), dim=-1)


@pytest.mark.parametrize(
    ("form", "make", "turned", "layout"),
    [
        ("doubled", llama, turned_llama, "half"),
        ("repeated", cohere, turned_cohere, "interleaved"),
        ("complex", llama4, turned_llama4, "interleaved"),
        ("stacked", torchtune, turned_torchtune, "interleaved"),
        ("cos_sin", vllm, turned_vllm, "half"),
    ],
)
def test_rotates_as_the_system_does(form: str, make: Any, turned: Any, layout: str, rng: np.random.Generator) -> None:
    """The views go straight into `apply_rotary_emb`: the system's own bits."""
    x = torch.from_numpy(rng.standard_normal((1, 3, SEQ, WIDTH)).astype(np.float32))
    table = make()
    found = posenc.apply_rotary_emb(x, *split_table(table, form), layout=layout)
    assert_same_bits(found, turned(x, table).contiguous())


# ---- angles ----


def test_cosines_of_angles_are_exact(rng: np.random.Generator) -> None:
    """Within 0.501 ulp of float32 and 1 ulp of float64 of mpmath's, for angles up to 2**31."""
    values = np.concatenate([rng.uniform(-7, 7, 300), rng.uniform(-(2.0**24), 2.0**24, 300), [0.0, 2.0**31 - 1]])
    with mpmath.workprec(200):
        for dtype, bound in ((np.float32, 0.501), (np.float64, 1.0)):
            given = np.minimum(values, np.nextafter(np.float32(2.0**31), np.float32(0))).astype(dtype)
            for found, exact in zip(split_table(given, "angles"), (mpmath.cos, mpmath.sin), strict=True):
                assert found.dtype == dtype
                for angle, value in zip(given.tolist(), found, strict=True):
                    wanted = exact(mpmath.mpf(angle))
                    ulp = float(np.spacing(np.abs(np.asarray(wanted, dtype)))) or 1.0
                    assert abs(mpmath.mpf(float(value)) - wanted) <= bound * ulp


def test_angles_of_points(rng: np.random.Generator) -> None:
    """Within 2 ulp of mpmath's atan2, in all quadrants and at their edges."""
    given = np.concatenate([rng.uniform(-np.pi, np.pi, 500), np.arange(-8, 9) * np.pi / 8, [1e-300, 0.66]])
    cos, sin = np.cos(given), np.sin(given)
    found = _angles.angle(cos, sin)
    with mpmath.workprec(120):
        for c, s, value in zip(cos.tolist(), sin.tolist(), found.tolist(), strict=True):
            wanted = mpmath.atan2(mpmath.mpf(s), mpmath.mpf(c))
            assert abs(mpmath.mpf(value) - wanted) <= 2 * np.spacing(abs(float(wanted)))
    assert _angles.angle(np.array([-1.0, -1.0]), np.array([0.0, -0.0])).tolist() == [np.pi, -np.pi]


def test_empty_tables() -> None:
    for form in FORMS:
        none = np.empty((0, 4), np.float32)
        for found in split_table(join_table(none, none, form), form):
            assert found.shape == (0, 4)


# ---- what is refused ----

HALF = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
DOUBLED, REPEATED = np.concatenate([HALF, HALF], -1), np.repeat(HALF, 2, -1)


def changed(table: np.ndarray) -> np.ndarray:
    table = table.copy()
    table[2, 5] += 1
    return table


REFUSED: list[tuple[type[Exception], str, Callable[[], object]]] = [
    (ValueError, "form must be one of 'doubled', 'repeated', 'cos_sin',", lambda: split_table(HALF, "vllm")),
    (ValueError, "form must be one of 'doubled', 'repeated', 'cos_sin',", lambda: join_table(HALF, HALF, None)),
    (TypeError, "table must be a pair (cos, sin) for form 'doubled', got <class 'numpy.ndarray'>",
     lambda: split_table(DOUBLED, "doubled")),
    (TypeError, "table must be a NumPy array or a torch tensor, got <class 'tuple'>",
     lambda: split_table((HALF, HALF), "cos_sin")),
    (TypeError, "table must be a NumPy array or a torch tensor, got <class 'list'>",
     lambda: split_table([[1.0, 2.0]], "angles")),
    (TypeError, "cos must be float32 or float64 or float16 or bfloat16, got int64",
     lambda: split_table((DOUBLED.astype(int), DOUBLED), "doubled")),
    (TypeError, "table must be complex64 or complex128, got float32", lambda: split_table(HALF, "complex")),
    (TypeError, "got complex64", lambda: split_table(HALF.astype(np.complex64), "cos_sin")),
    (TypeError, "sin must be of the kind and dtype of cos, ndarray of float32, got ndarray of float64",
     lambda: join_table(HALF, HALF.astype(float), "stacked")),
    (TypeError, "sin must be of the kind and dtype of cos, ndarray of float32, got Tensor of float32",
     lambda: join_table(HALF, torch.from_numpy(HALF), "stacked")),
    (TypeError, "sin must be of the kind and dtype of cos, ndarray of float32, got <class 'NoneType'>",
     lambda: split_table((DOUBLED, None), "doubled")),
    (ValueError, "sin must have the shape of cos, (3, 4), got (2, 4)", lambda: join_table(HALF, HALF[:2], "cos_sin")),
    (ValueError, "table must have a last axis of a multiple of 2 for form 'cos_sin', got shape (3, 3)",
     lambda: split_table(HALF[:, :3], "cos_sin")),
    (ValueError, "table must have a last axis of a multiple of 4 for form 'repeated_sin_cos', got shape (3, 2)",
     lambda: split_table(HALF[:, :2], "repeated_sin_cos")),
    (ValueError, "cos must have a last axis of a multiple of 2 for form 'repeated', got shape (3, 3)",
     lambda: split_table((HALF[:, :3], HALF[:, :3]), "repeated")),
    (ValueError, "table must have an axis for form 'angles', got shape ()",
     lambda: split_table(HALF[0, 0, ...], "angles")),
    (ValueError, "table must have shape (..., rotary_dim/2, 2) for form 'stacked', got (3, 4)",
     lambda: split_table(HALF, "stacked")),
    (ValueError, "both copies of a value must be the same for form 'doubled', but those of (2, 1) are 0.8",
     lambda: split_table((DOUBLED, changed(DOUBLED)), "doubled")),
    (ValueError, "both copies of a value must be the same for form 'repeated', but those of (2, 2) are 0.9",
     lambda: split_table((changed(REPEATED), REPEATED), "repeated")),
    (ValueError, "; the table is repeated", lambda: split_table((REPEATED, REPEATED), "doubled")),
    (ValueError, "; the table is doubled", lambda: split_table(torch.from_numpy(DOUBLED), "repeated_angles")),
    (ValueError, "must be the same for form 'doubled_angles'", lambda: split_table(changed(DOUBLED), "doubled_angles")),
    (ValueError, "angles must be finite and below 2**31", lambda: split_table(np.array([1.0, np.nan]), "angles")),
    (ValueError, "angles must be finite and below 2**31", lambda: split_table(np.array([-(2.0**31)]), "angles")),
    (ValueError, "cos**2 + sin**2 must be 1 for a form of angles", lambda: join_table(HALF, HALF, "angles")),
    (ValueError, "cos**2 + sin**2 must be 1", lambda: join_table(HALF * np.nan, HALF, "repeated_angles")),
    (TypeError, "table is a tensor that NumPy cannot read: ", lambda: split_table(angles().requires_grad_(), "angles")),
    (TypeError, "table is a masked array", lambda: split_table(np.ma.masked_array(DOUBLED), "cos_sin")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), REFUSED, ids=[f"{i}-{r[1][:40]}" for i, r in enumerate(REFUSED)])
def test_refused(error: type[Exception], message: str, call: Callable[[], object]) -> None:
    assert_refused(error, message, call, HALF, DOUBLED, REPEATED)


def test_nan_in_both_copies_is_no_difference() -> None:
    holes = np.where(HALF > 0.5, np.nan, HALF)
    cos, _ = split_table(join_table(holes, holes, "doubled"), "doubled")
    assert_same_bits(cos, holes)
