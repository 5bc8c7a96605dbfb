"""The site: links that leave it become words and a path, no picture and no link is lost."""

import re
import urllib.parse

import pytest

pytestmark = pytest.mark.lessons
NAMES = {"README.md", "lessons/README.md", "lessons/01_convolution.ipynb"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("See [one](01_convolution.ipynb).", "See [one](01_convolution.ipynb)."),
        ("See [it](../README.md#lessons).", "See [it](../README.md#lessons)."),
        ("See [`conv`](../minires/ops/numpy_ops.py).", "See `conv` (`minires/ops/numpy_ops.py`)."),
        ("See [answers](answers/README.md).", "See answers (`lessons/answers/README.md`)."),
        ("See [a page](https://example.org/a.md).", "See [a page](https://example.org/a.md)."),
        ("![A sheet](figures/shapes10.png)", "![A sheet](figures/shapes10.png)"),
        ("[`style.py`](style.py#L3) has it.", "`lessons/style.py` has it."),
        ('<p><img src="figures/a.png" width="9" alt="A"></p>', "![A](figures/a.png)"),
        ("See [below](#data).", "See [below](#data)."),
    ],
)
def test_a_link_that_leaves_the_site_becomes_words_and_a_path(text, shown):
    import pages

    assert pages.standing(text, "lessons/README.md", NAMES) == shown


def test_a_picture_that_is_not_part_of_the_site_is_an_error():
    import pages

    with pytest.raises(ValueError, match=r"README.md: expected a picture .* got elsewhere.png"):
        pages.standing("![Lost](elsewhere.png)", "README.md", NAMES)


def texts():
    """Everything that the site shows as Markdown: file name and text."""
    import nbformat
    import pages

    for name in pages.WORDS:
        yield name, (pages.ROOT / name).read_text(encoding="utf-8")
    for path in pages.lessons():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                yield f"lessons/{path.name}", cell.source
            for output in cell.get("outputs", []):
                yield f"lessons/{path.name}", output.get("data", {}).get("text/markdown", "")


def test_no_page_loses_a_picture_or_a_link_without_a_path():
    import pages

    for name, text in texts():
        shown = pages.standing(text, name, pages.pages())
        assert shown.count("![") == text.count("![") + text.count("<img src=")
        for _, words, target in pages.LINK.findall(text):
            path = urllib.parse.urljoin(name, target.partition("#")[0])
            assert f"]({target})" in shown or f"`{path}`" in shown, f"{name}: {words}"


def test_hidden_cells_are_folded_and_links_in_outputs_are_those_of_the_site():
    import nbformat
    import pages

    output = nbformat.v4.new_output("display_data", {"text/markdown": "[x](../LICENSE)"})
    cells = [
        nbformat.v4.new_code_cell("draw()", metadata={"jupyter": {"source_hidden": True}}),
        nbformat.v4.new_code_cell("say()", outputs=[output]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    hidden, open_ = pages.folded(notebook, "lessons/01_convolution.ipynb", NAMES).cells
    assert hidden.metadata["tags"] == ["hide-input"]
    assert "tags" not in open_.metadata
    assert open_.outputs[0].data["text/markdown"] == "x (`LICENSE`)"


def test_the_quizzes_of_all_lessons_are_shown_with_folded_answers():
    import pages

    from minires.school import quiz

    text = pages.quizzes()
    for lesson in quiz.lessons(pages.HERE):
        assert f"## Lesson {lesson.lstrip('0')}\n" in text
    assert text.count("<details") == 5 * len(quiz.lessons(pages.HERE))


def test_broken_links_are_named(tmp_path):
    import pages

    (tmp_path / "a.html").write_text('<a href="b.html#there">b</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text('<h1 id="there">B</h1><img src="data:image/png;base64,">')
    assert pages.broken_links(tmp_path) == []
    (tmp_path / "c.html").write_text('<a href="b.html#gone">b</a><img src="d.png">')
    assert pages.broken_links(tmp_path) == ["c.html: b.html#gone", "c.html: d.png"]


def test_modules_of_the_reference_exist():
    import importlib

    import pages

    for name in pages.MODULES:
        assert importlib.import_module(f"minires.{name}").__doc__


def test_lines_of_the_terminals_picture_are_wrapped_below_their_own_text():
    import terminal

    claim = "  (i)   held          " + "deeper is worse " * 8
    first, *others = terminal.wrapped(["", claim.rstrip()])[1:]
    assert first.startswith("  (i)   held          deeper")
    assert others
    assert all(line[:22].isspace() and len(line) <= terminal.COLUMNS for line in others)


def test_the_terminals_picture_names_files_that_exist():
    import pages
    import terminal

    text = "\n".join(terminal.printed())
    named = re.findall(r"lessons/\w+\.ipynb", text)
    assert named
    assert all((pages.ROOT / name).is_file() for name in named)
    assert "held" in text
