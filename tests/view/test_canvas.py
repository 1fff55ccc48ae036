import base64
import html.parser
import json
import re

import numpy as np
import pytest
import torch

from som_lite.flow.densities import three_modes
from som_lite.flow.meanflow import average_velocity
from som_lite.flow.paths import Linear
from som_lite.view.canvas import AVERAGE_CELLS, AVERAGE_TIMES, CELLS, REACH, TIMES, flow_canvas

TARGET = three_modes()
NOISE = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
TEXTS = {"still": "AAAA", "name": "A flow", "alt": "Particles on a plane"}


def velocity(a, t):
    return TARGET.velocity(a, t, Linear())


def page_of(**changes) -> str:
    return flow_canvas(
        velocity, TARGET.log_prob, NOISE, (1.0, 2.0), [1, 4], 4, **{**TEXTS, **changes}
    )


def data_of(page: str) -> dict:
    return json.loads(re.search(r"parentElement, (\{.*\})\);", page)[1])


def unpacked(table: dict, layers: int) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(table["bytes"]), np.int8).astype(float)
    cells = table["cells"]
    return values.reshape(layers, cells, cells, 2) * np.array(table["scales"])[:, None, None, None]


def position(index: int, cells: int) -> float:
    """Where the index-th line of the grid runs: from -3.6 to 3.6."""
    return 3 * REACH * (2 * index / (cells - 1) - 1)


@pytest.mark.parametrize(("layer", "row", "column"), [(0, 3, 17), (7, 40, 0), (20, 11, 38)])
def test_table_holds_the_velocity_at_its_grid_points(layer, row, column):
    table = data_of(page_of())["velocity"]
    where = torch.tensor([[position(column, CELLS), position(row, CELLS)]])
    truth = velocity(where, torch.tensor([[layer / (TIMES - 1)]]))[0]
    # A byte is rounded by at most half a step, and the scale has five digits.
    step = 0.51 * table["scales"][layer]
    np.testing.assert_allclose(unpacked(table, TIMES)[layer, row, column], truth, atol=step)


@pytest.mark.parametrize(("i", "j"), [(0, 0), (0, 8), (3, 5), (8, 8)])
def test_table_of_a_given_average_velocity(i, j):
    """Layer j (j + 1) / 2 + i is the interval from the i-th to the j-th time."""

    def average(a, r, t):
        return average_velocity(velocity, a, r, t, 8)

    table = data_of(page_of(average=average, interval=(0.3, 1.0)))["average"]
    layers = AVERAGE_TIMES * (AVERAGE_TIMES + 1) // 2
    where = torch.tensor([[position(6, AVERAGE_CELLS), position(20, AVERAGE_CELLS)]])
    r, t = (torch.tensor([[k / (AVERAGE_TIMES - 1)]]) for k in (i, j))
    layer = j * (j + 1) // 2 + i
    step = 0.51 * table["scales"][layer]
    found = unpacked(table, layers)[layer, 20, 6]
    np.testing.assert_allclose(found, average(where, r, t)[0], atol=step)


def test_a_field_that_is_zero_has_a_table():
    table = data_of(
        flow_canvas(lambda a, t: 0 * a, TARGET.log_prob, NOISE, (0.0, 0.0), [1, 2], 1, **TEXTS)
    )
    assert not unpacked(table["velocity"], TIMES).any()


def test_without_scripts_a_described_picture_remains():
    page = page_of(still="c3RpbGw=", alt='A "flow" & <more>')
    still = re.sub(r"<script>.*</script>", "", page, flags=re.DOTALL)
    images = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: images.append((tag, dict(attributes)))
    parser.feed(still)
    image = dict(images)["img"]
    assert image["alt"] == 'A "flow" & <more>'
    assert image["src"] == "data:image/png;base64,c3RpbGw="
    assert "canvas" not in dict(images) and "input" not in dict(images)


def test_texts_cannot_leave_the_script():
    page = page_of(name="</script><b>bold", alt="<!-- <script>")
    assert page.count("</script>") == 1
    assert data_of(page)["name"] == "</script><b>bold"
    assert data_of(page)["alt"] == "<!-- <script>"


def test_page_is_complete_in_itself_and_small():
    page = page_of(average=lambda a, r, t: velocity(a, t), interval=(0.0, 1.0))
    assert not re.search(r"https?:|\bimport\b|fetch\(|(src|href)=.(?!data:)", page)
    assert len(page) < 200_000


def test_page_is_the_same_every_time():
    assert page_of() == page_of()
