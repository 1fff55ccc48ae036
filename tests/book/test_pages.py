"""The static pages of `make html`: complete, linked, and in need of no network."""

import html.parser
import json
import re
import xml.etree.ElementTree as ET
from urllib.parse import unquote

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from chapters.mathml import in_lines, mathml
from chapters.pages import Body, Chapter, build, prose
from chapters.search import index, sections
from tests.book.book import CHAPTERS, markdown, read, tags

MB = 1e6
TAGS_THAT_FETCH = {"link", "script", "img", "iframe", "source", "video", "audio", "embed", "object"}


class Page(html.parser.HTMLParser):
    """Ids, links and everything fetched, of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.ids, self.links, self.fetched = text, [], [], []
        self.counts = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.ids += [found["id"]] if "id" in found else []
        if tag == "a" and "href" in found:
            self.links.append(found)
        if tag in TAGS_THAT_FETCH:
            self.fetched += [found[key] for key in ("src", "href", "data") if key in found]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Page]:
    written = build(tmp_path_factory.mktemp("html"))
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in written}


def test_there_is_a_page_for_every_chapter_and_one_of_contents(pages):
    assert list(pages) == ["index.html", *(f"{path.stem}.html" for path in CHAPTERS)]
    leading = {link["href"] for link in pages["index.html"].links}
    assert leading >= pages.keys()


def test_pages_are_small(pages):
    for name, page in pages.items():
        assert len(page.text.encode()) <= 3 * MB, name


def test_pages_fetch_nothing(pages):
    for name, page in pages.items():
        assert all(target.startswith("data:") for target in page.fetched), name
        style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)[1]
        assert "url(" not in style and "@import" not in style, name


def test_links_lead_somewhere(pages):
    for name, page in pages.items():
        for link in page.links:
            target, _, anchor = link["href"].partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            there = pages.get(target or name)
            assert there, f"{name} links to {link['href']}"
            assert not anchor or unquote(anchor) in map(unquote, there.ids), link["href"]


def test_every_section_can_be_searched(pages):
    stored = re.search(r'<script type="application/json" id="sections">(.*?)</script>',
                       pages["index.html"].text, re.DOTALL)[1]  # fmt: skip
    found = json.loads(stored)
    for address, _, heading, text in found:
        name, _, anchor = address.partition("#")
        assert not anchor or anchor in pages[name].ids, address
        assert len(text) > 20 or heading, address
    for name, page in pages.items():
        headings = page.counts.get("h2", 0) if name != "index.html" else 0
        assert sum(entry[0].startswith(f"{name}#") for entry in found) == headings, name
    words = " ".join(text for *_, text in found).lower()
    assert all(word in words for word in ("continuity equation", "replay buffer", "temperature"))


def test_text_is_plain_and_scripts_stay_closed():
    body = """<p>Open</p><h2 id="a">Head &amp; <em>foot</em><a class="anchor-link">¶</a></h2>
    <p>x &lt; y <math><mi>q</mi></math></p>In&nbsp;[4]:<pre>z = 1</pre><script>bad()</script>"""
    first, second = sections("T", "t.html", body)
    assert first == ["t.html", "T", "", "Open"]
    assert second == ["t.html#a", "T", "Head & foot", "x < y"]
    assert "</script" not in index([["a", "b", "c", "</script>"]])


def test_previous_and_next_run_through_the_book(pages):
    names = list(pages)
    for name, before, after in zip(
        names[1:], [None, *names[1:-1]], [*names[2:], None], strict=True
    ):
        around = {link["rel"]: link["href"] for link in pages[name].links if "rel" in link}
        assert (around.get("prev"), around.get("next")) == (before, after)


def test_ids_are_unique(pages):
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_formula_is_mathml(path, pages):
    """As many formulas as pairs of dollars in the prose, and no dollar left outside of code."""
    page = pages[f"{path.stem}.html"]
    source = re.sub(r"`[^`\n]*`", "", markdown(read(path)))
    formulas = re.findall(r"\$\$.+?\$\$|\$[^$]+?\$", source, re.DOTALL)
    # Outputs may hold some more: the notes under a listing.
    assert page.counts.get("math", 0) >= len(formulas) > 0
    text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", page.text, flags=re.DOTALL)
    assert "$" not in re.sub(r"<[^>]*>", "", text)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stored_pictures_and_explorers_are_on_the_page(path, pages):
    page = pages[f"{path.stem}.html"]
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            stored = output.get("data", {}).get("text/html", "")
            pictures = re.findall(r'src="(data:[^"]+)"', stored)
            scripts = re.findall(r"<script>.*?</script>", stored, re.DOTALL)
            assert all(part in page.text for part in pictures + scripts)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_code_that_only_draws_is_folded(path, pages):
    folded = [cell for cell in read(path).cells if "hide-input" in tags(cell)]
    assert pages[f"{path.stem}.html"].text.count('<details class="folded">') == len(folded)


def test_a_folded_cell_shows_its_output_and_hides_its_code():
    output = new_output("stream", text="the picture")
    cells = [
        new_code_cell("draw()", outputs=[output], metadata={"tags": ["hide-input"]}),
        new_code_cell("compute()"),
    ]
    body = Body().from_notebook_node(new_notebook(cells=cells))[0]
    inside, outside = body.split("</details>")
    assert "draw" in inside and "the picture" in outside and "compute" in outside


def test_headings_are_in_the_contents():
    chapter = Chapter(CHAPTERS[-1])
    assert [text for text, _ in chapter.headings] == re.findall(
        r"^## (.+)$", markdown(chapter.notebook), re.MULTILINE
    )


def test_links_between_notebooks_become_links_between_pages():
    source = "[a](02_meanflow.ipynb) [b](02_meanflow.ipynb#Code) [c](https://x.org/a.ipynb)"
    targets = re.findall(r'href="([^"]+)"', prose(source))
    assert targets == ["02_meanflow.html", "02_meanflow.html#Code", "https://x.org/a.ipynb"]


@pytest.mark.parametrize(
    ("tex", "characters"),
    [
        (r"\mathcal N(0, I)", "𝒩(0,I)"),
        (r"\mathcal{L}", "ℒ"),
        (r"\mathbb 1[a]", "𝟙[a]"),
        (r"\mathbf 1", "𝟏"),
        (r"\big\|x\big\|", "‖x‖"),
        (r"\Big\{x\Big\}", "{x}"),
        (r"\arg\max_a Q", "arg\u2009maxaQ"),
        (r"a<b", "a<b"),
        (r"\varepsilon\mid a'", "ε∣a′"),
    ],
)
def test_formula_reads(tex, characters):
    assert "".join(ET.fromstring(mathml(tex)).itertext()) == characters


def test_functions_keep_their_distance():
    def spaces(tex):
        return mathml(tex).count("mspace")

    assert spaces(r"\log p") == spaces(r"\log\alpha") == 1
    assert spaces(r"\log(p)") == spaces(r"\exp\big(a\big)") == spaces(r"\sin^2 x") == 0


def test_a_sign_stands_close_to_its_number():
    assert mathml("[-1,1]").count("prefix") == mathml("v=-s").count("prefix") == 1
    assert mathml("a-b").count("prefix") == mathml("(a)-b").count("prefix") == 0


def test_lines_are_aligned():
    rows = mathml(r"\begin{aligned}a&=b\\c&=d\end{aligned}", "block").count("<mtr>")
    assert rows == 2


def test_lines_may_end_after_a_relation_outside_of_brackets():
    whole = mathml(r"v(a,t)=E[\varepsilon-a_0\mid a_t=a]=(a-m)/t+\big\{x=y\big\}")
    pieces = ET.fromstring(f"<p>{in_lines(whole)}</p>")
    read = ["".join(piece.itertext()) for piece in pieces]
    assert read == ["v(a,t)=", "E[ε−a0∣at=a]=", "(a−m)/t+", "{x=y}"]
    # A relation at the end of a formula keeps its space: the whole is as wide as before.
    assert pieces[0][-1][-1].get("form") == "infix"
    assert {piece.tag for piece in pieces} == {ET.fromstring(whole).tag}


@pytest.mark.parametrize(
    "tex", ["t=0", r"E[(a_0-m)^2\mid a_t=a, s=b]", r"a_0+\dots+a_{nnnnnnnnnnnnnnn}="]
)
def test_other_formulas_stay_whole_or_lose_nothing(tex):
    whole = mathml(tex)
    kept = "".join(ET.fromstring(f"<p>{in_lines(whole)}</p>").itertext())
    assert kept == "".join(ET.fromstring(whole).itertext())


@pytest.mark.parametrize("tex", [r"\nonsense x", r"x_a_b", r"a & b"])
def test_a_formula_that_cannot_be_read_is_named(tex):
    with pytest.raises(ValueError, match="no MathML for"):
        mathml(tex)
