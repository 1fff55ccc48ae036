"""Flows that move in the browser: do particles go where the ODE takes them, for every reader?"""

import base64
import re

import numpy as np
import pytest
import torch

from som_lite.flow.densities import three_modes
from som_lite.flow.ode import euler_step, reference_solve, solve
from som_lite.flow.paths import Linear
from som_lite.view.canvas import flow_canvas
from som_lite.view.png import palette_png

pytestmark = pytest.mark.browser

TARGET = three_modes()
NOISE = torch.randn(60, 2, generator=torch.Generator().manual_seed(3))
PIXEL = base64.b64encode(palette_png(np.zeros((1, 1)), np.zeros((1, 3), np.uint8))).decode()


def velocity(a, t):
    return TARGET.velocity(a, t, Linear())


def fragment(**changes) -> str:
    texts = {"still": PIXEL, "name": 'A <b>"flow"', "alt": "Particles </script> drift."}
    return flow_canvas(
        velocity, TARGET.log_prob, NOISE, (1.6, -1.8), [1, 2, 8], 1, **{**texts, **changes}
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A page with two flows: over [0, 1], and over an interval with a wrong average velocity."""
    path = tmp_path_factory.mktemp("flows") / "page.html"
    wrong = fragment(interval=(0.2, 0.8), average=lambda a, r, t: velocity(a, t))
    path.write_text(f"<!doctype html><meta charset=utf-8>{fragment()}{wrong}", encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def flows(page, address, problems):
    page.goto(address)
    figures = page.locator("figure")
    assert figures.count() == 2
    return figures.nth(0), figures.nth(1)


def paths(figure, starts, t, r) -> np.ndarray:
    ends = figure.evaluate(
        "(figure, [starts, t, r]) => starts.map(([x, y]) => figure.trace(x, y, t, r).at(-1))",
        [starts.tolist(), t, r],
    )
    return np.array(ends)


def words(figure) -> str:
    return figure.locator("[aria-live]").inner_text()


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d+\.\d+", text)


def picture(figure) -> str:
    return figure.evaluate("figure => figure.querySelector('canvas').toDataURL()")


def moves(page, figure) -> bool:
    before = picture(figure)
    page.wait_for_timeout(200)
    return picture(figure) != before


@pytest.mark.parametrize(("t", "r"), [(1.0, 0.0), (0.8, 0.2)])
def test_paths_end_where_an_independent_solver_ends(flows, t, r):
    miss = np.linalg.norm(
        paths(flows[0], NOISE, t, r) - reference_solve(velocity, NOISE, t, r).numpy(), axis=1
    )
    # A pixel is 0.014. Near a watershed of the flow a small error grows, and a path may even end
    # in another blob: hence no bound for all.
    assert np.median(miss) < 0.007 and np.quantile(miss, 0.9) < 0.03


def test_words_tell_where_the_point_goes(flows):
    end = reference_solve(velocity, torch.tensor([[1.6, -1.8]]))[0]
    mean = TARGET.weights @ TARGET.means  # one Euler step from t = 1 lands there
    found = [float(number) for number in numbers(words(flows[0]))]
    np.testing.assert_allclose(found[:2], [1.6, -1.8])
    np.testing.assert_allclose(found[3:5], end, atol=0.03)
    np.testing.assert_allclose(found[6:], mean, atol=0.03)


@pytest.mark.parametrize("n", [1, 8])
def test_words_tell_how_far_euler_steps_are_off(flows, n):
    """The second flow's steps start from noise."""
    flows[1].get_by_role("slider", name="n: Euler steps").fill(str([1, 2, 8].index(n)))
    found = flows[1].get_by_text(re.compile(r"^\d+ Euler")).inner_text()
    exact = reference_solve(velocity, NOISE)
    landed = solve(velocity, NOISE, steps=n, step=euler_step)
    ones = torch.ones_like(NOISE[:, :1])
    for number, points in zip(
        re.findall(r"off by ([\d.]+)", found), (landed, NOISE - velocity(NOISE, ones)), strict=True
    ):
        # Means over 60 points, of which the table sends a few astray.
        assert abs(float(number) - (points - exact).norm(dim=-1).mean()) < 0.05


def test_words_tell_how_far_euler_steps_from_now_are_off(flows):
    figure = flows[0]
    figure.get_by_role("slider", name="t: time").fill("0.5")
    found = figure.get_by_text("1 Euler step from t = 0.50").inner_text()
    now = solve(velocity, NOISE, 1.0, 0.5, steps=64)
    landed = now - 0.5 * velocity(now, torch.full((60, 1), 0.5))
    off = (landed - reference_solve(velocity, NOISE)).norm(dim=-1).mean()
    assert abs(float(numbers(found)[-1]) - off) < 0.05


def test_a_given_average_velocity_is_looked_up(flows):
    """It is v here, so that its step lands on the Euler step, and not where the flow line ends."""
    found = [float(number) for number in numbers(words(flows[1]))]
    start = torch.tensor([[1.6, -1.8]])
    euler = (start - 0.6 * velocity(start, torch.tensor([[0.8]])))[0]
    np.testing.assert_allclose(found[6:8], euler, atol=0.03)
    np.testing.assert_allclose(found[8:], euler, atol=0.06)  # of a coarser table
    assert np.hypot(*(np.array(found[3:5]) - euler.numpy())) > 0.1


def test_particles_move_until_paused_and_each_flow_for_itself(page, flows):
    first, second = flows
    assert moves(page, first) and moves(page, second)
    first.get_by_role("button", name="Pause").click()
    assert not moves(page, first) and moves(page, second)
    untouched = words(second)
    first.locator("canvas[tabindex]").press("ArrowUp")
    assert words(second) == untouched
    first.get_by_role("button", name="Play").click()
    assert moves(page, first)


def test_particles_rest_for_readers_who_want_less_motion(page, address):
    page.emulate_media(reduced_motion="reduce")
    page.goto(address)
    figure = page.locator("figure").first
    assert not moves(page, figure)
    figure.get_by_role("button", name="Play").click()
    assert moves(page, figure)


def test_keyboard_alone(page, flows):
    figure = flows[1]
    figure.locator("canvas[tabindex]").focus()
    before = words(figure)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    assert words(figure).startswith("(1.70, -2.30)") and words(figure) != before
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # the button: pause
    assert not moves(page, figure)
    still = picture(figure)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")  # the clock
    assert picture(figure) != still
    page.keyboard.press("Tab")
    page.keyboard.press("End")  # r, which pushes t
    assert "at r = 1.00" in words(figure)
    page.keyboard.press("Tab")
    page.keyboard.press("Home")  # t, which pushes r
    assert "at t = 0.00" in words(figure) and "at r = 0.00" in words(figure)
    page.keyboard.press("Tab")
    page.keyboard.press("End")  # n
    assert figure.get_by_text("8 Euler steps from t = 1.00").count() == 1


def test_every_control_has_a_name(flows):
    for figure, sliders in zip(
        flows,
        (["t: time", "n: Euler"], ["time of the particles", "r: start", "t: its end", "n: Euler"]),
        strict=True,
    ):
        assert figure.get_by_role("slider").count() == len(sliders)
        for name in sliders:
            assert figure.get_by_role("slider", name=name).count() == 1
        assert figure.get_by_role("application", name='A <b>"flow". Particles </script>').count()
        assert figure.locator("img").count() == 0  # the moving picture is in its place


def test_the_point_follows_the_mouse(page, flows):
    box = flows[0].locator("canvas[tabindex]").bounding_box()
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*centre)
    page.mouse.down()
    assert words(flows[0]).startswith("(0.0") or words(flows[0]).startswith("(-0.0")
    page.mouse.move(centre[0] + box["width"] / 4, centre[1] - box["height"] / 4, steps=3)
    page.mouse.up()
    x, y = map(float, numbers(words(flows[0]))[:2])
    assert abs(x - 1.5) < 0.03 and abs(y - 1.5) < 0.03  # two pixels: the border
    page.mouse.move(*centre)
    assert float(numbers(words(flows[0]))[0]) == x  # let go


def test_the_point_follows_the_finger(browser, address):
    context = browser.new_context(has_touch=True, viewport={"width": 600, "height": 500})
    page = context.new_page()
    page.goto(address)
    figure = page.locator("figure").first
    box = figure.locator("canvas[tabindex]").bounding_box()

    def place(x, y):
        return {"x": box["x"] + (x + 3) / 6 * box["width"], "y": (3 - y) / 6 * box["height"]}

    touch = context.new_cdp_session(page)

    def drag(start, end):
        for kind, points in (("Start", [start]), ("Move", [end]), ("End", [])):
            touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})

    drag(place(1.6, -1.8), place(-1.0, 0.5))
    x, y = map(float, numbers(words(figure))[:2])
    assert abs(x + 1) < 0.15 and abs(y - 0.5) < 0.15  # the page begins 8 pixels further down
    drag(place(2.0, -2.0), place(1.0, -1.0))  # far from the point: the reader scrolls
    assert numbers(words(figure))[:2] == [f"{x:.2f}", f"{y:.2f}"]
    context.close()
