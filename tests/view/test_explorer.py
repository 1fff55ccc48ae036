import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from som_lite.view.controls import Choice, Slider
from som_lite.view.explorer import Explorer
from som_lite.view.style import figure


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def tags_of(page: str) -> dict[str, dict]:
    """The attributes of every kind of tag in the page."""
    tags = {}
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.update({tag: dict(attributes)})
    parser.feed(page)
    return tags


def test_every_position_draws_a_picture_of_its_own(make_explorer):
    explorer = make_explorer()
    slider, seen = explorer.sliders["x"], set()
    for value in np.linspace(slider.min, slider.max, 17):
        slider.value = float(value)
        assert picture(explorer.image.value).shape == (300, 300, 3)
        seen.add(explorer.image.value)
    assert len(seen) == 17


def test_picture_equals_a_full_drawing(make_explorer):
    """Restoring the still part and drawing on it is the same as drawing everything."""
    explorer = make_explorer()
    explorer.set(x=-1.25, side="down")
    fast = picture(explorer.image.value)
    for artist in explorer.moving:
        artist.set_animated(False)
    buffer = io.BytesIO()
    explorer.fig.savefig(buffer, format="png")
    np.testing.assert_array_equal(fast, picture(buffer.getvalue()))


def test_nothing_is_left_of_earlier_positions(make_explorer):
    explorer = make_explorer()
    first = explorer.image.value
    explorer.set(x=2.0)
    explorer.set(side="down")
    explorer.set(x=0.5, side="up")
    assert explorer.image.value == first


def test_values_snap_to_positions(make_explorer):
    explorer = make_explorer()
    explorer.sliders["x"].value = 0.3  # typed into the read-out
    assert explorer.values["x"] == explorer.sliders["x"].value == 0.25


def test_layers_of_the_bundle(make_explorer):
    bundle = make_explorer()._repr_mimebundle_()
    assert set(bundle) == {
        "application/vnd.jupyter.widget-view+json",
        "text/html",
        "image/png",
        "text/plain",
    }
    assert bundle["text/plain"] == 'Explorer: A "point" <on> a line'
    assert picture(base64.b64decode(bundle["image/png"])).shape == (300, 300, 3)


def test_flip_book_is_accessible_and_complete_in_itself(make_explorer):
    page = make_explorer()._repr_mimebundle_()["text/html"]
    tags = tags_of(page)
    assert tags["img"]["alt"] == 'A "point" <on> a line'
    assert tags["input"]["aria-label"] == "A point"
    assert tags["input"]["aria-valuetext"] == "x = 0.50"
    assert not re.search(r"https?:|(src|href)=.(?!data:)", page)


def test_flip_book_frames_show_what_the_slider_shows(make_explorer):
    explorer = make_explorer()
    explorer.set(x=-2.0, side="down")  # the flip-book is about the start, wherever the reader is
    shown = explorer.image.value
    bundle = explorer._repr_mimebundle_()
    start = int(tags_of(bundle["text/html"])["input"]["value"])
    captions, changes = json.loads(re.search(r"= (\[\[.*\]\]), figure", bundle["text/html"])[1])
    still = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).convert("RGBA")
    assert captions[start] == "x = 0.50" and 9 <= len(captions) == len(changes) <= 12
    for caption, change in zip(captions, changes, strict=True):
        layer = Image.open(io.BytesIO(base64.b64decode(change))).convert("RGBA")
        frame = np.asarray(Image.alpha_composite(still, layer).convert("RGB")).astype(int)
        explorer.set(x=float(caption.split()[-1]), side="up")
        # 95 colours: flat areas are exact, the shades of smoothed edges move a little
        assert np.abs(frame - picture(explorer.image.value)).max() < 24
    explorer.set(x=-2.0, side="down")
    assert explorer.image.value == shown


def test_the_bundle_is_the_same_every_time(make_explorer):
    view = "application/vnd.jupyter.widget-view+json"  # holds a random model id
    one, two = make_explorer()._repr_mimebundle_(), make_explorer()._repr_mimebundle_()
    assert {**one, view: None} == {**two, view: None}


def test_another_page_takes_the_place_of_the_flip_book(make_explorer):
    explorer = make_explorer(page=lambda still, name, alt: f"<p>{name}|{alt}|{still}</p>")
    explorer.set(x=-2.0)
    shown = explorer.image.value
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in bundle  # one picture, not two
    name, alt, still = bundle["text/html"][3:-4].split("|")
    assert (name, alt, still) == ("A point", 'A "point" <on> a line', bundle["image/png"])
    explorer.set(x=0.5)  # the start, which the still shows wherever the reader is
    drawn, now = (picture(png) for png in (base64.b64decode(still), explorer.image.value))
    assert np.abs(drawn - now).max() < 24  # shades of smoothed edges move a little
    explorer.set(x=-2.0)
    assert explorer.image.value == shown


