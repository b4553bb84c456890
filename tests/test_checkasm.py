"""The C tests, without Python: built with the flags of the extension, and run.

tests/c/checkasm.c tries every kernel of every level, tests/c/core_test.c the core above them. Each prints a hash of
fixed results for each level; all levels of all processors agree with those that are committed here.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conftest import SEED

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("checkasm", "core_test")
#: These change with the numbers that posenc makes, and with what the programs draw.
HASHES = {
    "kernels": "b2c757b92ec23b1c",
    "add": "9628beae04bf5f2f",
    "bias": "b869245db7d13120",
    "tally": "c21f2d90eaca3e52",
    "relative": "a073f97c92d340cb",
    "core": "5d25ee9cb40de2ca",
}
#: The same code that the native build runs, and what else is needed to run it elsewhere.
ARM64 = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static")
#: For slow runs: every tail of every vector comes up below this many pairs.
FEWER = ("--most", "40", "--calls", "200")
#: Without the check of object sizes, which address does too and which would double the time to compile.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize=object-size", "-fno-sanitize-recover=all")


def extension_flags() -> list[str]:
    """Return what setup.py compiles with: its tables of flags, evaluated without the rest of it."""
    names = {"WARNINGS", "HARDENING", "FLAGS"}
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    tables = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names]
    scope: dict[str, Any] = {}
    exec(compile(ast.Module(tables, []), "setup.py", "exec"), scope)
    return [*scope["FLAGS"]["unix"], "-Werror"]


def run(command: Sequence[object], cwd: Path, timeout: float = 300) -> str:
    """Return what a command printed; fail with all of it where it does not end well."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(directory: Path, compiler: str = "cc", *extra: str) -> Path:
    """Compile every source once, link both programs, and return where they are."""
    core = sorted([*ROOT.glob("csrc/core/*.c"), *ROOT.glob("csrc/kernels/*.c")])
    tests = [ROOT / "tests" / "c" / f"{program}.c" for program in PROGRAMS]
    command = [compiler, *extension_flags(), *extra]

    def compiled(source: Path) -> str:
        run([*command, "-c", source], directory)
        return f"{source.stem}.o"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [*core, *tests]))
    for program in PROGRAMS:
        others = [f"{other}.o" for other in PROGRAMS if other != program]
        run([*command, *(name for name in objects if name not in others), "-o", program, "-lm"], directory)
    return directory


def hashes(text: str) -> dict[str, dict[str, str]]:
    """Return the hash of each level, for kernels and core."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if line.startswith("hash "):
            _, what, level, value = line.split()
            found.setdefault(what, {})[level] = value
    return found


def assert_programs_pass(directory: Path, emulator: Sequence[str] = (), arguments: Sequence[str] = ()) -> list[str]:
    """Both programs succeed and every level has the committed hashes; return the levels."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    levels: list[str] = []
    for program, option in zip(PROGRAMS, ("--most", "--calls"), strict=True):
        chosen = [option, options[option]] if option in options else []
        text = run([*emulator, f"./{program}", "--seed", SEED, *chosen], directory)
        for what, by_level in hashes(text).items():
            assert by_level == dict.fromkeys(by_level, HASHES[what]), text
            levels = list(by_level)
    return levels


def need(packages: Sequence[str], *commands: str) -> None:
    """Skip, naming Debian's packages, where a command is missing; fail where it is said to be there."""
    if missing := [command for command in commands if shutil.which(command) is None]:
        stop = pytest.fail if os.environ.get("POSENC_REQUIRE_ARM64") == "1" else pytest.skip
        stop(f"{', '.join(missing)} not found; Debian packages: {' '.join(packages)}")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("native"))


@pytest.mark.broad
def test_kernels_and_core(native: Path) -> None:
    assert "scalar" in assert_programs_pass(native)


@pytest.mark.broad
def test_a_wrong_level_is_an_error(native: Path) -> None:
    assert subprocess.run(["./checkasm", "--level", "mmx"], cwd=native, capture_output=True).returncode == 2


@pytest.mark.builds
def test_sanitizers(tmp_path: Path) -> None:
    build(tmp_path, "cc", *SANITIZERS, "-O1", "-g1", "-U_FORTIFY_SOURCE")
    assert_programs_pass(tmp_path, arguments=FEWER)


@pytest.mark.builds
def test_arm64(tmp_path: Path) -> None:
    need(ARM64, "aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    build(tmp_path, "aarch64-linux-gnu-gcc", "-static")
    assert assert_programs_pass(tmp_path, ["qemu-aarch64-static"], FEWER) == ["scalar", "neon"]


@pytest.mark.builds
def test_an_old_processor(native: Path) -> None:
    """The very programs that run here find that an emulated Nehalem has no level but scalar, and run there."""
    if os.uname().machine != "x86_64":
        pytest.skip("the native programs are not for x86-64")
    if shutil.which("qemu-x86_64-static") is None:
        pytest.skip("qemu-x86_64-static not found; Debian package: qemu-user-static")
    assert assert_programs_pass(native, ["qemu-x86_64-static", "-cpu", "Nehalem"], FEWER) == ["scalar"]


def test_the_fuzz_target_compiles(tmp_path: Path) -> None:
    run(["cc", *extension_flags(), "-fsyntax-only", ROOT / "tests" / "c" / "fuzz_core.c"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-O0", "-O1", "-O2", "-O3 -march=native", "-Os"])
def test_any_optimisation(tmp_path: Path, flags: str) -> None:
    assert_programs_pass(build(tmp_path, "cc", *flags.split()))


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["clang", "clang-14"])
def test_another_compiler(tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} not found; Debian package: {compiler}")
    assert_programs_pass(build(tmp_path, compiler))


@pytest.mark.slow
def test_big_endian(tmp_path: Path) -> None:
    if not (shutil.which("s390x-linux-gnu-gcc") and shutil.which("qemu-s390x-static")):
        pytest.skip("no s390x here; Debian packages: gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user-static")
    build(tmp_path, "s390x-linux-gnu-gcc", "-static")
    assert assert_programs_pass(tmp_path, ["qemu-s390x-static"]) == ["scalar"]
