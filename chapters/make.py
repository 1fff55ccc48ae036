"""Build the book: chapters/text/NN_name.py -> executed, normalised chapters/NN_name.ipynb.

    python chapters/make.py                  all chapters
    python chapters/make.py 02_meanflow      one
    python chapters/make.py --prose          run nothing; bring changed prose into the notebooks
    python chapters/make.py --check          run nothing; are the notebooks' cells the text's?

A chapter whose text and outputs did not change is written to the same bytes. Cells with the
tag `timing` show milliseconds, which always change: they keep their outputs while the words agree.
Cells with the tag `hide-input` only draw: their code is folded until a reader opens it.
"""

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
FOLDED = "hide-input"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class ThisPython(AsyncKernelManager):
    """The kernel is the interpreter that builds, whatever kernels the machine has registered."""

    kernel_spec = KernelSpec(resource_dir="", **get_kernel_dict())


def execute(notebook):
    """Run all cells in place, in chapters/; an unexpected error raises CellExecutionError."""
    # Times and the last digits of small nets depend on the number of threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    NotebookClient(
        notebook,
        kernel_manager_class=ThisPython,
        extra_arguments=["--log-level=ERROR"],
        timeout=300,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(HERE)}},
    ).execute()
    return notebook


def cell_ids(cells):
    """Ids made from the source, so that inserting a cell renumbers no other."""
    ids = []
    for cell in cells:
        copies = 0
        while (new := hashlib.sha256(f"{cell.source}{copies}".encode()).hexdigest()[:12]) in ids:
            copies += 1
        ids.append(new)
    return ids


def metadata(tags):
    """The tags of a cell, and what JupyterLab reads to open a folded one collapsed."""
    kept = {"tags": tags} if tags else {}
    return kept | ({"jupyter": {"source_hidden": True}} if FOLDED in tags else {})


def normalise(notebook):
    """What a reader sees and nothing else, as text that depends on nothing else."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell, new in zip(notebook.cells, cell_ids(notebook.cells), strict=True):
        cell.id = new
        cell.metadata = metadata(cell.metadata.get("tags", []))
        for output in cell.get("outputs", []):
            # A saved widget would be a slider that moves nothing; its other layers remain.
            output.get("data", {}).pop(WIDGET_VIEW, None)
            if output.output_type == "error":
                # The last line says it all; the others name paths of this machine.
                output.traceback = [f"{output.ename}: {output.evalue}"]
        if cell.cell_type == "code":  # a widget that had no other layer leaves nothing
            cell.outputs = [output for output in cell.outputs if output.get("data") != {}]
    return nbformat.writes(nbformat.from_dict(notebook), sort_keys=True, ensure_ascii=False) + "\n"


def keep_timings(notebook, stored):
    """Give timing cells the outputs they had, where only the times (shown in HTML alone) differ."""

    def words(cell):
        return [o.get("data", {}).get("text/plain", o.get("text")) for o in cell.outputs]

    before = {c.source: c for c in stored.cells if "timing" in c.metadata.get("tags", [])}
    for cell in notebook.cells:
        old = before.get(cell.source)
        if "timing" in cell.metadata.get("tags", []) and old and words(old) == words(cell):
            cell.outputs = old.outputs


def cells(notebook):
    """What the notebook and its text must share."""
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


def build(text):
    """Execute one chapter and write it if its bytes differ."""
    start = time.perf_counter()
    path = HERE / f"{text.stem}.ipynb"
    notebook = execute(jupytext.read(text))
    if path.exists():
        keep_timings(notebook, nbformat.read(path, 4))
    new = normalise(notebook).encode()
    changed = not path.exists() or path.read_bytes() != new
    if changed:
        path.write_bytes(new)
    seconds = time.perf_counter() - start
    print(f"{text.stem}: {'written' if changed else 'unchanged'} ({seconds:.0f} s)", flush=True)


def renew_prose(text):
    """Write the text's markdown beside the stored outputs. SystemExit when code has changed."""
    path = HERE / f"{text.stem}.ipynb"
    notebook, stored = jupytext.read(text), nbformat.read(path, 4)
    code, before = ([c for c in n.cells if c.cell_type == "code"] for n in (notebook, stored))
    if [c.source for c in code] != [c.source for c in before]:
        sys.exit(f"{text.stem}: its code has changed; run `make book CHAPTERS={text.stem}`")
    for cell, old in zip(code, before, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    path.write_bytes(normalise(notebook).encode())


def is_current(text):
    """Are the cells of the notebook those of its text?"""
    path = HERE / f"{text.stem}.ipynb"
    same = path.exists() and cells(nbformat.read(path, 4)) == cells(jupytext.read(text))
    print(f"{text.stem}: {'current' if same else 'differs from its text: run `make book`'}")
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters, such as 02_meanflow (default: all)")
    parser.add_argument("--check", action="store_true", help="compare cells, run nothing")
    parser.add_argument("--prose", action="store_true", help="write changed prose, run nothing")
    options = parser.parse_args()
    texts = {text.stem: text for text in sorted((HERE / "text").glob("[0-9][0-9]_*.py"))}
    names = [Path(name).stem for name in options.names] or list(texts)
    if unknown := [name for name in names if name not in texts]:
        parser.error(f"no chapter {', '.join(unknown)}; there are: {', '.join(texts) or 'none'}")
    if options.prose:
        for name in names:
            renew_prose(texts[name])
        return
    if options.check:
        sys.exit(any([not is_current(texts[name]) for name in names]))  # noqa: C419  (all print)
    for name in names:
        build(texts[name])


if __name__ == "__main__":
    main()
