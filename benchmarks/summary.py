"""Goals against what was measured, and the whole report.

    python -m benchmarks.summary [--check]      puts the first into README.md here, and prefill into the project's

What stands there between the two marks comes from results/figures.json: every goal against a limit, then those against
others. A figure that stands there was measured; a bench that was not run has no row.
"""

import json
import sys
from pathlib import Path

from benchmarks import goals, report
from benchmarks.goals import Goal, is_met, measured
from benchmarks.harness import Result, Row, median, ratio
from benchmarks.report import duration

HERE = Path(__file__).parent
FIGURES = HERE / "results" / "figures.json"
BEGIN, END = "<!-- figures: python -m benchmarks.summary -->", "<!-- end of figures -->"
#: what the project's README shows of prefill: a row's words, and its labels, the first that was measured
PREFILL = {
    "in-place scale, the limit": (goals.SCALE,),
    "posenc, ready tables": (goals.TABLES,),
    "posenc, rows made in the call": (goals.ROPE,),
    "numba loop, ready tables": goals.NUMBA[:1],
    "vLLM's C++ operator, ready tables": (goals.VLLM,),
    "ggml, angles made in the call": (goals.GGML,),
    "onnxruntime, into a given output": goals.ORT[::-1],
    "torch.compile of an in-place rewrite": (goals.REWRITE,),
    "transformers, torch.compile": (goals.COMPILED,),
    "transformers, eager": (goals.EAGER,),
}
#: rows that are no competitor's
LIMITS = {goals.SCALE, goals.STREAM, goals.FILL, goals.ONE_PASS, "fill, non-temporal stores", "posenc, not scaled", ""}


def _limit_line(goal: Goal, result: Result, rows: dict[str, Row]) -> str:
    mine = rows[goal.mine]
    if not goal.theirs:
        against, shown, bound = "", f"{1e6 * median(mine):.2f} us", f"{goal.most} us"
    else:
        theirs = rows[goal.theirs]
        against, shown = f"{goal.theirs} {duration(median(theirs))}", f"{ratio(mine, theirs):.2f}"
        bound = f"{goal.most:.4g}"
    shown = shown if is_met(goal, rows) else f"**{shown}**"
    cells = (result.name, goal.mine.removeprefix("posenc, "), result.threads, duration(median(mine)), against)
    return f"| {' | '.join(map(str, cells))} | {shown} | {bound} |"


def _peer_line(goal: Goal, result: Result, rows: dict[str, Row]) -> str:
    mine, theirs = rows[goal.mine], rows[goal.theirs]
    shown = f"{1 / ratio(mine, theirs):.2f}"
    shown = shown if is_met(goal, rows) else f"**{shown}**"
    cells = (result.name, goal.mine.removeprefix("posenc, "), result.threads, duration(median(mine)), goal.theirs)
    return f"| {' | '.join(map(str, cells))} | {duration(median(theirs))} | {shown} | {1 / goal.most:.3g} |"


def tables(results: list[Result], facts: dict[str, str]) -> str:
    """Return every goal that was measured: those against limits, then those against others."""
    pairs = list(measured(results, facts.get("vectors of the limits") == "AVX-512"))
    limits = [_limit_line(*each) for each in pairs if each[0].theirs in LIMITS]
    peers = [_peer_line(*each) for each in pairs if each[0].theirs not in LIMITS]
    missed = sum(not is_met(goal, rows) for goal, _, rows in pairs)
    return "\n".join(
        [
            f"{len(pairs) - missed} goals met, {missed} missed (bold).",
            "",
            "| bench | posenc's way | threads | time | limit | time / limit | goal |",
            "|---|---|---:|---:|---|---:|---:|",
            *limits,
            "",
            "| bench | posenc's way | threads | time | who else | their time | times faster | goal |",
            "|---|---|---:|---:|---|---:|---:|---:|",
            *peers,
        ]
    )


def markdown(results: list[Result], facts: dict[str, str]) -> str:
    """Return everything: machine, goals, and a table for each bench."""
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    machine = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    parts = ["## Machine", machine, "## Goals", tables(results, facts), "## Figures"]
    return "\n\n".join([*parts, *map(report.bench, by_name.values())]) + "\n"


def _recorded() -> tuple[list[Result], dict[str, str]]:
    content = json.loads(FIGURES.read_text())
    results = [Result(**{**each, "rows": [Row(**row) for row in each["rows"]]}) for each in content["results"]]
    return results, content["machine"]


def prefill(results: list[Result]) -> str:
    """Return the table of the project's README: rotation in both orders of axes, one and two threads."""
    benches = [("BHSD", 1), ("BHSD", 2), ("BSHD", 1), ("BSHD", 2)]
    found = {(each.name, each.threads): {row.label: row for row in each.rows} for each in results}
    lines = [
        '| `layout="half"` | (B, H, S, D) | 2 threads | (B, S, H, D) | 2 threads |',
        "|---|---:|---:|---:|---:|",
    ]
    for words, labels in PREFILL.items():
        cells = []
        for order, threads in benches:
            rows = found.get((f"prefill-float32-half-{order}", threads), {})
            cells.append(next((duration(median(rows[label])) for label in labels if label in rows), "-"))
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _filled(text: str, content: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def main() -> int:
    """Write the tables into both READMEs; with --check, only say whether they are there."""
    results, facts = _recorded()
    stale = 0
    for path, content in (
        (HERE / "README.md", tables(results, facts)),
        (HERE.parent / "README.md", prefill(results)),
    ):
        text = path.read_text()
        wanted = _filled(text, content)
        stale |= wanted != text
        if "--check" not in sys.argv[1:]:
            path.write_text(wanted)
    return int(stale and "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
