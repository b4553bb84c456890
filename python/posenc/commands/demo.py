"""`posenc demo`: a real model's queries and keys, and what posenc claims, measured on them."""

import argparse
import json
from typing import Any


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("demo", help="rotate, add and bias over a real model's activations, and measure it")
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Measure; a result that is not where its input was is a bad verdict."""
    from posenc import demo

    measured = demo.run()
    print(json.dumps(measured, indent=2) if chosen.json else demo.show(measured))
    return 0 if all(measured[verb]["same_pointers"] for verb in ("in_place", "add", "bias")) else 1
