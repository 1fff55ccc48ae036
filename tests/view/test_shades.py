import numpy as np
import pytest

from som_lite.view.shades import Shades
from som_lite.view.style import figure, freeze, plane

COLOURS = np.array([[250, 255, 3, 255], [7, 11, 200, 255], [90, 91, 92, 255]], np.uint8)
NUMBERS = np.random.default_rng(0).integers(0, 3, (50, 50)).astype(np.uint8)


def pixels(fig) -> np.ndarray:
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba()).copy()


def drawn(dpi=100, quick=True):
    """A figure whose axes begin and end between pixels, with the picture on them."""
    fig, ax = figure(3.03, 2.57)
    fig.set_dpi(dpi)
    plane(ax)
    if quick:
        Shades(ax, COLOURS, 50).show(NUMBERS)
    else:
        window = (-3, 3, -3, 3)
        picture = COLOURS[NUMBERS]
        ax.imshow(picture, extent=window, origin="lower", interpolation="nearest", zorder=0)
    freeze(fig)
    return fig, ax


@pytest.mark.parametrize("dpi", [70, 100, 133])
def test_is_the_picture_that_matplotlib_draws(dpi):
    (one, _), (other, _) = drawn(dpi), drawn(dpi, quick=False)
    np.testing.assert_array_equal(pixels(one), pixels(other))


def test_follows_its_axes():
    (one, ax), (other, bx) = drawn(), drawn(quick=False)
    pixels(one)
    for axes in (ax, bx):
        axes.set_position((0.2, 0.3, 0.5, 0.6))
    np.testing.assert_array_equal(pixels(one), pixels(other))


def test_another_picture_takes_its_place():
    fig, ax = drawn()
    before = pixels(fig)
    ax.images[0].show(2 - NUMBERS)
    assert (pixels(fig) != before).any()
    ax.images[0].show(NUMBERS)
    np.testing.assert_array_equal(pixels(fig), before)


@pytest.mark.parametrize("cells", [0, 257])
def test_sides_that_no_byte_holds_are_refused(cells):
    _, ax = figure(2.0, 2.0)
    with pytest.raises(ValueError, match=rf"cells must lie in \[1, 256\], got {cells}"):
        Shades(ax, COLOURS, cells)
