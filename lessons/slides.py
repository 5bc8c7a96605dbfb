"""
Make slides of a lesson, for reveal.js without network.

`python lessons/build.py --slides FOLDER 04_batch_norm.py` writes slides/04_batch_norm.html below
the current folder. FOLDER is the node_modules that `npm install reveal.js@4 requirejs mathjax@2`
makes. A slide shows a heading with the equations, lists and figures below it; the prose becomes the
speaker's notes (press S). A cell tag changes that: slide, subslide, fragment, notes, skip.
"""

import re
import shutil
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter

TYPES = ("slide", "subslide", "fragment", "notes", "skip")
LIBRARIES = ("reveal.js", "requirejs", "mathjax")  # packages of npm
# displayed equations; lists, tables and paragraphs that begin in bold, as exercises do
SHOWN = re.compile(r"\$\$(?s:.*?)\$\$|(?:^(?:[-|]|\d+\.|\*\*).*\n?(?:^  .*\n?)*\n?)+", re.M)


def main(arguments):
    """Write the slides of the lessons that are named, or of all."""
    libraries, *names = arguments or [""]
    here = Path(__file__).parent
    notebooks = [here / Path(name).with_suffix(".ipynb").name for name in names]
    for notebook in notebooks or sorted(here.glob("[0-9][0-9]*_*.ipynb")):
        print(make(notebook, Path(libraries), Path("slides")))


def make(notebook, libraries, to):
    """Write the slides of a notebook into a folder, with the libraries that they need."""
    missing = [name for name in LIBRARIES if not (Path(libraries) / name).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"expected {', '.join(missing)} in {libraries}; get them with: npm install reveal.js@4 "
            "requirejs mathjax@2"
        )
    to.mkdir(exist_ok=True)
    for name in LIBRARIES:
        shutil.copytree(Path(libraries) / name, to / name, dirs_exist_ok=True)
    exporter = SlidesExporter(
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        reveal_url_prefix="reveal.js",
        reveal_scroll=True,
        reveal_number="c/t",
        require_js_url="requirejs/require.js",
        mathjax_url="mathjax/MathJax.js?config=TeX-AMS_CHTML-full,Safe",
        jquery_url="",
        mermaid_js_url="",
        font_awesome_url="",
    )
    page, _ = exporter.from_notebook_node(as_slides(nbformat.read(notebook, as_version=4)))
    file = to / f"{Path(notebook).stem}.html"
    file.write_text(page, encoding="utf-8")
    return file


def as_slides(notebook):
    """The notebook with a slide type for each cell."""
    slides = nbformat.v4.new_notebook(metadata=notebook.metadata)
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag in TYPES]
        if tags:
            slides.cells.append(typed(cell, tags[0]))
        elif cell.cell_type == "markdown":
            slides.cells += from_prose(cell.source)
        else:
            slides.cells += from_outputs(cell)
    join_headings(slides.cells)
    return slides


def join_headings(cells):
    """Put the first figure or table below a heading that has nothing else on its slide."""
    bare = False
    for cell in cells:
        kind = cell.metadata.slideshow.slide_type
        if kind == "slide":
            bare = "\n" not in cell.source
        elif kind not in ("notes", "skip"):
            if bare and kind == "subslide":
                cell.metadata.slideshow.slide_type = "-"
            bare = False


def from_prose(text):
    """A slide with the heading, equations and lists of a text; all of it as notes."""
    heading = re.match(r"#+ .*", text)
    shown = [match.strip() for match in SHOWN.findall(text)]
    parts = ([heading[0]] if heading else []) + shown
    cells = [markdown("\n\n".join(parts), "slide" if heading else "fragment")] if parts else []
    return [*cells, markdown(text, "notes")]


def from_outputs(cell):
    """A slide for each figure and table that a cell made; sentences as notes."""
    cells = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = data.get("text/markdown", "")
        if "image/png" in data or "```" in text or re.search(r"^\|", text, re.M):
            shown = nbformat.v4.new_code_cell(outputs=[output])
            cells.append(typed(shown, "subslide"))
        elif text:
            cells.append(markdown(text, "notes"))
    return cells


def markdown(text, kind):
    return typed(nbformat.v4.new_markdown_cell(text), kind)


def typed(cell, kind):
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell
