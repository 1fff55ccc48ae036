import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from som_lite.view.style import COLOURS, LINES, MARKERS, figure, freeze, of_kind, plane


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_every_colour_has_a_marker_and_a_line_style_of_its_own():
    assert set(COLOURS) == set(MARKERS) == set(LINES)
    markers = {COLOURS[kind]: MARKERS[kind] for kind in COLOURS}
    assert len(set(markers.values())) == len(markers)


def test_the_same_thing_has_the_same_colour_under_both_its_names():
    for one, other in [("noise", "source"), ("data", "target"), ("flow", "velocity")]:
        assert COLOURS[one] == COLOURS[other]
    assert COLOURS["one-step"] == COLOURS["average"] == COLOURS["som"] != COLOURS["sac"]


def test_colours_are_visible_on_white():
    # WCAG asks 3:1 for graphics; Okabe and Ito's orange and sky reach 2.2, hence the second cue.
    for colour in COLOURS.values():
        assert 1.05 / (luminance(colour) + 0.05) > 2.1


def test_unknown_kind_names_the_kinds():
    with pytest.raises(ValueError, match=r"kind must be one of noise, .*got 'nois'"):
        of_kind(COLOURS, "nois")


def test_figure_is_opaque_white_readable_and_unknown_to_pyplot():
    fig, axes = figure(6.0, 3.0, ncols=2)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())
    assert pixels.shape == (300, 600, 4) and (pixels[0, 0] == 255).all()
    for ax in axes:
        texts = [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels()]
        assert min(text.get_fontsize() for text in texts) >= 9
    assert plt.get_fignums() == []


def test_plane_keeps_limits_and_aspect_whatever_is_drawn():
    fig, ax = figure(5.0, 4.0)
    plane(ax, 2)
    ax.plot([-9, 9], [-9, 9])
    fig.canvas.draw()
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2)
    box = ax.get_window_extent()
    assert box.width == pytest.approx(box.height)


def test_freeze_keeps_the_axes_where_they_are():
    fig, ax = figure(4.0, 3.0)
    freeze(fig)
    before = ax.get_position().bounds
    ax.set_title("a\ntitle\nof\nmany\nlines")
    fig.canvas.draw()
    assert ax.get_position().bounds == before
