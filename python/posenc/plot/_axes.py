"""What all pictures share: an Axes to draw on, colours, labels of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posenc import _parameters as check

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours without yellow, in an order that keeps neighbours apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)), (0, (8, 2)), (0, (2, 2)), "-")
GREY = "#767676"


def axes_for(ax: Axes | None, size: tuple[float, float] = (7.0, 4.2)) -> Axes:
    """Return the given Axes, or the one of a new figure that pyplot does not know."""
    if ax is not None:
        return ax
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "posenc[plot]"') from error
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def check_report(report: Any, kind: type, maker: str) -> None:
    """Refuse what is no report, such as the attention or the Rope that one is made of."""
    if not isinstance(report, kind):
        raise TypeError(f"report must be what posenc.checks.{maker} returns, got {check.shown(report)}")


def style(index: int) -> dict[str, Any]:
    """Return the colour and dashes of a curve."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.7}


def finish(ax: Axes, title: str, x: str, y: str, *, legend: bool = True, grid: bool = True) -> Axes:
    """Label an Axes, take the frame off its top and right, and put a legend where there is more than one curve."""
    ax.set_title(title, loc="left", fontsize=11)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(visible=True, which="major", color="#d8d8d8", linewidth=0.6)
        ax.set_axisbelow(True)
    handles, _ = ax.get_legend_handles_labels()
    if legend and len(handles) > 1:
        ax.legend(frameon=False, fontsize=9, handlelength=3.2)
    return ax


def tokens(ax: Axes, *, axis: str = "x") -> None:
    """Write ticks of a logarithmic axis as whole numbers of tokens."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    which = ax.xaxis if axis == "x" else ax.yaxis
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    which.set_minor_formatter(NullFormatter())


def plain_numbers(ax: Axes) -> None:
    """Write ticks of a logarithmic y axis as plain numbers: powers of ten, also 2 and 5 times these where few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
