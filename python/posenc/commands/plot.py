"""`posenc plot`: a picture of what a config does to positions, or of attention maps by distance."""

import argparse
import json
from pathlib import Path
from typing import Any

#: what can be drawn of a config, and of attention; the first is the default
CONFIG_KINDS = ("wavelengths", "decay", "bound", "table", "error")
ATTENTION_KINDS = ("distance", "heads")


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser(
        "plot", help="draw a model's wavelengths or decay (config.json), or attention (file.npy)"
    )
    parser.add_argument("subject", help="a config.json or its directory, or attention maps in a .npy file")
    kinds = f"of a config: {', '.join(CONFIG_KINDS)}; of attention: {', '.join(ATTENTION_KINDS)} (the first)"
    parser.add_argument("--kind", choices=[*CONFIG_KINDS, *ATTENTION_KINDS], help=kinds)
    parser.add_argument("--out", "-o", help="the picture's file, .png, .svg or .pdf (posenc-KIND.png)")
    parser.add_argument("--layer-type", help="of a config whose layers turn differently")
    parser.add_argument("--part", help='of a composite model: "text", "vision", ..')
    parser.add_argument("--context", type=int, help="tokens (what the config says)")
    parser.add_argument(
        "--json", action="store_true", help="print the numbers as JSON; draws only where --out is given"
    )
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Draw it, or print its numbers."""
    of_attention = chosen.subject.endswith(".npy")
    kinds = ATTENTION_KINDS if of_attention else CONFIG_KINDS
    kind = chosen.kind or kinds[0]
    if kind not in kinds:
        raise ValueError(f"--kind {kind} is not of {'attention' if of_attention else 'a config'}: {', '.join(kinds)}")
    draw, numbers = _attention(chosen, kind) if of_attention else _config(chosen, kind)
    if chosen.json:
        print(json.dumps(numbers(), indent=2, allow_nan=False))
    if chosen.out or not chosen.json:
        path = Path(chosen.out or f"posenc-{kind}.png")
        draw().figure.savefig(path)
        if not chosen.json:
            print(path)
    return 0


def _attention(chosen: argparse.Namespace, kind: str) -> Any:
    import numpy as np

    from posenc import plot
    from posenc.checks import position_sanity_check

    report = position_sanity_check(np.load(chosen.subject, mmap_mode="r", allow_pickle=False))
    draw = plot.attention_by_distance if kind == "distance" else plot.attention_heads
    return lambda: draw(report), report.to_dict


def _config(chosen: argparse.Namespace, kind: str) -> Any:
    from posenc import Rope, config, plot
    from posenc.checks import rotary_decay
    from posenc.checks._report import plain

    found = config.read(chosen.subject, part=chosen.part)
    rope = found.rope(chosen.layer_type)
    if not isinstance(rope, Rope) or rope.axes != 1:
        raise ValueError(f"{chosen.subject} turns by several position axes; plots are of one")
    context = chosen.context or found.max_position_embeddings or 4096
    trained = getattr(rope.scaling, "original_max_position_embeddings", None)
    named = {"scaled": rope} if rope.scaling is not None else {"wavelength": rope}
    if rope.scaling is not None and rope.base is not None:
        named = {"unscaled": rope._replace(scaling=None), **named}
    fixed = rope.at(context)
    if kind == "wavelengths":
        return (
            lambda: plot.wavelengths(named, context=context, trained=trained),
            lambda: {
                "context": context,
                "wavelengths": plain({k: r.at(context).wavelengths for k, r in named.items()}),
            },
        )
    if kind in ("decay", "bound"):
        report = rotary_decay(named, context)
        return lambda: plot.decay(report, what="bound" if kind == "bound" else None), report.to_dict
    if kind == "table":
        return lambda: plot.rotation_table(fixed), lambda: {"cos": fixed.table(256)[0].tolist()}
    axes = plot.table_error(fixed)
    return lambda: axes, lambda: {line.get_label(): plain(line.get_xydata()) for line in axes.lines[:2]}
