"""The arrows between the layers point one way: python -> bind -> core -> kernels.

Read from the #include lines and the imports, and from what the compiled kernels call. Every C file compiles alone, the
extension exports one symbol.
"""

from __future__ import annotations

import ast
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import posenc
from posenc import _core

ROOT = Path(__file__).resolve().parents[1]
CSRC, PYTHON = ROOT / "csrc", ROOT / "python" / "posenc"
C_FILES = sorted(CSRC.glob("*/*.[ch]"))
PYTHON_FILES = sorted(PYTHON.rglob("*.py"))

#: layer -> what its files may include: other layers' folders, and system headers
MAY_INCLUDE = {
    "kernels": (
        {"kernels"},
        {"stdint.h", "stddef.h", "math.h", "string.h", "immintrin.h", "arm_neon.h"},
    ),
    "core": (
        {"core", "kernels"},
        {
            *("stdint.h", "stddef.h", "stdbool.h", "math.h", "string.h", "cpuid.h", "intrin.h"),
            *("stdatomic.h", "pthread.h", "signal.h", "time.h", "windows.h", "xmmintrin.h"),  # of the pool of threads
        },
    ),
    "bind": (
        {"bind", "core"},
        {
            *("Python.h", "numpy/arrayobject.h"),
            *("math.h", "stdint.h", "stdio.h", "stdlib.h", "string.h", "time.h", "intrin.h"),
        },
    ),
}
#: the kernels' own shared headers; anything else they include from their folder is a template, *.inc.h
KERNEL_HEADERS = {"kernels.h", "compiler.h", "half.h", "sincos_exact.h"}
#: what a compiled kernel may call: exactly defined, allocates nothing, keeps no state
KERNEL_CALLS = {"memcpy", "memset", "memmove", "fma", "fmaf"}


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def includes(path: Path) -> Iterator[tuple[str, bool]]:
    """Return (name, whether it is in angle brackets) of each #include."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
    for bracket, name in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', text, flags=re.M):
        yield name, bracket == "<"


def test_there_are_files() -> None:
    """The tests below look at something: all layers have sources."""
    assert {path.parent.name for path in C_FILES} == set(MAY_INCLUDE)
    assert len([path for path in C_FILES if path.suffix == ".c"]) > 10
    assert len(PYTHON_FILES) > 5


@named(C_FILES)
def test_includes(path: Path) -> None:
    """Own folder and the layer below, and of the system no more than the layer needs."""
    layers, system = MAY_INCLUDE[path.parent.name]
    for name, is_system in includes(path):
        if is_system:
            assert name in system, f"{path.parent.name} must not include <{name}>"
            continue
        target = (path.parent / name).resolve()
        assert target.is_file(), f"{name} is not there"
        assert target.parent.parent == CSRC
        assert target.parent.name in layers, f"{path.parent.name} must not include {name}"


@named([path for path in C_FILES if path.parent.name == "kernels"])
def test_what_kernels_include(path: Path) -> None:
    for name, is_system in includes(path):
        assert is_system or name in KERNEL_HEADERS or name.endswith(".inc.h"), f"{name} is no header of kernels"


@named(PYTHON_FILES)
def test_python_imports(path: Path) -> None:
    """The standard library, NumPy and posenc at import, torch in posenc.torch; nothing that reaches a pointer, ever."""
    known = {"numpy", "posenc", "__future__"} | ({"torch"} if path.parent.name == "torch" else set())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for name in imported(node):
            assert name not in {"ctypes", "cffi", "_ctypes"}, f"{name} reaches pointers"
    for node in tree.body:
        for name in imported(node):
            assert name in known | sys.stdlib_module_names, f"{name} at import"


def imported(node: ast.AST) -> list[str]:
    """Return the top-level packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [(node.module or "").split(".")[0]]
    return []


def test_the_reference_stands_alone() -> None:
    """The oracle shares no code with what it judges."""
    tree = ast.parse((PYTHON / "_reference.py").read_text(encoding="utf-8"))
    assert {name for node in ast.walk(tree) for name in imported(node)} <= {"typing", "numpy"}


# ---- compiled alone ----


@pytest.fixture(scope="module")
def compiler() -> str:
    """Return the C compiler; a machine without one cannot have built this from source."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.mark.builds
@named([path for path in C_FILES if path.suffix == ".c"])
def test_compiles_alone(path: Path, compiler: str, tmp_path: Path) -> None:
    """No configuration, no flags, no warning; only bind is shown where Python and NumPy are."""
    folders = [sysconfig.get_path("include"), np.get_include()] if path.parent.name == "bind" else []
    output = tmp_path / "alone.o"
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", *(f"-I{folder}" for folder in folders)]
    done = subprocess.run([*command, "-c", path, "-o", output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if path.parent.name == "kernels" and output.read_bytes()[:4] == b"\x7fELF":
        calls = {name for name, is_defined, _ in elf_symbols(output, ".symtab") if not is_defined}
        assert calls - {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"} <= KERNEL_CALLS


# ---- the symbols of the extension ----


def elf_symbols(path: Path, table: str) -> Iterator[tuple[str, bool, bool]]:
    """Return (name, is defined, is visible elsewhere) for the named symbols of a 64-bit ELF file's symbol table."""
    data = path.read_bytes()
    assert data[:5] == b"\x7fELF\x02", "not a 64-bit ELF file"
    order = "<" if data[5] == 1 else ">"
    start, size, count, names = (
        *struct.unpack_from(f"{order}Q", data, 40),
        *struct.unpack_from(f"{order}HHH", data, 58),
    )
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [struct.unpack_from(f"{order}IIQQQQIIQQ", data, start + i * size) for i in range(count)]

    def text(section: int, at: int) -> str:
        begin = sections[section][4] + at
        return data[begin : data.index(b"\0", begin)].decode()

    for section in sections:
        if text(names, section[0]) != table:
            continue
        for at in range(section[4], section[4] + section[5], section[9]):
            name, info, other, where = struct.unpack_from(f"{order}IBBH", data, at)
            if name:
                yield text(section[6], name), where != 0, info >> 4 in (1, 2) and other & 3 in (0, 3)


def test_the_extension_exports_its_init_function_alone() -> None:
    path = Path(_core.__file__)
    if path.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("the extension is not an ELF file")
    symbols = list(elf_symbols(path, ".dynsym"))
    assert [name for name, is_defined, is_visible in symbols if is_defined and is_visible] == ["PyInit__core"]
    assert len(symbols) > 20, "the reader found next to nothing"


def imported_for_type_checkers(file: Path) -> dict[str, str]:
    """Return name -> module of the imports that only type checkers run."""
    blocks = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
    block = next(node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.name: str(node.module) for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def test_type_checkers_see_every_name_that_is_loaded_on_its_first_use() -> None:
    """A module's __getattr__ would tell them that any name exists, and nothing of it."""
    functions = {name: f"posenc.{module}" for name, module in posenc._LAZY_FUNCTIONS.items()}
    modules = dict.fromkeys(posenc._LAZY, "posenc")
    assert imported_for_type_checkers(PYTHON / "__init__.py") == {**functions, **modules}
    checks = {name: f"posenc.checks.{module}" for name, module in posenc.checks._WHERE.items()}
    assert imported_for_type_checkers(PYTHON / "checks" / "__init__.py") == checks
