"""Lessons: their parts in order, figures with alt text, links that work, no copies of the library.

Tests that only read the notebooks run with all tests. `pytest -m lessons` executes the notebooks
(`pip install -e ".[lessons]"`).
"""

import ast
import base64
import functools
import importlib
import io
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]*_*.ipynb"))
DRAWING = [
    *sorted((ROOT / "lessons").glob("*.py")),
    *sorted((ROOT / "minires" / "lab").glob("*.py")),
]
PARTS = [
    "The surprise",
    "By hand",
    "The equation",
    "The code",
    "The experiment",
    "Claims put to the test",
    "What this does not show",
    "Exercises",
    "Where to read on",
]
each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [
        cell | {"source": "".join(cell["source"])}
        for cell in notebook["cells"]
        if cell["cell_type"] == kind
    ]


def prose(path):
    return "\n\n".join(cell["source"] for cell in cells(path, "markdown"))


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def drawn(picture):
    """The image of a picture in base64, or of its lines."""
    return Image.open(io.BytesIO(base64.b64decode("".join(picture))))


def functions(*texts):
    """Every function by name, as a tree without its docstring."""
    for node in itertools.chain.from_iterable(ast.walk(ast.parse(text)) for text in texts):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, "\n".join(map(ast.dump, body))


@functools.cache
def library_functions():
    files = sorted((ROOT / "minires").rglob("*.py"))
    return list(functions(*(file.read_text(encoding="utf-8") for file in files)))


def test_names_of_lessons_have_a_number_and_perhaps_a_letter():
    assert len(LESSONS) >= 11
    assert [p.stem for p in LESSONS if not re.fullmatch(r"\d\d[a-z]?_\w+", p.stem)] == []


def test_the_page_of_the_lessons_lists_all_in_order():
    text = (ROOT / "lessons" / "README.md").read_text(encoding="utf-8")
    listed = list(dict.fromkeys(re.findall(r"(\d\d[a-z]?_\w+\.ipynb)", text)))
    assert listed == [path.name for path in LESSONS]


@each_lesson
def test_a_lesson_has_all_its_parts_in_order(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.M)
    parts = list(dict.fromkeys(heading.split(":")[0] for heading in headings))
    assert parts == PARTS
    first = cells(path, "markdown")[0]["source"]
    number = path.stem.split("_")[0].lstrip("0")  # "04b" is lesson 4b
    assert re.match(rf"# {number}\. .+\?\n", first)
    assert [word in first for word in ("**Time:**", "**You need:**", "**Afterwards you can**")] == [
        True
    ] * 3
    exercises = prose(path).split("## Exercises")[1]
    assert re.findall(r"\*\*(.+?)\.\*\*", exercises)[:3] == [
        "Now",
        "To think about",
        "For the weekend",
    ]


@each_lesson
def test_a_lesson_was_executed_from_top_to_bottom(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))
    assert not [
        o for o in outputs(path) if o["output_type"] == "error" or o.get("name") == "stderr"
    ]


@each_lesson
def test_every_figure_has_a_text_for_those_who_cannot_see_it(path):
    figures = [o["data"] for o in outputs(path) if "image/png" in o.get("data", {})]
    assert figures
    for data in figures:
        shown = "".join(data["text/html"])
        assert len(re.search(r'<img alt="([^"]*)"', shown)[1]) > 60


