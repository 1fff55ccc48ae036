"""A picture that the reader moves: sliders with a kernel, a flip-book, a still and words without.

The still part of the figure is drawn once. A slider's move restores it, draws the few moving
artists on top and sends a lightly compressed PNG, which takes a fifth of a full drawing's time.
"""

import html
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import ipywidgets as widgets
import numpy as np
import traitlets
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from som_lite.view.controls import Choice, Slider, as_control
from som_lite.view.flipbook import flip_book, still_picture
from som_lite.view.png import quick_png
from som_lite.view.style import freeze


class Explorer:
    """A figure whose `moving` artists are placed by `place(**values)`, one value per control.

    controls     name -> Slider, Choice, or in short (low, high, step, start) or [options]
    name         a few words: the accessible name of picture and flip-book
    description  what the reader should see: alt text and stored text
    ordered      two control names (a, b): a <= b is kept, the one that moves pushes the other
    play         add a play button to the first control
    page         writes the HTML layer from still (PNG in base64), name and alt; by default it is a
                 flip-book over the first control. A page of its own answers the reader by itself,
                 so it is shown beside a kernel too: one picture, and the widget is only in `box`

    Only `moving` artists may change, and neither limits nor layout do: the rest is drawn once. The
    object displays as four layers: widget, HTML that needs no kernel, PNG, description.
    ValueError says which argument is wrong. What `place` raises is shown under the sliders, and
    raised on, so that tests and the log console see it.
    """

    def __init__(
        self,
        fig: Figure,
        moving: Sequence[Artist],
        place: Callable[..., None],
        controls: Mapping[str, Slider | Choice | tuple | list],
        name: str,
        description: str,
        ordered: tuple[str, str] | None = None,
        play: bool = False,
        page: Callable[..., str] | None = None,
    ):
        self.controls = {key: as_control(key, spec) for key, spec in controls.items()}
        _check_arguments(fig, moving, self.controls, name, description, ordered)
        self.fig, self.place, self.name, self.description = fig, place, name, description
        self.moving = sorted(moving, key=lambda artist: artist.get_zorder())
        self.ordered, self.page = ordered, page
        self.sliders = {key: control.widget(key) for key, control in self.controls.items()}
        self._start = self.values
        self._silent = False
        self._canvas = FigureCanvasAgg(fig)
        self._draw_still()
        first = quick_png(self._pixels(self._start))
        self.image = widgets.Image(format="png", value=first)
        self.image.layout.width = f"{fig.bbox.width:.0f}px"
        self.image.layout.max_width = "100%"
        self.message = widgets.HTML(layout={"display": "none"})
        self.box = self._arrange(play)
        for key, slider in self.sliders.items():
            slider.observe(partial(self._moved, key), names="value")

    @property
    def values(self) -> dict:
        """Where the controls stand."""
        return {key: c.nearest(self.sliders[key].value) for key, c in self.controls.items()}

    def set(self, **values) -> None:
        """Move the named controls, as a reader would, and draw the picture once."""
        for key, value in values.items():
            if key not in self.controls:
                known = ", ".join(self.controls)
                raise ValueError(f"{key!r} is no control of this explorer, which has {known}")
            try:
                self.controls[key].nearest(value)
            except ValueError as error:
                raise ValueError(f"{key} {error}") from None
        self._update(values)

    def _moved(self, key: str, change: dict) -> None:
        if not self._silent:
            self._update({key: change["new"]})

    def _update(self, changed: dict) -> None:
        try:
            values = self._in_order({**self.values, **changed}, changed)
            self._silent = True  # the sliders follow without asking for pictures of their own
            for key, value in values.items():
                self.sliders[key].value = self.controls[key].nearest(value)
            self.image.value = quick_png(self._pixels(self.values))
        except Exception as error:
            text = html.escape(f"{type(error).__name__}: {error}")
            self.message.value = f'<span role="alert"><b>This picture failed.</b> {text}</span>'
            self.message.layout.display = ""
            raise
        finally:
            self._silent = False
        self.message.layout.display = "none"

    def _in_order(self, values: dict, changed: Mapping) -> dict:
        if self.ordered is not None:
            low, high = self.ordered
            if values[low] > values[high]:
                moved, pushed = (low, high) if low in changed else (high, low)
                values[pushed] = values[moved]
        return values

    def _draw_still(self) -> None:
        self.place(**self._start)  # texts have their size before the layout is fixed
        freeze(self.fig)
        for artist in self.moving:
            artist.set_animated(True)  # left out of the next line
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self.fig.bbox)

    def _pixels(self, values: dict) -> np.ndarray:
        self.place(**values)
        self._canvas.restore_region(self._still)
        for artist in self.moving:
            artist.draw(self._canvas.get_renderer())
        return np.asarray(self._canvas.buffer_rgba())  # a view: the next picture overwrites it

    def _arrange(self, play: bool) -> widgets.VBox:
        rows = []
        for key, control in self.controls.items():
            # Sliders have no accessible name in the browser, so the words stand beside them.
            words = f"{key}: {control.meaning}{', ' if control.meaning else ''}{control.span}"
            rows.append(widgets.HBox([self.sliders[key], widgets.HTML(html.escape(words))]))
        if play:
            rows[0].children = (self._play_button(), *rows[0].children)
        return widgets.VBox([self.image, *rows, self.message]).add_class("som-explorer")

    def _play_button(self) -> widgets.Play:
        key, control = next(iter(self.controls.items()))
        positions = control.positions
        button = widgets.Play(
            value=positions.index(self.values[key]),
            max=len(positions) - 1,
            interval=150,
            tooltip=f"play {key}",
        )
        there_and_back = (positions.__getitem__, lambda v: positions.index(control.nearest(v)))
        traitlets.link((button, "value"), (self.sliders[key], "value"), transform=there_and_back)
        return button

    @cached_property
    def _without_kernel(self) -> tuple[str, str]:
        """The HTML layer, and its picture with all controls at their start as PNG in base64."""
        if self.page is None:
            page, still = self._flip_book()
        else:
            still = still_picture(self._pixels(self._start))
            page = self.page(still=still, name=self.name, alt=self.description)
        self.place(**self.values)  # back to where the reader is
        return page, still

    def _flip_book(self) -> tuple[str, str]:
        """Over the first control, the others at their start."""
        key, control = next(iter(self.controls.items()))
        positions = control.positions
        start = positions.index(self._start[key])
        spread = np.linspace(0, len(positions) - 1, min(len(positions), 11)).round().astype(int)
        chosen = sorted({*spread.tolist(), start})
        pictures = []
        for index in chosen:
            changed = {key: positions[index]}
            pixels = self._pixels(self._in_order({**self._start, **changed}, changed))
            pictures.append(pixels[..., :3].copy())
        captions = [f"{key} = {control.label(positions[index])}" for index in chosen]
        others = ", ".join(list(self.controls)[1:])
        note = f"Run the cell to move {others} too." if others else ""
        here = chosen.index(start)
        return flip_book(pictures, captions, here, self.name, self.description, note)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        page, still = self._without_kernel
        widget = {} if self.page else self.box._repr_mimebundle_() or {}
        return {
            **widget,
            "text/html": page,
            "image/png": still,
            "text/plain": f"Explorer: {self.description}",
        }


def _check_arguments(fig, moving, controls, name, description, ordered) -> None:
    if not moving or any(artist.get_figure(root=True) is not fig for artist in moving):
        raise ValueError("moving must hold artists of fig, one or more")
    if not controls:
        raise ValueError("controls must name one slider or more, got none")
    if not name.strip() or not description.strip():
        raise ValueError("name and description must not be empty: they are what a reader hears")
    if ordered is not None and not set(ordered) <= set(controls):
        raise ValueError(f"ordered must name two controls of {list(controls)}, got {ordered}")
