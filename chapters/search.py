"""What the search field of the pages looks through: the text of every section, in plain words."""

import html
import json
import re
from collections.abc import Iterator

# Formulas read badly without their layout; code and numbers would double the size.
SILENT = re.compile(r"<(math|pre|script|style|svg)\b.*?</\1>", re.DOTALL)
SECTION = re.compile(r'(?=<h2 id=")')


def plain(body: str) -> str:
    """HTML without its tags, formulas, code, pictures and scripts."""
    text = html.unescape(re.sub(r"<[^>]*>", " ", SILENT.sub(" ", body)))
    return " ".join(re.sub(r"¶|(In|Out)\s*\[\d*\]:", " ", text).split())


def sections(title: str, page: str, body: str) -> Iterator[list[str]]:
    """[address, title of the chapter, heading, text] of every section of a page."""
    opening, *rest = SECTION.split(body)
    yield [page, title, "", plain(opening)]
    for part in rest:
        anchor, heading, text = re.match(
            r'<h2 id="([^"]+)">(.*?)</h2>(.*)', part, re.DOTALL
        ).groups()
        yield [f"{page}#{anchor}", title, plain(heading), plain(text)]


def index(found: list[list[str]]) -> str:
    """The sections as JSON that may stand in a script element."""
    return json.dumps(found, ensure_ascii=False).replace("<", "\\u003c")
