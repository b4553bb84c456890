"""Results as Markdown: a table for each bench, one and two threads beside each other."""

from collections.abc import Sequence

from benchmarks import goals
from benchmarks.harness import Result, Row, median, ratio, spread

_NOISY = 0.15  # a row whose rounds lie further apart than this share of its median says so

#: The limit that a row is compared with, by where its output goes; the first that was measured.
_LIMITS = {
    "in place": ("in-place scale",),
    "given": ("copy, non-temporal stores", "copy", "fill"),
    "new": ("copy, non-temporal stores", "copy", "fill"),
}

#: posenc's row that a peer is compared with, by its output and angles; the first that was measured.
_POSENC = {
    ("in place", "ready"): (goals.TABLES,),
    ("new", "ready"): (goals.TABLES,),
    ("given", "ready"): (goals.TABLES_GIVEN,),
    ("in place", "made"): (goals.ROPE,),
    ("new", "made"): (goals.ROPE, goals.MADE),
    ("given", "made"): (goals.MADE, goals.ROPE_GIVEN),
}


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it, to three digits."""
    unit, scale = ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    value = seconds * scale
    return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"


def _against(row: Row, labels: Sequence[str], rows: dict[str, Row]) -> str:
    for label in labels:
        if label in rows and label != row.label:
            return f"{ratio(row, rows[label]):.2f}"
    return ""


def _cells(label: str, result: Result) -> list[str]:
    """Return a row's time, and its ratios to its limit and to posenc."""
    rows = {row.label: row for row in result.rows}
    if label not in rows:
        return ["", "", ""]
    row = rows[label]
    mark = " ~" if spread(row) > _NOISY else ""
    posenc = () if row.name.startswith("posenc") else _POSENC.get((row.output, row.angles), ())
    limit = _LIMITS.get(row.output, ())
    return [
        duration(median(row)) + mark,
        _against(row, limit, rows),
        _against(row, posenc, rows),
    ]


def table(results: Sequence[Result]) -> str:
    """Return the table of one bench, measured at one or more numbers of threads."""
    title = ["| who | output | cos, sin |"]
    rule = ["|---|---|---|"]
    for each in results:
        title.append(f" {each.threads} thread{'s' * (each.threads > 1)} | / limit | / posenc |")
        rule.append("---:|---:|---:|")
    lines = ["".join(title), "".join(rule)]
    shown = {row.label: row for each in results for row in each.rows}
    for label, row in shown.items():
        cells = [cell for each in results for cell in _cells(label, each)]
        lines.append(f"| {' | '.join([row.name, row.output, row.angles, *cells])} |")
    return "\n".join(lines)


def _missing(results: Sequence[Result]) -> str:
    """Return who is missing and why, those with the same reason together."""
    by_reason: dict[str, list[str]] = {}
    for each in results:
        for label, why in each.missing.items():
            labels = by_reason.setdefault(why, [])
            labels += [label] if label not in labels else []
    return ". ".join(f"{'; '.join(labels)}: {why}" for why, labels in by_reason.items())


def bench(results: Sequence[Result]) -> str:
    """Return title, table and absentees of one bench."""
    missing = _missing(results)
    parts = [f"### {results[0].title}", table(results)]
    return "\n\n".join([*parts, f"Not run: {missing}."] if missing else parts)
