"""A picture in a few flat colours, such as a density behind particles: small, and quick to draw."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage


class Shades(AxesImage):
    """The axes' window in cells x cells squares of few colours; `show(numbers)` picks them.

    colours  (k, 4) bytes: red, green, blue and alpha, which is 255
    cells    at most 256, as the place of a square is kept in bytes

    To find the square of every pixel takes Matplotlib 3 ms, a fifth of what a slider's move may
    take. Here it does so once, and again only when the axes are moved.
    """

    def __init__(self, ax: Axes, colours: np.ndarray, cells: int):
        if not 1 <= cells <= 256:
            raise ValueError(f"cells must lie in [1, 256], got {cells}")
        window = (*ax.get_xlim(), *ax.get_ylim())
        super().__init__(ax, extent=window, origin="lower", interpolation="nearest", zorder=0)
        row, column = np.indices((cells, cells)).astype(np.uint8)
        opaque = np.full_like(row, 255)
        self.set_data(np.stack([row, column, opaque, opaque], -1))  # every square in its own colour
        self.colours, self.numbers = colours, np.zeros((cells, cells), np.uint8)
        self._place: Any = None
        ax.add_image(self)
        self.set_clip_path(ax.patch)

    def show(self, numbers: np.ndarray) -> None:
        """Take a colour's number for every square (cells, cells); row i has the i-th height."""
        self.numbers = numbers

    def make_image(self, renderer, magnification=1.0, unsampled=False):
        """What `AxesImage.draw` puts on the screen: pixels (height, width, 4) and their corner."""
        place = (*self.axes.bbox.bounds, magnification)
        if place != self._place:
            squares, *self._corner = super().make_image(renderer, magnification, unsampled)
            self._square = squares[..., 0] * np.intp(len(self.numbers)) + squares[..., 1]
            self._place = place
        numbers = self.numbers.take(self._square)
        return self.colours.take(numbers, axis=0), *self._corner
