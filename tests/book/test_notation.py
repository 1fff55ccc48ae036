"""Every chapter names the symbols of the notation table where it first uses them.

Chapters re-introduce what they need, so the rule is the same in all of them: the first time that a
symbol stands in a formula, its name stands within 160 characters, about two lines. The opening cell
does not count: it announces what is to come.

    python -m tests.book.test_notation      where each chapter introduces each symbol
"""

import re

import pytest

from tests.book.book import CHAPTERS, markdown, read

NEAR = 160
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$]+?\$")
NO_WORDS = re.compile(r"`[^`]*`|(?<=\])\([^)]*\)")  # code, addresses
WORDS_IN_TEX = re.compile(r"\\(?:text|mathrm|mathcal|operatorname)\s*(?:\{[^}]*\}|\w)")


def letter(x):
    """The letter alone: no part of a name, no index."""
    return rf"(?<![\\A-Za-z_{{]){x}(?![A-Za-z])"


# symbol -> (how it looks in TeX, what it is called). The rows of the table in chapter 00, and p_t.
SYMBOLS = {
    "t": (letter("t"), "time"),
    "r": (letter("r"), "time|interval"),
    "a_0": (r"\ba_0", "data|action|sample"),
    r"\varepsilon": (r"\\varepsilon", "noise"),
    "a_t": (r"\ba_t", "path|line|noise"),
    r"\mu_t": (r"\\mu(?![A-Za-z])", "path|coefficient"),
    r"\sigma_t": (r"\\sigma(?![A-Za-z])", "path|coefficient"),
    "p_t": (r"p_[t0]", "density|distribution"),
    "v": (letter("v"), "velocity"),
    "u": (letter("u"), "average velocity"),
    "s(a,t)": (r"\bs\(a", "score"),
    "m": (letter("m") + "(?!_)", "posterior mean"),
    "Q": ("Q", "critic"),
    "s": (r"\(s,|\\mid s", "state"),
    r"\alpha": (r"\\alpha", "temperature"),
    "K": (letter("K"), "proposals"),
    "N": (letter("N"), "candidate"),
    "B": (letter("B"), "batch|states"),
}

# Where a chapter lends a letter to something else, that is what it must name.
ELSEWHERE = {("04", "u"): "uniform", ("04", "B"): "box"}


def prose_of(path):
    notebook = read(path)
    notebook.cells = notebook.cells[1:]
    return " ".join(NO_WORDS.sub("", markdown(notebook)).split())


def first_use(looks, prose):
    """Where the symbol first stands in a formula: its place in the prose, or None."""
    for formula in FORMULA.finditer(prose):
        tex = WORDS_IN_TEX.sub(lambda words: " " * len(words[0]), formula[0])
        if found := re.search(looks, tex):
            return formula.start() + found.start()


def unnamed(prose, chapter=""):
    """[(symbol, name that is missing, the prose around its first use)]"""
    missing = []
    for symbol, (looks, name) in SYMBOLS.items():
        name = ELSEWHERE.get((chapter, symbol), name)
        at = first_use(looks, prose)
        if at is not None:
            around = prose[max(at - NEAR, 0) : at + NEAR]
            if not re.search(name, around, re.IGNORECASE):
                missing.append((symbol, name, around))
    return missing


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_first_use_comes_with_the_name(path):
    for symbol, name, around in unnamed(prose_of(path), path.stem[:2]):
        pytest.fail(f"${symbol}$ is first used without the word {name!r}:\n…{around}…")


def test_a_name_that_comes_too_late_is_noticed():
    late = "The mean is $u$. " + "And so on. " * 20 + "It is called the average velocity $u$."
    assert [symbol for symbol, *_ in unnamed(late)] == ["u"]
    assert not unnamed("The average velocity is $u$.")
    assert not unnamed("The cosine of $\\mathrm{u}$ and $x_u$ and `u` need no name.")


def test_table_of_chapter_00_has_these_symbols():
    rows = re.findall(r"^\| \$.+", markdown(read(CHAPTERS[0])), re.MULTILINE)
    for symbol, (looks, _) in SYMBOLS.items():
        assert any(re.search(looks, row) for row in rows), f"${symbol}$ is not in the table"
    for row in rows:
        assert any(re.search(looks, row) for looks, _ in SYMBOLS.values()), f"new here: {row}"


if __name__ == "__main__":
    for path in CHAPTERS:
        prose = prose_of(path)
        print(f"\n{path.stem}")
        for symbol, (looks, _) in SYMBOLS.items():
            at = first_use(looks, prose)
            if at is not None:
                print(f"  {symbol:<12} … {prose[max(at - 70, 0) : at + 40]} …")