@each_lesson
def test_every_figure_has_200_dots_per_inch(path):
    for data in [o["data"] for o in outputs(path) if "image/png" in o.get("data", {})]:
        shown = "".join(data["text/html"])
        shown_picture = re.search(r'src="data:image/png;base64,([^"]*)"', shown)[1]
        large, small = (drawn(p).size for p in (shown_picture, data["image/png"]))
        assert large[0] == 2 * int(re.search(r'width="(\d+)"', shown)[1])  # 100 pixels an inch
        assert tuple(side // 2 for side in large) == small


@pytest.mark.parametrize("path", DRAWING, ids=lambda p: p.name)
def test_no_text_of_a_figure_is_drawn_below_10_points(path):
    sizes = r"\b(?:font|label|title_font)_?size\"?\s*[=:]\s*([\d.]+|\"[\w-]*small\")"
    found = re.findall(sizes, path.read_text(encoding="utf-8"))
    assert [size for size in found if size.startswith('"') or float(size) < 10] == []


@pytest.mark.lessons
def test_a_figure_with_small_text_is_refused(capsys):
    from matplotlib.figure import Figure
    from style import show

    figure = Figure()
    axes = figure.subplots()
    axes.text(0.5, 0.5, "small", fontsize=9)
    axes.text(0.5, 0.5, "hidden", fontsize=9, visible=False)
    with pytest.raises(ValueError, match="at least 10 points, got 'small' \\(9\\)"):
        show(figure, "A figure.")
    axes.texts[0].set_fontsize(10)
    show(figure, "A figure.")
    axes.tick_params(labelsize=9)
    with pytest.raises(ValueError, match="at least 10 points"):
        show(figure, "A figure.")


@pytest.mark.lessons
def test_a_picture_keeps_its_colours_in_a_lesson_and_a_line_plot_is_stored_with_few(monkeypatch):
    import style
    from matplotlib.figure import Figure

    stored = []
    monkeypatch.setattr(style, "display", lambda data, **_: stored.append(data["image/png"]))
    pictures, lines = Figure(figsize=(4, 2)), Figure(figsize=(4, 2))
    grey, colour = pictures.subplots(1, 2)
    grey.imshow(np.linspace(0, 1, 256).reshape(16, 16), cmap="gray")
    colour.imshow(np.random.default_rng(0).random((16, 16, 3)))
    lines.subplots().plot([0, 1])
    for figure in (pictures, lines):
        style.show(figure, "A figure.")
    pixels = np.asarray(drawn(stored[0]).convert("RGB")).astype(int)
    left = pixels[:, : pixels.shape[1] // 3]
    assert np.ptp(left, axis=2).max() == 0  # grey stays grey
    assert len(np.unique(left)) > 200  # of 256 levels
    assert len(drawn(stored[1]).getcolors()) <= 64


@each_lesson
def test_a_figure_is_one_call(path):
    code = "\n".join(cell["source"] for cell in cells(path, "code"))
    assert not re.findall(r"matplotlib|figsize|subplots|add_patch", code)


@each_lesson
def test_no_visible_cell_is_longer_than_a_screen(path):
    for cell in cells(path, "code"):
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        assert hidden or cell["source"].count("\n") < 30, cell["source"][:80]


@each_lesson
def test_text_computed_by_code_is_folded(path):
    for cell in cells(path, "code"):
        calls = [n for n in ast.walk(ast.parse(cell["source"])) if isinstance(n, ast.Call)]
        lines = {"say": 0, "claims": 0}
        for call in calls:
            name = getattr(call.func, "id", "")
            lines[name] = call.end_lineno - call.lineno + 1
        hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        assert hidden or (lines["say"] < 3 and not lines["claims"]), cell["source"][:80]


@each_lesson
def test_no_figure_is_cut_off_at_its_edge(path):
    for data in [o["data"]["image/png"] for o in outputs(path) if "image/png" in o.get("data", {})]:
        pixels = np.asarray(drawn(data).convert("L"))
        assert all(
            (edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        )


@each_lesson
def test_no_lesson_holds_a_path_or_a_secret_of_a_machine(path):
    pictures = re.compile(r'"image/png": "[^"]*"')
    text = pictures.sub("", path.read_text(encoding="utf-8"))
    assert not re.findall(r"/(?:home|root|work|tmp|Users)/\S*|[A-Z]:\\\\\S*|0x[0-9a-f]{8,}", text)
    assert path.stat().st_size < 600_000


@each_lesson
def test_a_lesson_speaks_plainly(path):
    words = ("simply", "just", "obviously", "trivial", "of course")
    assert not re.findall(rf"\b(?:{'|'.join(words)})\b", prose(path), re.I)


@each_lesson
def test_a_lesson_holds_no_copy_of_the_library(path):
    library = library_functions()
    own = list(functions(*(cell["source"] for cell in cells(path, "code"))))
    ops = {name for name, _ in library if name.endswith(("_forward", "_backward"))} | {
        "im2col",
        "col2im",
    }
    assert not {name for name, _ in own} & ops
    assert not {body for _, body in own} & {body for _, body in library}


@each_lesson
def test_a_lesson_shows_the_library_and_asserts_that_it_agrees(path):
    code = "\n".join(cell["source"] for cell in cells(path, "code"))
    assert "source(" in code
    assert code.count("assert ") >= 5


@pytest.mark.parametrize("path", sorted((ROOT / "lessons").glob("*.py")), ids=lambda p: p.stem)
def test_names_that_a_lesson_imports_from_the_library_exist(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in (
            "minires",
            "weak",
        ):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_files_of_the_library_that_the_lessons_name_exist():
    pages = [*(ROOT / "lessons").glob("*.py"), *(ROOT / "lessons").rglob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(r"\bminires/[\w/]+\.py\b", page.read_text(encoding="utf-8"))
    }
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_links_of_the_lessons_lead_somewhere():
    pages = {path: prose(path) for path in LESSONS}
    pages |= {path: path.read_text(encoding="utf-8") for path in (ROOT / "lessons").glob("*.md")}
    for page, text in pages.items():
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(#[^)\s]+)?\)", text):
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name}: {target}"
            if not anchor:
                continue
            headings = re.findall(
                r"^#+ (.+)$", prose(file) if file in LESSONS else file.read_text("utf-8"), re.M
            )
            slugs = {"#" + re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page.name}: {target}{anchor}"


@pytest.mark.lessons
@each_lesson
def test_notebook_and_paired_text_agree(path):
    import badges
    import jupytext

    text = jupytext.read(path.with_suffix(".py"))
    notebook = badges.add(jupytext.read(path), path.name, None)
    assert [(c.cell_type, c.source) for c in text.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ]


@pytest.mark.lessons
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of the notebook machinery; the cells run elsewhere
@pytest.mark.filterwarnings(
    "ignore:Proactor event loop:RuntimeWarning"
)  # and of its sockets on Windows
@each_lesson
def test_a_lesson_runs_without_error_or_warning(path):
    import build

    build.execute(path.with_suffix(".py"))
