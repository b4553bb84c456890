"""Every example in a docstring runs, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest

import posenc

LEFT_OUT = {"posenc.__main__"}  # runs the command


def modules() -> list[str]:
    found = [m.name for m in pkgutil.walk_packages(posenc.__path__, "posenc.")]
    return ["posenc", *(name for name in found if name not in LEFT_OUT and not name.endswith("._core"))]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"posenc": posenc, "np": np}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    count = sum(bool(t.examples) for name in modules() for t in finder.find(importlib.import_module(name)))
    assert count > 10


def public_things() -> list[Any]:
    names = [name for name in modules() if not any(part.startswith("_") for part in name.split(".")[1:])]
    every = [(name, importlib.import_module(name)) for name in names]
    return [
        pytest.param(thing, id=f"{name}.{key}")
        for name, module in every
        for key, thing in vars(module).items()
        if not key.startswith("_")
        and (inspect.isfunction(thing) or inspect.isclass(thing))
        and getattr(thing, "__module__", "") == name
    ]


@pytest.mark.parametrize("thing", public_things())
def test_has_a_docstring(thing: Any) -> None:
    assert (inspect.getdoc(thing) or "").strip()
