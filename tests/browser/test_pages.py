"""The static pages in a browser, opened from disk with the network blocked."""

import pytest

from chapters.pages import build
from tests.book.book import CHAPTERS

pytestmark = pytest.mark.browser

STEMS = [path.stem for path in CHAPTERS]
PICTURE = """figure => figure.querySelector("img")?.src
    ?? [...figure.querySelectorAll("canvas")].map(canvas => canvas.toDataURL()).join()"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return {path.stem: path for path in build(tmp_path_factory.mktemp("html"))}


@pytest.fixture
def offline(page, problems):
    """A page that asks the network for nothing."""
    page.route("**/*", lambda route: route.continue_() if is_local(route) else route.abort())
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url),
    )
    return page


def is_local(route) -> bool:
    return not route.request.url.startswith("http")


@pytest.mark.parametrize("stem", STEMS)
def test_every_explorer_answers_the_keyboard(offline, pages, stem):
    offline.goto(pages[stem].as_uri())
    figures = offline.locator("figure:has(input[type=range])")
    stored = next(path for path in CHAPTERS if path.stem == stem).read_text("utf-8")
    assert figures.count() == stored.count('"Explorer: ')
    for k in range(figures.count()):
        figure = figures.nth(k)
        pause = figure.get_by_role("button", name="Pause")
        if pause.count():
            pause.press("Space")
        sliders = figure.get_by_role("slider")
        assert sliders.count() >= 1
        for index in range(sliders.count()):
            slider, before = sliders.nth(index), figure.evaluate(PICTURE)
            slider.press("ArrowLeft")
            if figure.evaluate(PICTURE) == before:  # it stood at its left end
                slider.press("ArrowRight")
                assert figure.evaluate(PICTURE) != before
            assert slider.get_attribute("aria-valuetext")


@pytest.mark.parametrize("stem", [s for s in STEMS if s.startswith(("01", "02"))])
def test_particles_move(offline, pages, stem):
    offline.goto(pages[stem].as_uri())
    figure = offline.locator("figure:has(canvas)").first
    figure.scroll_into_view_if_needed()
    seen = set()
    for _ in range(4):
        seen.add(figure.evaluate(PICTURE))
        offline.wait_for_timeout(100)
    assert len(seen) >= 3


@pytest.mark.parametrize("stem", STEMS)
def test_a_phone_scrolls_in_one_direction_only(offline, pages, stem):
    """Formulas break or scroll by themselves, and so do code, tables and pictures."""
    offline.set_viewport_size({"width": 390, "height": 800})
    offline.goto(pages[stem].as_uri())
    beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert offline.evaluate(beyond) <= 0


def test_a_reader_walks_through_the_book(offline, pages):
    offline.goto(pages["index"].as_uri())
    for stem in STEMS:
        offline.locator("a[rel=next]").last.click()
        assert offline.url == pages[stem].as_uri()
    offline.get_by_role("navigation", name="Contents").get_by_role("link").first.click()
    assert offline.url == pages["index"].as_uri()


def test_the_search_field_leads_to_a_section(offline, pages):
    """From the page of a chapter, without network; every word must occur, in any order."""
    offline.goto(pages[STEMS[3]].as_uri())
    field = offline.get_by_role("searchbox", name="Search the book")
    field.fill("EQUATION continuity")
    field.press("Enter")
    hits = offline.locator("#found li")
    assert hits.count() >= 1
    assert "continuity equation" in hits.first.inner_text().lower()
    link = hits.first.get_by_role("link")
    target = link.get_attribute("href")
    link.click()
    assert offline.url.endswith(target)
    offline.goto(pages["index"].as_uri() + "?q=<b>zebra")
    assert offline.locator("#found").inner_text() == "Nothing on “<b>zebra”"


def test_the_first_page_moves(offline, pages):
    offline.goto(pages["index"].as_uri())
    film = offline.get_by_role("img", name="Five robots side by side")
    assert film.get_attribute("src").startswith("data:image/webp")
    assert film.evaluate("image => image.complete && image.naturalWidth") > 400


def test_formulas_have_a_height(offline, pages):
    """MathML that the browser does not draw would be a line of letters."""
    offline.goto(pages[STEMS[-1]].as_uri())
    fractions = offline.locator("math[display=block] mfrac")
    line = float(offline.evaluate("parseFloat(getComputedStyle(document.body).fontSize)"))
    assert all(box.bounding_box()["height"] > 1.3 * line for box in fractions.all()[:5])
