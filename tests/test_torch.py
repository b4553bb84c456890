"""torch CPU tensors, of this torch and of an older one, and other libraries' arrays: read and written where they lie.

What is refused of them is in test_torch_guards.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import posenc
from conftest import OtherArray, assert_refused, assert_same_bits, assert_untouched, run_python

DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
}
SHAPE = (2, 3, 4, 8)
ROPE = posenc.Rope(8, layout="half")


def noise(rng: np.random.Generator, dtype: torch.dtype, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).to(dtype)


def as_numpy(x: torch.Tensor) -> np.ndarray:
    """Return a NumPy array of the same bits and dtype, bfloat16 being ml_dtypes'."""
    if x.dtype is torch.bfloat16:
        return x.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


@pytest.fixture(params=DTYPES, ids=str)
def x(request: pytest.FixtureRequest, rng: np.random.Generator) -> torch.Tensor:
    return noise(rng, request.param)


# ---- in and out ----


def test_new_tensors(x: torch.Tensor) -> None:
    """The bits of the NumPy call, as tensors of the same dtype."""
    k = x[:, :1].clone()
    with assert_untouched(x, k):
        q2, k2 = ROPE(x, k, offset=5)
    assert type(q2) is type(k2) is torch.Tensor
    assert q2.dtype is k2.dtype is x.dtype
    assert_same_bits(as_numpy(q2), ROPE(as_numpy(x), offset=5))
    assert_same_bits(as_numpy(k2), ROPE(as_numpy(k), offset=5))


def test_in_place(x: torch.Tensor) -> None:
    expected, address = ROPE(x), x.data_ptr()
    assert ROPE(x, out=x) is x
    assert x.data_ptr() == address
    assert_same_bits(x, expected)


def test_pair_in_place(x: torch.Tensor) -> None:
    k = x[:, 1:2].clone()
    expected, addresses = ROPE(x, k, positions=[9, 1, 2, 3]), (x.data_ptr(), k.data_ptr())
    q2, k2 = ROPE(x, k, positions=[9, 1, 2, 3], out=(x, k))
    assert q2 is x
    assert k2 is k
    assert (x.data_ptr(), k.data_ptr()) == addresses
    assert_same_bits(x, expected[0])
    assert_same_bits(k, expected[1])


