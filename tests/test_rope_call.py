"""A Rope's call: plain ones go straight into C, all others through the method; nobody can tell but by the clock."""

from __future__ import annotations

import gc
import inspect
import pickle
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import posenc
from conftest import assert_same_bits
from posenc import _core, runtime

ROPE = posenc.Rope(8, layout="half", scaling=posenc.scaling.Linear(4.0))
GROWING = posenc.Rope(8, layout="half", scaling=posenc.scaling.DynamicNTK(4.0, original_max_position_embeddings=4))
METHOD: Any = posenc.Rope.__call__
SHAPE = (2, 3, 4, 8)


def noise(rng: np.random.Generator) -> tuple[Any, Any]:
    return rng.standard_normal(SHAPE, np.float32), rng.standard_normal(SHAPE, np.float32)


def enters_the_method(call: Callable[[], object]) -> bool:
    """Whether a call runs the Python function; what it returns or raises is not looked at."""
    entered = []

    def watch(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call":
            entered.append(frame.f_code is METHOD.__code__)

    sys.setprofile(watch)
    try:
        call()
    except (TypeError, ValueError):
        pass
    finally:
        sys.setprofile(None)
    return any(entered)


# ---- what it looks like ----


def test_the_method_is_what_is_seen() -> None:
    """Its signature, its docstring and its place, from the class and from a Rope."""
    assert inspect.isfunction(METHOD)
    assert METHOD.__qualname__ == "Rope.__call__"
    assert list(inspect.signature(METHOD).parameters)[:3] == ["self", "q", "k"]
    assert list(inspect.signature(ROPE).parameters) == [*inspect.signature(METHOD).parameters][1:]
    held = vars(posenc.Rope)["__call__"]
    assert (held.__wrapped__, held.__doc__, held.__module__) == (METHOD, METHOD.__doc__, "posenc.rotary")
    assert inspect.getdoc(posenc.Rope.__call__).startswith("Rotate q, or q and k")  # type: ignore[union-attr]


def test_bound_and_pickled(rng: np.random.Generator) -> None:
    q, k = noise(rng)
    bound = ROPE.__call__
    assert isinstance(bound, types.MethodType)
    for call in (bound, pickle.loads(pickle.dumps(bound)), pickle.loads(pickle.dumps(ROPE))):
        for given, wanted in zip(call(q, k, offset=3), ROPE(q, k, offset=3), strict=True):
            assert_same_bits(given, wanted)


# ---- which way a call goes ----

PLAIN: list[Callable[[Any, Any], object]] = [
    lambda q, k: ROPE(q),
    lambda q, k: ROPE(q, k),
    lambda q, k: ROPE(q, k=k),
    lambda q, k: ROPE(q, None, out=q),
    lambda q, k: ROPE(q, k, offset=4096, out=(q, k)),
    lambda q, k: ROPE(q, k, positions=[5, 6, 7, 8], seq_axis=-2, inverse=False, seq_len=None, out=[q, k]),
    lambda q, k: ROPE(torch.from_numpy(q), offset=[1, 2]),
    lambda q, k: ROPE(q, k, out=q),  # refused, in C
    lambda q, k: ROPE(q, positions=[1]),
]
OTHER: list[Callable[[Any, Any], object]] = [
    lambda q, k: ROPE(q, k, inverse=True),
    lambda q, k: ROPE(q, seq_len=4),
    lambda q, k: ROPE(q, **{"".join(("off", "set")): 3}),  # not the interned name
    lambda q, k: GROWING(q, k),
    lambda q, k: ROPE(np.ones((runtime.SPLIT_BYTES // 32 + 1, 8), np.float32)),
    lambda q, k: METHOD(ROPE, q, k),
]


@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_plain_calls_stay_in_c(number: int, rng: np.random.Generator) -> None:
    q, k = noise(rng)
    assert not enters_the_method(lambda: PLAIN[number](q, k))


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_other_calls_run_the_method(number: int, rng: np.random.Generator) -> None:
    q, k = noise(rng)
    assert enters_the_method(lambda: OTHER[number](q, k))


@pytest.mark.parametrize("number", range(len(PLAIN) - 2))
def test_both_ways_give_the_same(number: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = noise(rng)
    wanted = PLAIN[number](q.copy(), k.copy())
    monkeypatch.setattr(posenc.Rope, "__call__", METHOD)
    assert enters_the_method(lambda: ROPE(q))
    given = PLAIN[number](q.copy(), k.copy())
    assert isinstance(given, tuple) == isinstance(wanted, tuple)
    for one, other in zip(np.stack(given), np.stack(wanted), strict=True):  # type: ignore[call-overload]
        assert_same_bits(one, other)


# ---- arguments ----

WRONG: list[tuple[str, Callable[[Any], object]]] = [
    ("missing 1 required positional argument: 'q'", lambda q: ROPE()),  # type: ignore[call-arg]
    ("missing 1 required positional argument: 'q'", lambda q: ROPE(k=q)),  # type: ignore[call-arg]
    ("got multiple values for argument 'q'", lambda q: ROPE(q, q=q)),  # type: ignore[misc]
    ("got multiple values for argument 'k'", lambda q: ROPE(q, q, k=q)),  # type: ignore[misc]
    ("got an unexpected keyword argument 'offsets'", lambda q: ROPE(q, offsets=3)),  # type: ignore[call-arg]
    ("takes from 2 to 3 positional arguments but 4 were given", lambda q: ROPE(q, q, q)),  # type: ignore[misc]
    ("inverse must be True or False", lambda q: ROPE(q, inverse=0)),
    ("seq_len must be an integer", lambda q: ROPE(q, seq_len="4")),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments_are_refused_in_python_s_words(number: int, rng: np.random.Generator) -> None:
    text, call = WRONG[number]
    with pytest.raises(TypeError, match=text):
        call(noise(rng)[0])


def test_q_by_name(rng: np.random.Generator) -> None:
    q, k = noise(rng)
    assert_same_bits(ROPE(k=k, q=q, offset=2)[1], ROPE(k, offset=2))


def test_out_is_what_was_given(rng: np.random.Generator) -> None:
    """A tuple comes back itself; a list and a tuple of another type come back as a tuple."""
    q, k = noise(rng)
    pair = (q, k)
    assert ROPE(q, k, out=pair) is pair
    tensors = torch.from_numpy(q), torch.from_numpy(k)
    assert ROPE(*tensors, out=tensors) is tensors

    class Pair(tuple[Any, Any]):
        __slots__ = ()

    for other in ([q, k], Pair(pair)):
        result = ROPE(q, k, out=other)
        assert type(result) is tuple
        assert result[0] is q
        assert result[1] is k


# ---- classes ----


class Doubled(posenc.Rope):
    """A Rope with a call of its own, over the one that it inherits."""

    __slots__ = ()

    def __call__(self, q: Any, k: Any = None, **keywords: Any) -> Any:
        return 2 * super().__call__(q, k, **keywords)


class Plain(posenc.Rope):
    __slots__ = ()


def test_subclasses(rng: np.random.Generator) -> None:
    q, _ = noise(rng)
    wanted = posenc.Rope(8, layout="half")(q, offset=2)
    assert_same_bits(Doubled(8, layout="half")(q, offset=2), 2 * wanted)
    plain = Plain(8, layout="half")
    assert not enters_the_method(lambda: plain(q))
    assert_same_bits(pickle.loads(pickle.dumps(plain))(q, offset=2), wanted)


def test_called_on_something_else() -> None:
    held = vars(posenc.Rope)["__call__"]
    with pytest.raises(TypeError, match="doesn't apply to a 'int' object"):
        held(3, np.ones(SHAPE, np.float32))
    with pytest.raises(AttributeError):
        posenc.Rope.__new__(posenc.Rope)(np.ones(SHAPE, np.float32))


def test_made_of_another_function() -> None:
    """Defaults are the function's own, so it must have these parameters."""

    def call(self: object, q: object, k: object = None, *, offset: int = 0) -> None: ...

    with pytest.raises(KeyError, match="positions"):
        _core.rotate_call(call, posenc.Rope._fixed_spec, 1)
    with pytest.raises(AttributeError):
        _core.rotate_call(3, posenc.Rope._fixed_spec, 1)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="slot must be a descriptor, got 3"):
        _core.rotate_call(METHOD, 3, 1)
    with pytest.raises(TypeError, match="takes 3 arguments"):
        _core.rotate_call(call)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="cannot create"):
        type(vars(posenc.Rope)["__call__"])()


def test_collected() -> None:
    """A class and what it holds go together."""

    def make() -> weakref.ref[type]:
        class Own(posenc.Rope):
            __slots__ = ()

            def __call__(self, q: Any, k: Any = None, **keywords: Any) -> Any:
                return Own

        function: Any = Own.__call__
        function.__kwdefaults__ = dict(METHOD.__kwdefaults__)
        Own.__call__ = _core.rotate_call(function, posenc.Rope._fixed_spec, 1)  # type: ignore[method-assign]
        return weakref.ref(Own)

    made = make()
    gc.collect()
    assert made() is None
