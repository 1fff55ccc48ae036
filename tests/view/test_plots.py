import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from som_lite.flow.densities import three_modes
from som_lite.view import plots
from som_lite.view.style import COLOURS, MARKERS


@pytest.fixture
def ax(plane_figure):
    return plane_figure.axes[0]


def test_grid_holds_cell_centres_rows_from_below(ax):
    grid = plots.grid(ax, 3)
    assert grid.shape == (3, 3, 2)
    # window [-3, 3], three cells of width 2
    assert torch.allclose(grid[0, :, 0], torch.tensor([-2.0, 0.0, 2.0]))
    assert torch.allclose(grid[:, 0, 1], torch.tensor([-2.0, 0.0, 2.0]))


def test_density_shows_the_density_the_right_way_up(ax):
    target = three_modes()
    image = plots.density(ax, target.log_prob, points=60, cmap="gray")
    canvas = ax.figure.canvas
    canvas.draw()
    shades = np.asarray(canvas.buffer_rgba())[::-1, :, 0].astype(int)  # rows from below, as plotted

    def shade(x, y):
        column, row = ax.transData.transform((x, y)).round().astype(int)
        return shades[row, column]

    for x, y in target.means[[0, 2]].tolist():  # the other lies near its mirror image
        assert shade(x, y) > shade(x, -y) + 50
    mass = image.get_array().sum() * (6 / 60) ** 2
    assert mass == pytest.approx(1.0, abs=0.01)  # the window holds nearly everything


def test_field_draws_a_callable_and_its_array_alike(ax):
    def turn(x):
        return torch.stack([-x[:, 1], x[:, 0]], dim=-1)

    arrows = plots.field(ax, turn, points=5)
    array = turn(plots.grid(ax, 5).reshape(-1, 2)).reshape(5, 5, 2)
    same = plots.field(ax, array.numpy(), points=5)
    where = arrows.get_offsets()
    np.testing.assert_allclose(arrows.U, -where[:, 1], atol=1e-6)
    np.testing.assert_allclose(arrows.V, where[:, 0], atol=1e-6)
    np.testing.assert_allclose(same.U, arrows.U)
    # the longest arrow spans one and a half of the five cells of width 1.2
    longest = np.hypot(arrows.U, arrows.V).max() / arrows.scale
    assert longest == pytest.approx(1.8)


def test_particles_have_the_colour_and_marker_of_their_kind(ax):
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    points = plots.particles(ax, x, "one-step")
    assert points.get_color() == COLOURS["one-step"]
    assert points.get_marker() == MARKERS["one-step"]
    np.testing.assert_allclose(points.get_xydata(), x.detach())
    with pytest.raises(ValueError, match="kind"):
        plots.particles(ax, x, "many-step")


def test_trajectories_are_one_line_per_point(ax):
    paths = torch.arange(24.0).reshape(4, 3, 2)
    lines = plots.trajectories(ax, paths)
    assert len(lines.get_segments()) == 3
    np.testing.assert_allclose(lines.get_segments()[1], paths[:, 1])


def test_arrow_reaches_from_tail_to_tip(ax):
    arrow = plots.arrow(ax, [1.0, -1.0], torch.tensor([0.0, 2.0]), "average")
    ax.figure.canvas.draw()
    pixels = arrow.get_transform().transform(arrow.get_paths()[0].vertices)
    tail, tip = ax.transData.transform([(1.0, -1.0), (1.0, 1.0)])
    offset = arrow.get_offset_transform().transform(arrow.get_offsets())[0]
    np.testing.assert_allclose(offset, tail)
    assert np.ptp(pixels[:, 1]) == pytest.approx(tip[1] - tail[1], rel=0.02)


def test_backdrop_is_pale(ax):
    shades = plots.backdrop(ax, three_modes().log_prob)
    darkest = shades.cmap(1.0)
    assert min(darkest[:3]) > 0.45  # arrows in any colour of the book stand out from it


def test_curve_draws_mean_band_and_label(ax):
    steps = np.arange(5.0)
    line = plots.curve(ax, steps, steps**2, spread=np.ones(5), kind="sac", label="SAC")
    np.testing.assert_allclose(line.get_xydata(), np.stack([steps, steps**2], axis=1))
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == -1 and heights.max() == 17
    assert to_rgba(line.get_color()) == to_rgba(COLOURS["sac"])
    assert [text.get_text() for text in ax.texts] == ["SAC"]


def test_curve_writes_many_steps_in_short(ax):
    plots.curve(ax, np.array([0.0, 200_000.0]), np.zeros(2))
    assert ax.xaxis.get_major_formatter()(200_000) == "200 k"


def test_key_lists_the_entries_with_their_looks(ax):
    key = plots.key(ax, {"noise": ("noise", "points"), "$v$": ("velocity", "arrow")})
    assert [text.get_text() for text in key.get_texts()] == ["noise", "$v$"]
    first, second = key.get_lines()
    assert (first.get_marker(), first.get_linestyle()) == (MARKERS["noise"], "None")
    assert (second.get_marker(), second.get_linestyle()) == (">", "-")
