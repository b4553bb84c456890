"""`posenc explain`: what a model's config means for positions."""

import argparse
import json
from typing import Any


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("explain", help="say what a model's config means for positions")
    parser.add_argument("config", help="a config.json, or its directory")
    parser.add_argument("--part", help='of a composite model: "text", "vision", ..')
    parser.add_argument("--lenient", action="store_true", help="warn of unknown and contradicting keys, and go on")
    parser.add_argument("--diff", action="store_true", help="also list where other systems read it differently")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Read the config, and print what it says."""
    from posenc import config

    part, strict = chosen.part, not chosen.lenient
    found = config.explain(chosen.config, part=part, strict=strict)
    differences = config.diff(chosen.config, part=part, strict=strict) if chosen.diff else ()
    if chosen.json:
        listed = {"differences": [str(each) for each in differences]} if chosen.diff else {}
        print(json.dumps({**found.as_dict(), **listed}, indent=2, allow_nan=False))
        return 0
    print(found)
    for each in differences:
        print(f"  read differently: {each}")
    return 0
