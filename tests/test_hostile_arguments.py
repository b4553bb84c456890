"""A Rope, weights and threads given what they cannot use: the right exception, its whole message, nothing changed."""

from __future__ import annotations

import pytest

import posenc
from hostile import Arrays, assert_call_refused, refused


@refused("""
ValueError: head_dim must be at least 1, got 0
    Rope(0)
ValueError: head_dim must be at least 1, got -8
    Rope(-8)
TypeError: head_dim must be an integer, got 8.0
    Rope(8.0)
TypeError: head_dim must be an integer, got '8'
    Rope("8")
TypeError: head_dim must be an integer, got None
    Rope(None)
TypeError: head_dim must be an integer, got True
    Rope(True)
TypeError: Rope() missing 1 required keyword-only argument: 'layout'
    posenc.Rope(8)
TypeError: ...positional...
    posenc.Rope(8, "half")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got 'neox'
    Rope(8, layout="neox")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got None
    Rope(8, layout=None)
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got b'half'
    Rope(8, layout=b"half")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got ['half']
    Rope(8, layout=["half"])
ValueError: base must be positive and finite, got 0
    Rope(8, base=0)
ValueError: base must be positive and finite, got -1.0
    Rope(8, base=-1.0)
ValueError: base must be positive and finite, got nan
    Rope(8, base=np.nan)
ValueError: base must be positive and finite, got inf
    Rope(8, base=np.inf)
ValueError: base must lie between 1e-300 and 1e300, got 5e-324
    Rope(8, base=5e-324)
ValueError: rotary_dim must be even or equal to head_dim (64), got 21
    Rope(64, rotary_dim=21)
ValueError: rotary_dim must be even or equal to head_dim (8), got 7
    Rope(8, rotary_offset=1)
ValueError: rotary_dim must be at least 1, got 0
    Rope(8, rotary_dim=0)
TypeError: rotary_dim must be an integer, got 4.0
    Rope(8, rotary_dim=4.0)
TypeError: rotary_dim must be an integer, got True
    Rope(8, rotary_dim=True)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 0 + 10
    Rope(8, rotary_dim=10)
    Rope(8, inv_freq=np.ones(5))
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 6 + 4
    Rope(8, rotary_dim=4, rotary_offset=6)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 8 + 0
    Rope(8, rotary_offset=8)
ValueError: rotary_dim must be at most 4611686018427387904, got 1180591620717411303424
    Rope(8, rotary_dim=huge)
ValueError: rotary_offset must be at most 4611686018427387904, got 1180591620717411303424
    Rope(8, rotary_dim=4, rotary_offset=huge)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 0 + 1099511627776
    Rope(8, rotary_dim=1 << 40)
ValueError: rotary_offset must be at least 0, got -2
    Rope(8, rotary_offset=-2)
TypeError: rotary_offset must be an integer, got 0.0
    Rope(8, rotary_offset=0.0)
TypeError: rotary_offset must be an integer, got None
    Rope(8, rotary_offset=None)
ValueError: inv_freq must have shape (rotary_dim/2,), got (0,)
    Rope(8, inv_freq=[])
    table(4, [])
ValueError: inv_freq must have shape (rotary_dim/2,), got ()
    Rope(8, inv_freq=1.0)
ValueError: inv_freq must have shape (rotary_dim/2,), got (1, 4)
    Rope(8, inv_freq=np.ones((1, 4)))
ValueError: inv_freq must be finite, got nan
    Rope(8, inv_freq=[1, 1, 1, np.nan])
    table(4, [np.nan])
ValueError: inv_freq must be finite, got -inf
    Rope(8, inv_freq=[1, 1, 1, -np.inf])
TypeError: inv_freq must be float32 or float64, got complex128
    Rope(8, inv_freq=[1j] * 4)
TypeError: inv_freq must be float32 or float64, got <U1
    Rope(8, inv_freq=["a"] * 4)
TypeError: inv_freq must be float32 or float64, got bool
    Rope(8, inv_freq=[True] * 4)
TypeError: inv_freq must be float32 or float64, got float16
    Rope(8, inv_freq=np.ones(4, np.float16))
    table(4, np.ones(4, np.float16))
TypeError: inv_freq must be float32 or float64, got bfloat16
    Rope(8, inv_freq=np.ones(4, bfloat16))
TypeError: inv_freq must be float32 or float64, got object
    Rope(8, inv_freq=[huge] * 4)
ValueError: inv_freq must be an array, or what NumPy can make one of: ...inhomogeneous...
    Rope(8, inv_freq=[[1], [1, 2]])
ValueError: axis_of_freq must be an array, or what NumPy can make one of: ...inhomogeneous...
    Rope(8, axis_of_freq=[[0], [0, 0, 0]])
ValueError: inv_freq must have 2 frequencies for rotary_dim 4, got 3
    Rope(8, inv_freq=np.ones(3), rotary_dim=4)
ValueError: inv_freq excludes base and scaling: it says all that they would
    Rope(8, inv_freq=np.ones(4), base=5e5)
    Rope(8, inv_freq=np.ones(4), scaling=InverseFrequencies((1.0,) * 4))
ValueError: axis_of_freq must have shape (4,), got (3,)
    Rope(8, axis_of_freq=[0, 1, 2])
ValueError: axis_of_freq must have shape (4,), got (1, 4)
    Rope(8, axis_of_freq=[[0] * 4])
TypeError: axis_of_freq must be integers, got float64
    Rope(8, axis_of_freq=[0.0] * 4)
TypeError: axis_of_freq must be integers, got bool
    Rope(8, axis_of_freq=[True] * 4)
TypeError: axis_of_freq must be integers, got <U1
    Rope(8, axis_of_freq=list("abcd"))
ValueError: axis_of_freq must lie between 0 and 7, got -1 to 1
    Rope(8, axis_of_freq=[0, 1, -1, 0])
ValueError: axis_of_freq must lie between 0 and 7, got 0 to 8
    Rope(8, axis_of_freq=[0, 1, 8, 0])
ValueError: axis_of_freq must lie between 0 and 7, got 0 to 18446744073709551615
    Rope(8, axis_of_freq=np.array([0, 0, 0, 2**64 - 1], np.uint64))
ValueError: precision must be one of 'exact', 'float32', got 'float64'
    Rope(8, precision="float64")
    table(4, [1.0], precision="float64")
ValueError: precision must be one of 'exact', 'float32', got None
    Rope(8, precision=None)
ValueError: inv_freq[3] must be finite, got nan
    Rope(8, scaling=InverseFrequencies((1.0, 1.0, 1.0, np.nan)))
ValueError: inv_freq must have 4 numbers for rotary_dim 8, got 3
    Rope(8, scaling=InverseFrequencies((1.0,) * 3))
ValueError: attention_factor must be positive and finite, got 0.0
    Rope(8, scaling=InverseFrequencies((1.0,) * 4, 0.0))
TypeError: ...'theta'
    Rope(8, theta=1e4)
AttributeError: a Rope is immutable; make another one with a different base
    setattr(rope, "base", 5e5)
AttributeError: a Rope is immutable
    delattr(rope, "base")
ValueError: ...read-only
    rope.inv_freq.fill(0)
ValueError: seq_len must be at least 1, got 0
    rope.at(0)
    rope(x, seq_len=0)
    rope(x, k, seq_len=0, out=(x, k))
    dynamic(x, seq_len=0, out=x)
ValueError: seq_len must be at least 1, got -7
    rope(x, seq_len=-7, out=x)
TypeError: seq_len must be an integer, got 1.5
    rope.at(1.5)
    rope(x, seq_len=1.5)
    dynamic(x, seq_len=1.5)
TypeError: seq_len must be an integer, got True
    rope.at(True)
    rope(x, seq_len=True)
    dynamic(x, seq_len=True)
TypeError: seq_len must be an integer, got '16'
    rope(x, seq_len="16")
""")
def test_rope_parameters(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: weight must have num_heads * head_dim rows, a multiple of 3, got shape (64, 4)
    permute(cos, 3)
ValueError: weight must have num_heads * head_dim rows, a multiple of 2, got shape ()
    permute(np.array(1.0), 2)
ValueError: num_heads must be at most 4611686018427387904, got 1180591620717411303424
    permute(cos, huge)
ValueError: num_heads must be at least 1, got 0
    permute(cos, 0)
TypeError: num_heads must be an integer, got True
    permute(cos, True)
TypeError: num_heads must be an integer, got 2.0
    permute(cos, 2.0)
ValueError: rotary_dim must be even and at most head_dim (3), got 3
    permute(cos[:6], 2)
ValueError: rotary_dim must be even and at most head_dim (32), got 3
    permute(cos, 2, rotary_dim=3)
ValueError: rotary_dim must be even and at most head_dim (32), got 34
    permute(cos, 2, rotary_dim=34)
ValueError: rotary_dim must be at least 2, got 0
    permute(cos, 2, rotary_dim=0)
TypeError: rotary_dim must be an integer, got 2.0
    permute(cos, 2, rotary_dim=2.0)
ValueError: source must be one of 'interleaved', 'half', got 'neox'
    permute(cos, 2, source="neox")
ValueError: target must be one of 'interleaved', 'half', got 'interleaved_to_half'
    permute(cos, 2, target="interleaved_to_half")
ValueError: n must be at least 1, got 0
    posenc.set_num_threads(0)
ValueError: n must be at least 1, got -2
    posenc.set_num_threads(-2)
ValueError: n must be at most 1024, got 1025
    posenc.set_num_threads(1025)
    posenc.set_num_threads(np.int64(1025))
ValueError: n must be at most 1024, got 1180591620717411303424
    posenc.set_num_threads(huge)
TypeError: n must be an integer, got 2.0
    posenc.set_num_threads(2.0)
TypeError: n must be an integer, got True
    posenc.set_num_threads(True)
TypeError: n must be an integer, got np.True_
    posenc.set_num_threads(np.True_)
TypeError: n must be an integer, got '2'
    posenc.set_num_threads("2")
AttributeError: module 'posenc' has no attribute 'rope'
    posenc.rope
""")
def test_weights_and_threads(error: str, text: str, call: str) -> None:
    before = posenc.get_num_threads()
    assert_call_refused(error, text, call)
    assert posenc.get_num_threads() == before


def test_weights_without_rows() -> None:
    """No rows are any number of heads of no length, and take no memory."""
    arrays = Arrays()
    for num_heads in (1, 3, 2**50):
        assert posenc.permute_rotary_weights(arrays.cos[:0], num_heads).shape == (0, 4)


LONG = [0.25] * 1_000_000


@pytest.mark.parametrize(
    "call",
    [
        "Rope(long)",
        "Rope(8, layout=long)",
        "Rope(8, base=long)",
        "Rope(8, scaling=np.ones(1000))",
        "Rope(8, layout='x' * 1000)",
        "Rope(10**4000)",
        "rope(x, seq_axis=long)",
        "rope(x, seq_axis=np.ones(1000))",
        "rope(x, seq_len=long)",
        "rope(x, offset=long)",
        "rope(x, offset=np.ones(1000))",
        "rope(x, positions=long)",
        "rope(long)",
        "rope.at(np.ones(1000))",
        "table(4, [1.0], scale=long)",
        "table(4, [1.0], precision=long)",
        "permute(cos, np.ones(1000))",
        "posenc.set_num_threads(long)",
    ],
)
def test_messages_are_short(call: str) -> None:
    """No numbers of an array, no whole list: a message fits a few lines."""
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call, {**Arrays().names(), "long": LONG})
    assert len(str(caught.value)) < 300
    assert str(caught.value).count("0.25") + str(caught.value).count("1.") < 20


@refused("""
# the argument is named
TypeError: ...seq_axis...
    rope(x, seq_axis=1.0)
    rope(x, seq_axis=None)
    apply(seq_axis="seq")
    rope(x, seq_axis=np.array([1]))
ValueError: ...seq_axis...
    rope(x, seq_axis=huge)
TypeError: ...head_dim...
    Rope(np.zeros(3, int))
TypeError: base must be a number, got ...
    Rope(8, base=None)
    Rope(8, base=[1.0])
    Rope(8, base="abc")
TypeError: ...scale...
    table(4, [1.0], scale="1")
    table(4, [1.0], scale=1j)
    table(4, [1.0], scale=None)
ValueError: layout must be one of ...
    Rope(8, layout=np.array(["half", "interleaved"]))
# booleans are no numbers
TypeError: base must be a number, got True
    Rope(8, base=True)
TypeError: base must be a number, got np.True_
    Rope(8, base=np.True_)
TypeError: base must be a number, got array(True)
    Rope(8, base=np.array(True))
TypeError: base must be a number, got tensor(True)
    Rope(8, base=torch.tensor(True))
TypeError: head_dim must be an integer, got tensor(True)
    Rope(torch.tensor(True))
TypeError: scale must be a number, got False
    table(4, [1.0], scale=False)
TypeError: factor must be a number, got True
    posenc.scaling.Linear(True)
    posenc.scaling.Llama3(factor=True)
    posenc.scaling.Yarn(True, 4096)
TypeError: seq_axis must be an integer, got <class 'bool'>
    rope(x, seq_axis=True)
    rope(x, k, seq_axis=True, out=(x, k))
    apply(seq_axis=False)
TypeError: seq_axis must be an integer, got <class 'numpy.bool'>
    rope(x, seq_axis=np.True_)
TypeError: seq_axis must be an integer, got <class 'torch.Tensor'>
    rope(x, seq_axis=torch.tensor(True))
# no message carries the numbers of an array, or a whole long list
TypeError: seq_axis must be an integer, got <class 'numpy.ndarray'>
    rope(x, seq_axis=np.arange(99))
TypeError: base must be a number, got ndarray of shape (99,) and dtype int64
    Rope(8, base=np.arange(99))
TypeError: base must be a number, got Tensor of shape (9, 11) and dtype torch.float32
    Rope(8, base=torch.zeros(9, 11))
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got ndarray of shape (2,) and dtype <U4
    Rope(8, layout=np.array(["half", "half"]))
TypeError: scaling must be None or a scaling of posenc.scaling, got ndarray of shape (4,) and dtype float64
    Rope(8, scaling=np.ones(4))
TypeError: rotary_dim must be an integer, got [7777, 7777, 7777, 7777, 7777, 7777, 7777, 7777, 7777, ...
    Rope(8, rotary_dim=[7777] * 1000)
ValueError: head_dim must be at most 281474976710656, got an integer of 16610 bits
    Rope(10**5000)
# numbers that fit no C type
ValueError: ...head_dim...
    Rope(huge)
    Rope(2**63)
ValueError: ...base...
    Rope(8, base=10**400)
ValueError: ...scale...
    table(4, [1.0], scale=10**400)
ValueError: ...rotary_offset...
    apply(rotary_offset=huge)
TypeError: base must be a number, got tensor(1., requires_grad=True)
    Rope(8, base=torch.ones((), requires_grad=True))
TypeError: inverse must be True or False, got 'no'
    rope(x, inverse="no")
    dynamic(x, inverse="no")
TypeError: inverse must be True or False, got 1
    rope(x, inverse=1)
TypeError: conjugate must be True or False, got 'no'
    apply(conjugate="no")
TypeError: scaling must be None or a scaling of posenc.scaling, got <class 'posenc.scaling.interpolation.Linear'>
    Rope(8, scaling=posenc.scaling.Linear)
TypeError: ...scaling...
    Rope(8, scaling="dynamic")
    Rope(8, scaling={"rope_type": "linear", "factor": 2.0})
TypeError: ...weight...
    permute([1.0, 2.0], 2)
    permute(None, 2)
# a scaling that depends on the length looks at arguments that are checked
TypeError: x must be a NumPy array or a torch CPU tensor, got <class 'list'>
    dynamic([[1.0] * 8])
TypeError: q must be a NumPy array or a torch CPU tensor, got <class 'NoneType'>
    dynamic(None, k)
ValueError: ...seq_axis...
    dynamic(x, seq_axis=9)
TypeError: ...offset...
    dynamic(x, offset="a")
TypeError: ...positions...
    dynamic(x, positions="abcd")
    dynamic.table("abcd")
ValueError: ...positions...
    dynamic(x, positions=[0, 1, 2, np.nan])
    dynamic(x, positions=[0, 1, 2, np.inf])
ValueError: ...offset...
    dynamic(x, offset=np.zeros(0, int))
# casts that overflow
ValueError: inv_freq must be finite...
    Rope(8, inv_freq=[1e300] * 4, precision="float32")
    Rope(8, inv_freq=np.full(4, np.longdouble("1e4000")))
# empty arrays of a wrong dtype
TypeError: positions must be integers, float32 or float64, got complex128
    rope.table(np.zeros(0, complex))
TypeError: positions must be integers, float32 or float64, got bool
    rope(new(2, 0, 8), positions=np.zeros(0, bool))
# masks
TypeError: ...masked...
    Rope(8, inv_freq=masked(np.ones(4), [1, 0, 0, 0]))
    Rope(8, axis_of_freq=masked([0, 1, 1, 0], [1, 0, 0, 0]))
    rope(MaskedSubclass(x))
""")
def test_unusual_mistakes(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)
