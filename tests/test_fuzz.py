"""A short run of fuzz.py: random arguments for every public function, in a process of its own.

The long run, under AddressSanitizer, is a command: python tests/fuzz.py --calls 1000000
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import PACKAGE_ROOT, SEED

FUZZ = Path(__file__).with_name("fuzz.py")
CALLS = 6_000


def test_random_calls() -> None:
    """Only documented exceptions, right numbers, nothing written that is not an output; a crash is a failure too."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-X",
        "faulthandler",
        str(FUZZ),
        "--calls",
        str(CALLS),
        "--checked",
        "0.03",
        "--seed",
        str(SEED),
    ]
    environment = {**os.environ, "PYTHONPATH": path}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, f"exit code {child.returncode}\n{child.stdout}\n{child.stderr}"
    succeeded, compared = (int(word) for word in child.stdout.splitlines()[-1].split() if word.isdecimal())
    assert succeeded > CALLS // 2
    assert compared > 50
