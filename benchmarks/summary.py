"""Goals against what was measured, and the whole report.

    python -m benchmarks.summary [--check]      puts the first into README.md

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

README = Path(__file__).with_name("README.md")
FIGURES = Path(__file__).with_name("results") / "figures.json"
BEGIN, END = "<!-- figures: python -m benchmarks.summary -->", "<!-- end of figures -->"
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


def main() -> int:
    """Write the tables into README.md; with --check, only say whether they are there."""
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = f"{before}{BEGIN}\n\n{tables(*_recorded())}\n\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return int(wanted != text)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
