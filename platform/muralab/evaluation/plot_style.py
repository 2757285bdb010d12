"""The style of every figure: a colour-blind-safe palette, light axes, and a default size that fits the page."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

# After Okabe and Ito: distinct with any colour vision; line styles and markers differ as well, for print.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#AA3377", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
DOTS: Any = (0, (1.2, 2.4))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED, FAINT, PAPER = "#1d232b", "#66707c", "#dfe3e8", "#ffffff"
WIDTH_IN, HEIGHT_IN = 4.7, 3.5

# Any: the type of the names that matplotlib accepts changes with its version.
STYLE: Any = {
    "font.family": "sans-serif",
    "text.parse_math": False,  # a "$" in a run's name is not mathematics
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#aab2bb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 7.8,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "muralab",
}


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """Decorate a plot function to use this style, whatever the caller's settings are."""

    @functools.wraps(plot)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return plot(*args, **kwargs)

    return wrapped


def new_figure(width_in: float = WIDTH_IN, height_in: float = HEIGHT_IN) -> Figure:
    """An empty figure without a window, outside pyplot's global list of figures."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(
    title: str, x: str, y: str, *, width_in: float = WIDTH_IN, height_in: float = HEIGHT_IN
) -> tuple[Figure, Axes]:
    """A figure with one pair of labelled axes."""
    figure = new_figure(width_in, height_in)
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def color(position: int) -> str:
    """The colour of the n-th model, the same in every figure."""
    return PALETTE[position % len(PALETTE)]


def line(position: int) -> Any:
    """The line style of the n-th model."""
    return LINES[position % len(LINES)]


def marker(position: int) -> str:
    """The marker of the n-th model."""
    return MARKERS[position % len(MARKERS)]


def rate_locator(low: float, high: float) -> Any:
    """Few ticks on a logarithmic axis between two values: 1, 2 and 5 times powers of ten, as many as fit side by side.

    Below a factor of ten these would be one or two, so there they are evenly spaced.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    return LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=6) if high >= 10 * low else MaxNLocator(nbins=4)


def no_locator() -> Any:
    """No ticks."""
    from matplotlib.ticker import NullLocator

    return NullLocator()


def draw_reason(axes: Axes, reason: str) -> None:
    """Write into empty axes why there is nothing to plot."""
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, reason, ha="center", va="center", color=MUTED, transform=axes.transAxes, wrap=True)


def curve(position: int, *, highlighted: bool = False) -> dict[str, Any]:
    """The line style of the n-th model's curve; a highlighted one is solid, thick and on top."""
    if highlighted:
        return {"color": color(position), "ls": "-", "lw": 2.4, "zorder": 3}
    return {"color": color(position), "ls": line(position + 1), "lw": 1.4}


def finish(axes: Axes, drawn: bool, legend: Any, *, square: bool = False, reason: str) -> None:
    """Add the legend and the limits of the unit square, or the reason why nothing was drawn."""
    if not drawn:
        draw_reason(axes, reason)
        return
    if square:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
    axes.legend(loc=legend)