def test_widgets_say_what_they_are(make_explorer):
    explorer = make_explorer(
        controls={
            "x": Slider(-2.0, 2.0, 0.25, 0.5, "where the point is"),
            "side": Choice(["up", "down"], "down", "above or below"),
        }
    )
    assert explorer.sliders["side"].value == "down"
    words = [row.children[-1].value for row in explorer.box.children[1:-1]]
    assert words == [
        "x: where the point is, from -2 to 2 in steps of 0.25",
        "side: above or below, one of up, down",
    ]


def test_error_is_shown_and_raised_and_goes_away(make_explorer):
    explorer = make_explorer()
    explorer.place, good = (lambda **values: 1 / 0), explorer.place
    with pytest.raises(ZeroDivisionError):
        explorer.sliders["x"].value = 1.0
    assert "ZeroDivisionError: division by zero" in explorer.message.value
    assert explorer.message.layout.display != "none"
    explorer.place = good
    explorer.set(x=1.5)
    assert explorer.message.layout.display == "none"


def test_ordered_controls_push_each_other():
    fig, ax = figure(2.0, 2.0)
    (line,) = ax.plot([0, 1], [0, 1])
    seen = []
    times = (0.0, 1.0, 0.1, 0.5)
    explorer = Explorer(
        fig,
        [line],
        place=lambda r, t: seen.append((r, t)),
        controls={"r": times, "t": times},
        ordered=("r", "t"),
        name="times",
        description="times",
    )
    explorer.sliders["r"].value = 0.8
    assert (explorer.sliders["r"].value, explorer.sliders["t"].value) == (0.8, 0.8)
    explorer.sliders["t"].value = 0.2
    assert explorer.values == {"r": 0.2, "t": 0.2}
    explorer._repr_mimebundle_()  # the flip-book keeps the order as well
    assert all(r <= t for r, t in seen)


def test_play_moves_the_first_slider_and_follows_it(make_explorer):
    explorer = make_explorer(play=True)
    play = explorer.box.children[1].children[0]
    assert play.value == 10  # 0.5 on -2, -1.75, ..., 2
    play.value = 11
    assert explorer.values["x"] == 0.75
    explorer.set(x=-2.0)
    assert play.value == 0


def test_numbers_make_a_slider_and_words_make_buttons(make_explorer):
    explorer = make_explorer(
        place=lambda x, side: None, controls={"x": [1, 2, 4], "side": ["a", "b"]}
    )
    kinds = [type(slider).__name__ for slider in explorer.sliders.values()]
    assert kinds == ["SelectionSlider", "ToggleButtons"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moving": []}, "moving"),
        ({"moving": [figure(1.0, 1.0)[1].title]}, "moving must hold artists of fig"),
        ({"controls": {}}, "controls"),
        ({"controls": {"x": (0.0, 1.0)}}, "control 'x' must be"),
        ({"controls": {"x": (1.0, 0.0, 0.1, 0.5)}}, "low < high"),
        ({"controls": {"x": (0.0, 1.0, 0.0, 0.5)}}, "step > 0"),
        ({"controls": {"x": (0.0, 1.0, 0.1, 2.0)}}, "start must lie"),
        ({"controls": {"x": ["one"]}}, "two options"),
        ({"name": " "}, "name and description"),
        ({"description": ""}, "name and description"),
        ({"ordered": ("x", "y")}, "ordered"),
    ],
)
def test_bad_arguments_are_named(make_explorer, changes, message):
    with pytest.raises(ValueError, match=message):
        make_explorer(**changes)


def test_a_choice_starts_at_one_of_its_options():
    with pytest.raises(ValueError, match="a choice's start must be one of 1, 2, got 3"):
        Choice([1, 2], 3)


def test_set_names_what_is_wrong(make_explorer):
    explorer = make_explorer()
    with pytest.raises(ValueError, match="'y' is no control of this explorer, which has x, side"):
        explorer.set(y=1.0)
    with pytest.raises(ValueError, match=r"x must lie in \[-2, 2\], got 3"):
        explorer.set(x=3.0)
    with pytest.raises(ValueError, match="side must be one of up, down, got 'left'"):
        explorer.set(side="left")
