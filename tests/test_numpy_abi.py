"""csrc/bind/numpy_abi.h is what NumPy's own headers say, and another NumPy than 2 is refused at import."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
HEADER, PROGRAM = ROOT / "csrc" / "bind" / "numpy_abi.h", ROOT / "tests" / "c" / "numpy_abi.c"
#: These call Python or NumPy, which the program does without; PyArray_API is the table itself.
CALLING = {"PyArray_API", "PyArray_CheckExact", "PyArray_Check", "PyArray_SimpleNew", "PyArray_SIZE"}


def declared(directory: Path, *options: str) -> list[str]:
    """Return the lines of the program, without white space."""
    folders = [f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
    command = ["cc", "-std=c11", *options, *folders, PROGRAM, "-o", "numpy_abi"]
    subprocess.run(command, cwd=directory, check=True, timeout=60)
    done = subprocess.run(["./numpy_abi"], cwd=directory, check=True, timeout=60, capture_output=True, text=True)
    return ["".join(line.split()) for line in done.stdout.splitlines()]


def test_declarations_are_those_of_numpys_headers(tmp_path: Path) -> None:
    ours, numpys = declared(tmp_path), declared(tmp_path, "-DFROM_NUMPY")
    assert len(ours) > 100
    assert ours == numpys


def test_every_declaration_is_compared() -> None:
    names = set(re.findall(r"\b(?:NPY|PyArray)_\w+", HEADER.read_text()))
    shown = set(re.findall(r"\b(?:NPY|PyArray)_\w+", PROGRAM.read_text().split("#include <stdio.h>")[1]))
    assert len(names) > 40
    assert names - CALLING == shown


@pytest.mark.parametrize(("abi", "functions"), [(0x01000009, 0x12), (0x03000000, 0x20), (0x02000000, 0x11)])
def test_another_numpy_is_refused(abi: int, functions: int) -> None:
    """A table that says it is of another version, where NumPy's is looked for."""
    script = f"""
import ctypes, sys, types, numpy
table = (ctypes.c_void_p * 300)()
says = [ctypes.CFUNCTYPE(ctypes.c_uint)(lambda version=version: version) for version in ({abi}, {functions})]
table[0], table[211] = (ctypes.cast(function, ctypes.c_void_p).value for function in says)
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
other = types.ModuleType("other")
other._ARRAY_API = new(ctypes.addressof(table), None, None)
sys.modules["numpy._core._multiarray_umath"] = other
try:
    import posenc
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == (
        f"posenc needs NumPy 2; the C API of the NumPy at hand is {abi:#x}, functions {functions:#x}\n"
    )
