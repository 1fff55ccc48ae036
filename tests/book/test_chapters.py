"""Every chapter is finished: executed, in the book's form, and at home on any machine."""

import ast
import re
from urllib.parse import unquote

import jupytext
import pytest

from chapters.make import FOLDED, cells
from tests.book.book import (
    CHAPTERS,
    ROOT,
    code_cells,
    markdown,
    read,
    section,
    tags,
    uncompared_cells,
    words,
)

# The form of a chapter. Its first cell holds the title (H1) and these paragraphs, in this order:
OPENING = ["What you will do", "What you will learn", "What you need", "Time and hardware"]
# and its sections (H2) are exactly these, in this order:
HEADINGS = [
    "The idea in one picture",
    "Derivation",
    "Code",
    "Checks",
    "Explorer",
    "What can go wrong",
    "Exercises",
    "Summary",
    "References",
]
# The first and the last chapter frame the book: they have these, and sections of their own between.
FRAME = ("00", "12")
FRAME_HEADINGS = ["The idea in one picture", "Summary", "References"]

# What breaks a stored output or a reader's machine, and what to write instead.
FORBIDDEN = {
    "interact": "slider.observe and an Image",
    "interactive": "slider.observe and an Image",
    "interactive_output": "slider.observe and an Image",
    "Output": "slider.observe and an Image",
    "clear_output": "one print at the end",
    "update_display": "one print at the end",
    "tqdm": "no progress bar in a chapter",
    "trange": "no progress bar in a chapter",
    "pyplot": "som_lite.view.style.figure and show(fig, description)",
    "get_ipython": "plain Python",
    "Out": "a named value",
    "In": "a named value",
}
MACHINE = re.compile(r"0x[0-9a-f]{4,}|/home/|/Users/|/root/|/tmp/|site-packages|[A-Z]:\\\\", re.I)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)")
IMG = re.compile(r"<img\b[^>]*>")
MB = 2**20

QUESTION = "**Stop and think.**"
ANSWERED = re.compile(
    rf"{re.escape(QUESTION)}.+?<details>\s*<summary>Answer</summary>.+?</details>", re.DOTALL
)

pytestmark = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def printed(output):
    return "".join([output.get("text", ""), output.get("data", {}).get("text/plain", "")])


def test_every_code_cell_ran_once_in_order(path):
    counts = [cell.execution_count for cell in code_cells(read(path))]
    assert counts == list(range(1, len(counts) + 1)), (
        f"{path.name} is not as `make book` leaves it (saved while reading? "
        f"`git restore {path.relative_to(ROOT).as_posix()}` brings the book's back)"
    )


def test_cells_are_those_of_the_text(path):
    text = jupytext.read(path.parent / "text" / f"{path.stem}.py")
    assert cells(read(path)) == cells(text), "text and notebook differ: run `make book`"
    assert text.metadata.get("kernelspec", {}).get("name") == "python3", "kernelspec of the text"


def test_any_machine_finds_the_kernel(path):
    assert read(path).metadata.kernelspec.name == "python3"


