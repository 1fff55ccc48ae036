import pytest
from matplotlib.figure import Figure

from som_lite.view.explorer import Explorer
from som_lite.view.style import figure, plane


def line_explorer(**changes) -> Explorer:
    """A point that moves along a line: the smallest explorer."""
    fig, ax = figure(3.0, 3.0)
    (point,) = plane(ax).plot([0.0], [0.0], "o")

    def place(x, side):
        point.set_data([x], [1.0 if side == "up" else -1.0])

    arguments = {
        "fig": fig,
        "moving": [point],
        "place": place,
        "controls": {"x": (-2.0, 2.0, 0.25, 0.5), "side": ["up", "down"]},
        "name": "A point",
        "description": 'A "point" <on> a line',
    }
    return Explorer(**{**arguments, **changes})


@pytest.fixture
def make_explorer():
    return line_explorer


@pytest.fixture
def plane_figure() -> Figure:
    fig, ax = figure(3.0, 3.0)
    plane(ax)
    return fig
