"""What commands are given: a function as module:name, and the Rope that it should be."""

import argparse
import importlib
import json
import os
import sys
from typing import Any


def add_expected(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what a rotation should be."""
    parser.add_argument("--config", help="a model's config.json, or its directory: what the function should be")
    parser.add_argument("--layer-type", help='of a config with several: "full_attention", ..')
    parser.add_argument("--part", help='of a composite config: "text", "vision", ..')
    parser.add_argument("--rope", help="what it should be, as module:name of a posenc.Rope")
    parser.add_argument("--layout", help='"half", "interleaved" or "interleaved_to_half"; with --head-dim')
    parser.add_argument("--head-dim", type=int, help="length of a head")
    parser.add_argument("--base", type=float, default=10000.0, help="base of the frequencies (10000)")
    parser.add_argument("--rotary-dim", type=int, help="rotated elements of a head (all)")
    parser.add_argument("--precision", default="exact", choices=["exact", "float32"], help="of the angles (exact)")


def add_function(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how the function is called."""
    parser.add_argument("--torch", action="store_true", help="call it with tensors, not NumPy arrays")
    parser.add_argument("--heads", type=int, help="the only number of heads that it takes")
    parser.add_argument("--max-position", type=int, default=131071, help="the largest position to ask for (131071)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def load(name: str, what: str) -> Any:
    """Return the object module:name, the current directory being searched too; `what` it is, for the error."""
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        raise ValueError(f"{what} must be module:name, got {name!r}")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    found = importlib.import_module(module)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {path}")
        found = getattr(found, part)
    return found


def function(chosen: argparse.Namespace) -> Any:
    """Return the function under test; a rotary module of transformers is wrapped."""
    found = load(chosen.subject, "subject")
    if hasattr(found, "forward") and hasattr(found, "inv_freq"):
        from posenc.checks import wrap_hf

        return wrap_hf(found, layer_type=chosen.layer_type)
    return found


def expected(chosen: argparse.Namespace) -> Any:
    """Return the Rope that it should be, or None."""
    import posenc

    if chosen.rope:
        return load(chosen.rope, "--rope")
    if chosen.config:
        return posenc.Rope.from_config(
            chosen.config, layer_type=chosen.layer_type, part=chosen.part, precision=chosen.precision
        )
    if chosen.layout and chosen.head_dim:
        return posenc.Rope(
            chosen.head_dim, layout=chosen.layout, base=chosen.base, rotary_dim=chosen.rotary_dim,
            precision=chosen.precision,
        )  # fmt: skip
    return None


def show(report: Any, as_json: bool) -> int:
    """Print a report; return 0 if it is good."""
    if as_json:
        print(json.dumps(report.to_dict(), indent=2, allow_nan=False))
    else:
        report.show()
    return 0 if report.ok else 1