def test_no_error_and_no_warning_is_stored(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            assert output.get("name") != "stderr", f"stderr of\n{cell.source}\n{output.get('text')}"
            if output.output_type == "error":
                assert "raises-exception" in tags(cell), f"{output.evalue} in\n{cell.source}"


def test_outputs_name_nothing_of_one_machine(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            shown = printed(output) + "".join(output.get("traceback", []))
            assert not MACHINE.search(shown), f"{MACHINE.search(shown)[0]!r} from\n{cell.source}"


def test_code_is_plain_python_that_stores_stable_outputs(path):
    for cell in code_cells(read(path)):
        names = set()
        for node in ast.walk(ast.parse(cell.source)):  # a magic or a shell line is a SyntaxError
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= {part for alias in node.names for part in alias.name.split(".")}
                names |= set((getattr(node, "module", None) or "").split("."))
        for name in names & FORBIDDEN.keys():
            pytest.fail(f"{name} (instead: {FORBIDDEN[name]}) in\n{cell.source}")
        assert not cell.source.rstrip().endswith(";"), f"';' silences nothing here:\n{cell.source}"


def test_nine_of_ten_cells_have_their_output_compared(path):
    notebook = read(path)
    uncompared = uncompared_cells(notebook)
    assert len(uncompared) <= 0.1 * len(code_cells(notebook)), [c.source for c in uncompared]


def test_opening(path):
    first = read(path).cells[0].source
    assert first.startswith("# "), "the first cell starts with the title"
    assert len(re.findall(r"^# ", markdown(read(path)), re.MULTILINE)) == 1, "one H1"
    found = re.findall(r"^\*\*([^*]+?)\.?\*\*", first, re.MULTILINE)
    assert found == OPENING
    hardware = first.split("**Time and hardware")[1]
    assert re.search(r"\d+ (s|min)\b", hardware), "say how long it takes: ≈ 40 s on 2 CPU cores"


def test_questions_have_a_folded_answer(path):
    cells = [c.source for c in read(path).cells if c.cell_type == "markdown"]
    for cell in cells:
        found = len(ANSWERED.findall(cell))
        asked, told = cell.count(QUESTION), cell.count("<summary>Answer</summary>")
        assert found == asked == told, f"each question with its answer, in one cell:\n{cell}"
    assert 2 <= sum(cell.count(QUESTION) for cell in cells) <= 4


def test_a_chapter_is_short(path):
    notebook = read(path)
    assert words(notebook) <= 4000, f"{words(notebook)} words of prose"
    found = sum("exercise" in tags(cell) for cell in notebook.cells)
    assert 4 <= found <= 6, f"{found} exercises"


def test_folded_cells_only_draw(path):
    for cell in read(path).cells:
        folded = FOLDED in tags(cell)
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == folded
        if folded:
            assert cell.cell_type == "code" and "exercise" not in tags(cell)
            called = {
                ast.unparse(n.func)
                for n in ast.walk(ast.parse(cell.source))
                if isinstance(n, ast.Call)
            }
            assert "check" not in called, f"a check is no drawing:\n{cell.source}"


def test_headings(path):
    found = re.findall(r"^## (.+)$", markdown(read(path)), re.MULTILINE)
    if path.stem.startswith(FRAME):
        assert [heading for heading in found if heading in FRAME_HEADINGS] == FRAME_HEADINGS
    else:
        assert found == HEADINGS


def test_explorer_says_what_to_see(path):
    explorer = section(read(path), "Explorer")
    assert any("**What you should see" in c.source for c in explorer) or not explorer


def test_every_picture_is_described(path):
    notebook = read(path)
    for picture, description, target in LINK.findall(markdown(notebook)):
        assert description.strip() or not picture, f"no alt text: {target}"
    stored = [o.data for c in code_cells(notebook) for o in c.outputs if "data" in o]
    for data in stored:
        if "image/png" in data or "image/svg+xml" in data:
            assert "<img" in data.get("text/html", ""), f"end in show(…): {data.get('text/plain')}"
    for html in [markdown(notebook), *(data.get("text/html", "") for data in stored)]:
        for image in IMG.findall(html):
            assert re.search(r'\balt="[^"]*\w[^"]*"', image), f"no alt text: {image[:80]}"


def test_links_lead_somewhere(path):
    prose = markdown(read(path))
    targets = [target for _, _, target in LINK.findall(prose)]
    for target in targets + re.findall(r'\b(?:src|href)="([^"]+)"', prose):
        if not re.match(r"[a-z]+:|#", target):
            place = (path.parent / unquote(target.split("#")[0])).resolve()
            assert place.is_relative_to(ROOT) and place.exists(), f"no such file: {target}"


def test_last_cell_leads_to_the_neighbours(path):
    targets = [target for _, _, target in LINK.findall(read(path).cells[-1].source)]
    here = CHAPTERS.index(path)
    for neighbour in CHAPTERS[max(here - 1, 0) : here] + CHAPTERS[here + 1 : here + 2]:
        assert neighbour.name in targets, f"no link to {neighbour.name} in the last cell"


def test_size(path):
    size = path.stat().st_size
    assert size <= 2 * MB, f"{size / MB:.1f} MB: fewer frames in the flip-books?"
