"""What a chapter puts into its outputs: figures with alt text, and checks that print a tick.

A notebook's stored outputs are its test data, so each output has two layers: `text/plain` is the
same on every machine and is compared, `text/html` is what the reader sees and is not.
"""

import base64
import html
import inspect
import io
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping

import numpy as np
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from som_lite.view.png import in_few_colours, palette_png


def show(fig: Figure, description: str) -> None:
    """Display `fig`; `description` is its alt text and all of it that is compared by the tests."""
    if not description.strip():
        raise ValueError("description must say in words what the figure shows, got an empty text")
    png = base64.b64encode(_small_png(fig)).decode()
    alt = html.escape(description)
    picture = f'<img alt="{alt}" src="data:image/png;base64,{png}">'
    text = f"Figure: {description}"
    display({"image/png": png, "text/html": picture, "text/plain": text}, raw=True)


def _small_png(fig: Figure) -> bytes:
    """The figure in 256 colours: a third of the bytes, no difference to the eye."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    (indices,), palette = in_few_colours([np.asarray(Image.open(buffer).convert("RGB"))], 256)
    return palette_png(indices, palette)


def check(name: str, value, *, below=None, above=None) -> None:
    """Assert above < value < below (one bound or both) and display a tick.

    The stored text holds the name and the bounds only, because a trained number differs between
    machines; the value is in the HTML layer. NaN passes no bound.
    """
    if below is None and above is None:
        raise ValueError("check needs a bound: below=..., above=... or both")
    value = float(value)
    claim = name if above is None else f"{above:g} < {name}"
    claim = claim if below is None else f"{claim} < {below:g}"
    if not ((above is None or value > above) and (below is None or value < below)):
        raise AssertionError(f"{name} = {value:.4g}, expected {claim}")
    shown = f"✓ {html.escape(claim)} &nbsp; (here {value:.3g})"
    display({"text/html": shown, "text/plain": f"✓ {claim}"}, raw=True)


def measured(what: str, text: str) -> None:
    """Display numbers of which another machine may find slightly different ones.

    The reader sees `text`, in columns as it is; the tests compare `what`, which says what it is.
    """
    if not what.strip():
        raise ValueError("what must say in words what the numbers are, got an empty text")
    display({"text/html": f"<pre>{html.escape(text)}</pre>", "text/plain": what}, raw=True)


def relative_times(
    actions: Mapping[str, Callable[[], object]], rounds: int = 9, repeats: int = 5
) -> dict[str, float]:
    """The processor's time of each action over that of the first: medians of ratios over rounds.

    In a round the actions take turns, each some times in a row, so that a change of the machine's
    pace meets all of them; the first round warms up. Wall time would count other people's work.
    """
    ratios: dict[str, list[float]] = {name: [] for name in actions}
    first = next(iter(actions))
    for turn in range(rounds + 1):
        spent = {}
        for name, action in actions.items():
            start = time.process_time()
            for _ in range(repeats):
                action()
            spent[name] = time.process_time() - start
        for name in actions if turn else ():
            ratios[name].append(spent[name] / spent[first])
    return {name: statistics.median(row) for name, row in ratios.items()}


def fold(summary: str, text: str) -> None:
    """Display `text` folded under `summary`: for what few readers want to see."""
    head, body = html.escape(summary), html.escape(text)
    folded = f"<details><summary>{head}</summary><pre>{body}</pre></details>"
    display({"text/html": folded, "text/plain": f"{summary}: {text}"}, raw=True)


def listing(function: Callable, notes: Mapping[str, str]) -> None:
    """Display the source of `function` as installed, with numbered notes under it.

    A key of `notes` is a piece of the line that the note (Markdown) explains. ValueError when it is
    not on exactly one line, so that a chapter cannot describe code that has changed since.
    """
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    for number, piece in enumerate(notes, 1):
        found = [i for i, line in enumerate(lines) if piece in line]
        if len(found) != 1:
            name = function.__qualname__
            raise ValueError(f"note {piece!r} must fit one line of {name}, it fits {len(found)}")
        lines[found[0]] += f"  # ({number})"
    code = "\n".join(lines)
    remarks = "\n".join(f"{number}. {note}" for number, note in enumerate(notes.values(), 1))
    text = f"```python\n{code}\n```\n\n{remarks}"
    display({"text/markdown": text, "text/plain": text}, raw=True)
