"""The book as static pages: stored notebooks -> build/html/*.html, which need no network.

    python -m chapters.pages                   write build/html
    python -m chapters.pages --out DIRECTORY   write elsewhere

Nothing is executed. A page shows what its notebook stores: the explorers' HTML layers move,
formulas are MathML, links between chapters lead to pages, and the contents stand beside the text.
The search field of every page leads to the first one, which holds the text of all.
Code that only draws (tag `hide-input`) is folded into a `<details>`.
"""

import argparse
import base64
import html
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

from chapters.make import FOLDED
from chapters.mathml import in_lines, mathml
from chapters.search import index, sections

IMAGES = {".svg": "image/svg+xml", ".webp": "image/webp"}
HERE = Path(__file__).resolve().parent
BOOK = "From flow matching to one-step policies"
ABOUT = """
The book to read in a browser: its code is not running here, its explorers answer all the same. To
change code and run it, open the notebooks with `make read`.

![Five robots side by side, each in motion on a chequered floor: a flat runner, a hopping leg, two
legs that walk, a four-legged body, and a figure with arms and legs.](../figures/robots.webp)

*Five robots after 100 000 steps of experience. For each action one call of a network turns 32 draws
of noise into 32 candidates, and a critic picks the best. The book leads there from the first
velocity field.*
"""


class Prose(IPythonRenderer):
    """Markdown whose formulas are MathML and whose links to notebooks lead to pages."""

    def block_math(self, body):
        return mathml(html.unescape(body), "block")

    def inline_math(self, body):
        return in_lines(mathml(html.unescape(body)))

    def latex_environment(self, name, body):
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def link(self, text, url, title=None):
        return super().link(text, re.sub(r"^([\w-]+)\.ipynb(?=#|$)", r"\1.html", url), title)

    def image(self, text, url, title=None):
        """A page stands alone: figures of the repository become a part of it."""
        file = HERE / url
        if file.suffix not in IMAGES or not file.is_file():
            return super().image(text, url, title)
        data = base64.b64encode(file.read_bytes()).decode()
        return f'<img src="data:{IMAGES[file.suffix]};base64,{data}" alt="{html.escape(text)}">'


def prose(source: str) -> str:
    renderer = Prose(escape=False, embed_images=True, path=str(HERE))
    return MarkdownWithMath(renderer=renderer).render(source)


# The code of a cell, folded where it only draws.
CELLS = """
{%- extends 'index.html.j2' -%}
{% block input_group %}
{%- if FOLDED in cell.metadata.get('tags', []) -%}
<details class="folded"><summary>Code of what follows</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{% endblock input_group %}
""".replace("FOLDED", repr(FOLDED))


class Body(HTMLExporter):
    """The cells of a notebook without a page around them."""

    template_name = "basic"
    embed_images = True
    raw_template = CELLS

    @pass_context
    def markdown2html(self, context, source):
        return prose(source)


@dataclass(frozen=True)
class Chapter:
    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem

    @cached_property
    def notebook(self):
        return nbformat.read(self.path, as_version=4)

    @property
    def opening(self) -> str:
        return self.notebook.cells[0].source

    @property
    def title(self) -> str:
        return self.opening.splitlines()[0].removeprefix("# ")

    @property
    def promise(self) -> str:
        """The paragraph that says what the reader does."""
        return re.search(r"\*\*What you will do\.?\*\*\s*(.+?)\n\n", self.opening, re.DOTALL)[1]

    @cached_property
    def body(self) -> str:
        return Body().from_notebook_node(self.notebook)[0]

    @property
    def headings(self) -> list[tuple[str, str]]:
        """Text and anchor of every section."""
        return [
            (re.sub(r"<[^>]+>", "", text), anchor)
            for anchor, text in re.findall(r'<h2 id="([^"]+)">(.+?)<a class="anchor', self.body)
        ]


def contents(chapters: list[Chapter]) -> str:
    """The body of the first page."""
    entries = (f"## [{c.title}]({c.stem}.ipynb)\n\n{c.promise}\n" for c in chapters)
    return prose("\n".join([f"# {BOOK}", ABOUT, *entries]))


def build(out: Path) -> list[Path]:
    """Write the pages into the folder `out` and return them, the contents first."""
    chapters = [Chapter(path) for path in sorted(HERE.glob("[0-9][0-9]_*.ipynb"))]
    page = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined).get_template(
        "page.html"
    )
    texts = [entry for c in chapters for entry in sections(c.title, f"{c.stem}.html", c.body)]
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for previous, here, following in zip(
        [None, None, *chapters], [None, *chapters], [*chapters, None], strict=False
    ):
        text = page.render(
            book=BOOK,
            chapters=chapters,
            highlighting=HtmlFormatter(style="default").get_style_defs(".highlight"),
            sections=index(texts),
            search=(HERE / "search.js").read_text(encoding="utf-8"),
            title=f"{here.title} · {BOOK}" if here else BOOK,
            here=here,
            body=here.body if here else contents(chapters),
            previous=previous,
            next=following,
        )
        written.append(out / f"{here.stem if here else 'index'}.html")
        written[-1].write_text(text, encoding="utf-8")
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "html")
    for path in build(parser.parse_args().out):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
