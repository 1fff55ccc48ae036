import re

import numpy as np
import pytest

from som_lite.view import plots, style
from som_lite.view.moving import Movement, animated, keyframes

STOPS = np.array(
    [[[0.0, 0.0], [1.0, 0.5]], [[0.5, -1.0], [1.0, 1.0]], [[-1.0, 0.25], [0.0, -0.75]]]
)


@pytest.fixture
def drawing(tmp_path):
    """An SVG with points that move on top of the points, drawn by matplotlib, where they end."""
    fig, (_, right) = style.figure(6.0, 3.0, ncols=2)
    plots.particles(style.plane(right, 1.5), STOPS[-1], "data", size=3)
    fig.savefig(tmp_path / "still.svg", format="svg")
    moves = [Movement(right, STOPS, [(10, 20), (30, 40)], ["#000000", "#ffffff"])]
    return animated((tmp_path / "still.svg").read_text(), fig, moves)


def circles(svg):
    """Where the circles end, and where they are at each stop before, in the units of the file."""
    found = []
    for x, y, way in re.findall(r'<circle class="m0" cx="(.+?)" cy="(.+?)".*?style="(.*?)"', svg):
        end = np.array([float(x), float(y)])
        shifts = re.findall(r"--s\d:(.+?)px,(.+?)px", way)
        found.append([end + np.array(shift, dtype=float) for shift in shifts] + [end])
    return np.array(found).swapaxes(0, 1)


def test_points_end_where_matplotlib_draws_them(drawing):
    drawn = re.findall(r'<use [^>]*x="(.+?)" y="(.+?)" style="fill: #0072b2', drawing)
    # A tenth of a point is how exactly circles are written.
    np.testing.assert_allclose(circles(drawing)[-1], np.array(drawn, dtype=float), atol=0.1)


def test_stops_have_the_same_scale_and_an_axis_that_points_up(drawing):
    stops = circles(drawing)
    unit = (stops[-1][1] - stops[-1][0]) / (STOPS[-1][1] - STOPS[-1][0])
    assert unit[0] > 0 > unit[1]
    expected = stops[-1] + (STOPS - STOPS[-1]) * unit
    np.testing.assert_allclose(stops, expected, atol=0.5)  # rounding to .1, times three


def test_rounds_begin_at_the_first_stop_and_end_without_a_shift():
    frames = keyframes("m0", [(10, 20), (30, 40)])
    assert frames == (
        "@keyframes m0 {0%,10% {transform:translate(var(--s0))} "
        "20%,30% {transform:translate(var(--s1))} 40%,100% {transform:none}}"
    )


def test_who_asks_for_less_motion_gets_none(drawing):
    assert "prefers-reduced-motion: reduce) {circle {animation: none" in drawing
    assert drawing.count("</svg>") == 1 and drawing.rstrip().endswith("</svg>")