def test_numpy_and_torch_mix(x: torch.Tensor) -> None:
    """Kinds may differ between input and output, q and k, tensors and tables."""
    expected = ROPE(x)
    for out in (np.empty_like(as_numpy(x)), torch.empty_like(x)):
        for source in (x, as_numpy(x)):
            assert ROPE(source, out=out) is out
            assert_same_bits(as_numpy(torch.as_tensor(out)) if torch.is_tensor(out) else out, as_numpy(expected))
    q, k = ROPE(as_numpy(x), x)
    assert type(q) is np.ndarray
    assert type(k) is torch.Tensor
    wide = np.float64 if x.dtype is torch.float64 else np.float32
    cos, sin = ROPE.table(4, dtype=wide)
    for tables in ((cos, sin), (torch.from_numpy(cos), torch.from_numpy(sin)), (torch.from_numpy(cos), sin)):
        assert_same_bits(posenc.apply_rotary_emb(x, *tables, layout="half"), expected)


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": lambda base: base[:2, :4, :3].transpose(1, 2)[..., :8],
    "strided": lambda base: base[:4:2, 1:7:2, ::2, ::2],
    "permuted": lambda base: base[:8, :4, :3, :2].permute(3, 2, 1, 0),
    "as_strided": lambda base: torch.as_strided(base, SHAPE, (7, 640, 128, 16), 5),
    "narrow": lambda base: base.narrow(3, 5, 8)[:2, :3, :4],
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_views(name: str, dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Strided tensors in place change only their own elements; new tensors keep the order of the axes."""
    base = noise(rng, dtype, (8, 8, 8, 16))
    view = VIEWS[name](base)
    assert view.shape == SHAPE
    expected = ROPE(view.contiguous())
    found = ROPE(view)
    assert_same_bits(found, expected)
    assert found.stride() == torch.empty_like(view).stride()
    rest = base.clone()
    VIEWS[name](rest).fill_(0)
    ROPE(view, out=view)
    assert_same_bits(view, expected)
    VIEWS[name](base).fill_(0)
    assert_same_bits(base, rest)


def test_expanded_inputs(rng: np.random.Generator) -> None:
    """Stride 0 is an input like others and never an output."""
    one = noise(rng, torch.float32, (1, 3, 4, 8))
    x = one.expand(SHAPE)
    assert_same_bits(ROPE(x), ROPE(x.clone()))
    text = "out stores several elements in the same memory (an expanded or overlapping view)"
    assert_refused(ValueError, text, lambda: ROPE(x, out=x), one)
    assert_refused(ValueError, text, lambda: ROPE(torch.zeros(SHAPE), out=x), one)


def test_odd_and_empty() -> None:
    for shape in ((0, 8), (2, 0, 3, 8), (3, 0, 8)):
        empty = torch.empty(shape)
        assert ROPE(empty).shape == shape
        assert ROPE(empty, out=empty) is empty
    for shape in ((), (8,)):
        few = torch.ones(shape)
        assert_refused(ValueError, f"got {len(shape)} axes", lambda few=few: ROPE(few), few)


# ---- positions, offsets, tables ----


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float64, torch.float32, torch.int16, torch.uint8])
def test_positions(dtype: torch.dtype, rng: np.random.Generator) -> None:
    x = noise(rng, torch.float32)
    rows = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]], dtype=dtype)
    for positions in (
        rows,
        rows.T.contiguous().T,
        rows[0],
        rows[:1].expand(2, 4),
        torch.stack([rows, rows], -1)[..., 0],
    ):
        assert_same_bits(ROPE(x, positions=positions), ROPE(x, positions=positions.contiguous().numpy()))
    cos, sin = ROPE.table(rows)
    assert type(cos) is type(sin) is torch.Tensor
    assert_same_bits(cos.numpy(), ROPE.table(rows.numpy())[0])


@pytest.mark.parametrize("offset", [torch.tensor(7), torch.tensor(7, dtype=torch.int32), torch.tensor([7])], ids=str)
def test_offset_of_one_element(offset: torch.Tensor, rng: np.random.Generator) -> None:
    x = noise(rng, torch.float32)
    assert_same_bits(ROPE(x, offset=offset), ROPE(x, offset=7))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_offset_of_each_row(dtype: torch.dtype, rng: np.random.Generator) -> None:
    x = noise(rng, torch.float32)
    assert_same_bits(ROPE(x, offset=torch.tensor([7, 200], dtype=dtype)), ROPE(x, offset=[7, 200]))


KINDS = "must be integers, float32 or float64, got"
HALVES = "(half precision cannot count positions)"
NUMBERS = {
    "float16": (lambda: torch.arange(4).half(), f"{KINDS} float16 {HALVES}"),
    "bfloat16": (
        lambda: torch.arange(4).bfloat16(),
        f"{KINDS} torch.bfloat16 {HALVES}",
    ),
    "bool": (lambda: torch.ones(4, dtype=torch.bool), f"{KINDS} bool"),
    "complex": (lambda: torch.ones(4, dtype=torch.cfloat), f"{KINDS} complex64"),
    "requires grad": (lambda: torch.ones(4, requires_grad=True), "requires grad, which this call would not record"),
    "negated": (lambda: torch._neg_view(torch.ones(4)), "is a negated view, stored with the other sign"),
    "meta": (lambda: torch.ones(4, device="meta"), "must be a dense torch tensor in CPU memory, got device meta"),
    "sparse": (lambda: torch.arange(4).to_sparse(), "must be a dense torch tensor in CPU memory, got device cpu"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_wrong_positions(name: str, rng: np.random.Generator) -> None:
    made, text = NUMBERS[name]
    x, positions = noise(rng, torch.float32), made()
    assert_refused(TypeError, f"positions {text}", lambda: ROPE(x, positions=positions, out=x), x)
    assert_refused(TypeError, f"positions {text}", lambda: ROPE.table(positions), x)


def test_wrong_offsets(rng: np.random.Generator) -> None:
    x = noise(rng, torch.float32)
    for offset in (torch.tensor(3.0), torch.tensor([3.0, 4.0])):
        assert_refused(TypeError, "offset must be an integer or", lambda o=offset: ROPE(x, offset=o, out=x), x)
    assert_refused(ValueError, "got shape (3,)", lambda: ROPE(x, offset=torch.tensor([1, 2, 3])), x)
    assert_refused(TypeError, "got device meta", lambda: ROPE(x, offset=torch.tensor(3, device="meta")), x)


def test_tables_into_tensors() -> None:
    cos, sin = ROPE.table(5)
    out = (torch.empty(5, 4), torch.empty(4, 5).T)
    version = [part._version for part in out]
    found = ROPE.table(5, out=out)
    assert found[0] is out[0]
    assert found[1] is out[1]
    assert_same_bits(out[0].numpy(), cos)
    assert_same_bits(out[1].numpy(), sin)
    assert [part._version for part in out] == [v + 1 for v in version]


def test_uint64_rows() -> None:
    cos, sin = ROPE.table(16)
    found = posenc.apply_rotary_emb(
        torch.ones(SHAPE), cos, sin, layout="half", positions=torch.arange(4).to(torch.uint64)
    )
    assert_same_bits(found, ROPE(torch.ones(SHAPE)))


# ---- an older torch, other libraries ----

OLDER_TORCH = """
import gc, sys
import numpy as np
import posenc
rope = posenc.Rope(8, layout="half")
rope(np.ones((3, 8), np.float32))
import torch
del torch.Tensor.__dlpack_c_exchange_api__

def refused(error, text, call):
    try:
        call()
    except error as e:
        assert text in str(e), e
    else:
        raise AssertionError(text)

for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    base = torch.linspace(-2, 2, 768).view(2, 4, 12, 8).to(dtype)
    view = base.transpose(1, 2)[:, ::4]
    expected = rope(base.double().transpose(1, 2)[:, ::4].to(dtype).contiguous(), offset=torch.tensor([1, 2]))
    assert torch.equal(rope(view, offset=torch.tensor([1, 2])), expected)
    address = view.data_ptr()
    assert rope(view, positions=torch.tensor([[1, 2, 3, 4], [2, 3, 4, 5]], dtype=torch.int32), out=view) is view
    assert torch.equal(view, expected) and view.data_ptr() == address
    assert view._version == 1
x = torch.ones(2, 3, 4, 8)
refused(TypeError, "requires grad", lambda: rope(x.clone().requires_grad_()))
refused(TypeError, "negated view", lambda: rope(torch._neg_view(x)))
refused(TypeError, "got device meta", lambda: rope(torch.ones(2, 3, 4, 8, device="meta")))
refused(TypeError, "layout torch.sparse_coo", lambda: rope(x.to_sparse()))
refused(TypeError, "got torch.int32", lambda: rope(x.int()))
refused(TypeError, "inside a function transform such as vmap", lambda: torch.vmap(lambda a: rope(a))(x))
refused(TypeError, "half precision", lambda: rope(x, positions=torch.ones(4, dtype=torch.bfloat16)))
refused(ValueError, "stores several elements", lambda: rope(x, out=torch.ones(1, 3, 4, 8).expand(2, 3, 4, 8)))
assert x.eq(1).all()

def grown(n):
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(n):
        rope(x, positions=positions)
    gc.collect()
    return sys.getallocatedblocks() - before

positions = torch.arange(4)
grown(100)
print(grown(1000))
"""


@pytest.fixture(scope="module")
def blocks_left_by_an_older_torch() -> int:
    """Run everything against a torch, imported after the first call, that does not publish the exchange API."""
    return int(run_python(OLDER_TORCH))


def test_an_older_torch(blocks_left_by_an_older_torch: int) -> None:
    """It is read through .numpy(), bfloat16 as int16; the child process asserts the rest."""
    assert isinstance(blocks_left_by_an_older_torch, int)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_other_libraries(dtype: Any, rng: np.random.Generator) -> None:
    """Read, written and returned where they lie; what is new is a NumPy array."""
    array = rng.standard_normal(SHAPE).astype(dtype)[:, ::-1]
    other, expected = OtherArray(array), ROPE(array)
    assert_same_bits(ROPE(other), expected)
    cos, sin = (OtherArray(t) for t in ROPE.table(4, dtype=np.float64 if dtype is np.float64 else np.float32))
    assert_same_bits(posenc.apply_rotary_emb(array, cos, sin, layout="half"), expected)
    result = OtherArray(np.empty(SHAPE, dtype))
    assert ROPE(array, out=result) is result
    assert_same_bits(result.array, expected)
    assert ROPE(other, out=other) is other
    assert_same_bits(array, expected)
    read_only = array.copy()
    read_only.flags.writeable = False
    frozen = OtherArray(read_only)
    assert_refused(BufferError, "out is read-only", lambda: ROPE(frozen, out=frozen), read_only)


def test_import_does_not_import_torch() -> None:
    """Nor a call, nor showing the runtime."""
    code = """
import sys, numpy as np, posenc
posenc.Rope(8, layout="half")(np.ones((2, 3, 8), np.float32), offset=3)
posenc.show_runtime()
print([name for name in ("torch", "ml_dtypes", "transformers", "matplotlib") if name in sys.modules])
"""
    assert run_python(code).splitlines()[-1] == "[]"


def test_an_older_torch_leaks_nothing(blocks_left_by_an_older_torch: int) -> None:
    assert blocks_left_by_an_older_torch < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tables_by_a_dtype_of_torch(dtype: torch.dtype) -> None:
    """Whoever has tensors writes torch.float64."""
    rope = posenc.Rope(8, layout="half")
    for table in (*rope.table(torch.arange(3), dtype=dtype), *posenc.rotary_table(torch.arange(3), [1.0], dtype=dtype)):
        assert table.dtype is dtype
    name = str(dtype).removeprefix("torch.")
    assert posenc.sinusoidal_table(3, 8, dtype=dtype).dtype == name
    assert posenc.timestep_embedding(3, 8, dtype=dtype).dtype == name
    assert posenc.alibi_bias([1], 2, 2, dtype=dtype).dtype == name
