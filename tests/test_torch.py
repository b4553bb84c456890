"""torch CPU tensors: read and written where they lie, bfloat16 included, and never against autograd's back.

The way to a tensor's memory skips torch's own guards; what they would have caught is refused here by name.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

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


# ---- autograd ----

GRAD = "requires grad, which this call would not record; use posenc.torch, or pass its .detach()"


def test_gradients_are_refused(rng: np.random.Generator) -> None:
    """As an input, as an output, as a table, as a leaf, as a result, under no_grad too."""
    x, leaf = noise(rng, torch.float32), noise(rng, torch.float32).requires_grad_()
    cos, sin = (torch.from_numpy(table) for table in ROPE.table(4))
    for grown in (leaf, leaf * 2, torch.nn.Parameter(x.clone())):
        assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g), x)
        assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g, out=g), x)
        assert_refused(TypeError, f"out {GRAD}", lambda g=grown: ROPE(x, out=g), x)
        assert_refused(TypeError, f"k {GRAD}", lambda g=grown: ROPE(x, g, out=(x, g)), x)
        with torch.no_grad():
            assert_refused(TypeError, f"x {GRAD}", lambda g=grown: ROPE(g, out=g), x)
    cos.requires_grad_()
    assert_refused(TypeError, f"cos {GRAD}", lambda: posenc.apply_rotary_emb(x, cos, sin, layout="half"), x)


def test_parameters_without_gradient(rng: np.random.Generator) -> None:
    frozen = torch.nn.Parameter(noise(rng, torch.float32), requires_grad=False)
    expected = ROPE(frozen.detach().clone())
    assert type(ROPE(frozen)) is torch.Tensor
    assert ROPE(frozen, out=frozen) is frozen
    assert_same_bits(frozen, expected)


def test_detached_memory_of_a_leaf(rng: np.random.Generator) -> None:
    """What the message proposes works."""
    leaf = noise(rng, torch.float32).requires_grad_()
    expected = ROPE(leaf.detach())
    ROPE(leaf.detach(), out=leaf.detach())
    assert_same_bits(leaf, expected)


def assert_backward_refused(write: Callable[[torch.Tensor], object]) -> None:
    """A tensor that autograd saved and `write` overwrote makes backward raise instead of giving a wrong gradient."""
    saved, weight = torch.full(SHAPE, 2.0), torch.ones(SHAPE, requires_grad=True)
    product = (saved * weight).sum()
    write(saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_backward_after_a_write_raises() -> None:
    """In place, through another view, as one of a pair, by tables, in a split call's slices."""
    other = torch.ones(SHAPE)
    cos, sin = ROPE.table(4)
    assert_backward_refused(lambda saved: ROPE(saved, out=saved))
    assert_backward_refused(lambda saved: ROPE(other, out=saved))
    assert_backward_refused(lambda saved: ROPE(saved[1:], out=saved[1:]))
    assert_backward_refused(lambda saved: ROPE(saved, other, out=(saved, other)))
    assert_backward_refused(lambda saved: ROPE(other, saved, out=(other, saved)))
    assert_backward_refused(lambda saved: posenc.apply_rotary_emb(saved, cos, sin, layout="half", out=saved))


def test_version_counters() -> None:
    """One step for each tensor written, none for inputs, new tensors and refused calls."""
    q, k = torch.ones(SHAPE), torch.ones(SHAPE)
    ROPE(q, k)
    assert (q._version, k._version) == (0, 0)
    assert_refused(ValueError, "positions", lambda: ROPE(q, positions=[1], out=q), q)
    assert q._version == 0
    ROPE(q, out=q)
    assert (q._version, k._version) == (1, 0)
    ROPE(q, k, out=(q, k))
    assert (q._version, k._version) == (2, 1)
    ROPE(q, out=torch.empty(SHAPE))
    ROPE(q, k.numpy(), out=(q, k.numpy()))
    assert (q._version, k._version) == (3, 1)
    assert ROPE(q)._version == 0


