"""`posenc runtime`: the instruction set and the threads in use."""

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Describe the command."""
    commands.add_parser("runtime", help="show the instruction set and the threads in use").set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Print them."""
    from posenc import show_runtime

    show_runtime()
    return 0