def test_version_of_a_split_call(threads: Callable[[int], None]) -> None:
    """Slices share the counter of the whole: it moves, whichever thread wrote."""
    threads(2)
    saved = torch.ones(16, 1024, 256)
    weight = torch.ones_like(saved).requires_grad_()
    product = (saved * weight).sum()
    posenc.Rope(256, layout="half")(saved, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_inference_tensors(rng: np.random.Generator) -> None:
    """They have no version counter and need none: inside and outside inference mode, alone and beside others."""
    with torch.inference_mode():
        x = noise(rng, torch.float32).clone()
        expected = ROPE(x)
        ROPE(x, out=x)
        assert expected.is_inference()
        assert_same_bits(x, expected)
    assert x.is_inference()
    again, plain = ROPE(x), noise(rng, torch.float32)
    ROPE(x, out=x)
    assert_same_bits(x, again)
    wanted = ROPE(x, plain)
    ROPE(x, plain, out=(x, plain))
    assert_same_bits(x, wanted[0])
    assert_same_bits(plain, wanted[1])
    ROPE(plain, x, out=(plain, x))
    assert plain._version == 2


def test_a_plain_tensor_in_inference_mode() -> None:
    x = torch.ones(SHAPE)
    with torch.inference_mode():
        ROPE(x, out=x)
    assert x._version == 1


# ---- tensors whose memory is not their value ----


class Sub(torch.Tensor):
    pass


def fake() -> torch.Tensor:
    with FakeTensorMode():
        return torch.ones(SHAPE)


def quiet(make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Make a tensor of a kind that torch announces as beta or deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


SUBCLASS = "a tensor subclass whose memory may not be its value; pass a plain torch.Tensor"
DENSE = "must be a dense torch tensor in CPU memory, got device"
NOT_ITS_OWN = "must be a dense torch tensor of its own; this one is quantized, nested, or inside a function transform"
FLOATS = "must be float32, float64, float16 or bfloat16 in native byte order, got"
STRANGE: dict[str, tuple[Callable[[], Any], str]] = {
    "subclass": (lambda: torch.ones(SHAPE).as_subclass(Sub), SUBCLASS),
    "fake": (fake, SUBCLASS),
    "negated": (lambda: torch._neg_view(torch.ones(SHAPE)), "is a negated view, stored with the other sign; pass its"),
    "imaginary part of a conjugate": (lambda: torch.ones(SHAPE, dtype=torch.cfloat).conj().imag, "is a negated view"),
    "conjugate": (lambda: torch.ones(SHAPE, dtype=torch.cfloat).conj(), f"{FLOATS} torch.complex64"),
    "complex": (lambda: torch.ones(SHAPE, dtype=torch.cdouble), f"{FLOATS} torch.complex128"),
    "meta": (lambda: torch.ones(SHAPE, device="meta"), f"{DENSE} meta, layout torch.strided"),
    "sparse": (lambda: torch.ones(SHAPE).to_sparse(), f"{DENSE} cpu, layout torch.sparse_coo"),
    "compressed": (lambda: quiet(torch.eye(8).to_sparse_csr), f"{DENSE} cpu, layout torch.sparse_csr"),
    "mkldnn": (lambda: torch.ones(SHAPE).to_mkldnn(), f"{DENSE} cpu, layout torch._mkldnn"),
    "quantized": (lambda: quiet(lambda: torch.quantize_per_tensor(torch.ones(SHAPE), 0.1, 0, torch.qint8)), "must be"),
    "nested": (lambda: quiet(lambda: torch.nested.nested_tensor([torch.ones(4, 8), torch.ones(3, 8)])), NOT_ITS_OWN),
    "zero": (lambda: torch._efficientzerotensor(SHAPE), "has no memory of its own"),
    "int": (lambda: torch.ones(SHAPE, dtype=torch.int32), f"{FLOATS} torch.int32"),
    "bool": (lambda: torch.ones(SHAPE, dtype=torch.bool), f"{FLOATS} torch.bool"),
    "float8": (lambda: torch.ones(SHAPE).to(torch.float8_e4m3fn), f"{FLOATS} torch.float8_e4m3fn"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_tensors(name: str) -> None:
    made, text = STRANGE[name]
    strange, x = made(), torch.ones(SHAPE)
    for call in (lambda: ROPE(strange), lambda: ROPE(strange, out=strange), lambda: ROPE(strange, out=x)):
        assert_refused(TypeError, text, call, x)
    for call in (lambda: ROPE(x, out=strange), lambda: ROPE(x, strange, out=(x, strange))):
        assert_refused(TypeError, text, call, x)


TRANSFORMS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "vmap": (lambda f: torch.vmap(f), "x must be"),
    "grad": (lambda f: torch.func.grad(lambda x: f(x).sum()), "requires grad"),
    "jvp": (lambda f: lambda x: torch.func.jvp(f, (x,), (x,)), "x requires grad"),
    "functionalize": (lambda f: torch.func.functionalize(f), "x has no memory of its own"),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_function_transforms(name: str) -> None:
    """Inside vmap, grad, jvp and functionalize a tensor's memory is not its value."""
    transform, text = TRANSFORMS[name]
    x = torch.ones(SHAPE)
    for inner in (lambda a: ROPE(a), lambda a: ROPE(a, out=a)):
        assert_refused(TypeError, text, lambda inner=inner: quiet(lambda: transform(inner)(x)), x)


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


# ---- what looks like a plain tensor ----


def test_forward_mode_gradients() -> None:
    x = torch.ones(SHAPE)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones(SHAPE))
        assert_refused(TypeError, "grad", lambda: ROPE(dual), x)
        assert_refused(TypeError, "grad", lambda: ROPE(dual, out=dual), x)


def test_misaligned_tensors() -> None:
    x = torch.frombuffer(bytearray(4 * 64 + 1), dtype=torch.float32, offset=1, count=64).view(8, 8)
    assert_refused(ValueError, "x is not aligned to its element size; pass a copy", lambda: ROPE(x), x)


@pytest.mark.parametrize("name", ["quantized", "nested"])
def test_messages_of_tensors_that_look_dense(name: str) -> None:
    strange = STRANGE[name][0]()
    with pytest.raises(TypeError) as caught:
        ROPE(strange)
    assert "got device cpu, layout torch.strided" not in str(caught.value)


@pytest.mark.parametrize("name", ["vmap", "jvp"])
def test_messages_of_function_transforms(name: str) -> None:
    with pytest.raises(TypeError) as caught:
        quiet(lambda: TRANSFORMS[name][0](lambda a: ROPE(a))(torch.ones(SHAPE)))
    assert "got device cpu, layout torch.strided" not in str(caught.value)


def test_a_plain_tensor_in_fake_mode() -> None:
    """The mode answers every torch operation, even one that looks at memory: only the refusal itself is seen here."""
    x = torch.ones(SHAPE)
    with FakeTensorMode(), pytest.raises(TypeError, match=r"pass out=|FakeTensor"):
        ROPE(x)
    assert (x == 1).all()


def test_uint64_rows() -> None:
    cos, sin = ROPE.table(16)
    found = posenc.apply_rotary_emb(
        torch.ones(SHAPE), cos, sin, layout="half", positions=torch.arange(4).to(torch.uint64)
    )
    assert_same_bits(found, ROPE(torch.ones(SHAPE)))


def test_an_older_torch_leaks_nothing(blocks_left_by_an_older_torch: int) -> None:
    assert blocks_left_by_an_older_torch < 100


def test_parameters_that_torch_refuses_to_convert() -> None:
    """Where torch raises a RuntimeError of its own, the caller still gets a TypeError that says what."""
    x, row = torch.ones(SHAPE), torch.ones(4)
    conjugate, meta = row.to(torch.cfloat).conj(), row.to("meta")
    assert_refused(TypeError, "positions", lambda: ROPE(x, positions=conjugate, out=x), x)
    assert_refused(TypeError, "offset", lambda: ROPE(x, offset=conjugate[:2], out=x), x)
    assert_refused(TypeError, "positions", lambda: ROPE.table(conjugate))
    for wrong in (conjugate, meta):
        assert_refused(TypeError, "inv_freq", lambda w=wrong: posenc.rotary_table(4, w))
        assert_refused(TypeError, "inv_freq", lambda w=wrong: posenc.Rope(8, layout="half", inv_freq=w))
        assert_refused(TypeError, "axis_of_freq", lambda w=wrong: posenc.Rope(8, layout="half", axis_of_freq=w))
    both = {"inv_freq": np.ones(4), "base": row}
    with pytest.raises((TypeError, ValueError), match="base"):
        posenc.Rope(8, layout="half", **both)
