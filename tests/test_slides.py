"""Slides of a lesson: headings, equations and figures are shown, prose is in the notes."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.lessons
HOME = Path(__file__).parents[1] / "lessons"


def kinds(cells):
    return [(cell.metadata.slideshow.slide_type, cell.get("source", "")) for cell in cells]


def test_prose_becomes_notes_and_lists_and_equations_are_shown():
    import slides

    text = "## Title\n\nProse.\n\n$$a\n= b$$\n\n- one\n- two\n  more\n\nEnd.\n\n**Now.** Do it."
    shown, notes = slides.from_prose(text)
    assert kinds([shown]) == [
        ("slide", "## Title\n\n$$a\n= b$$\n\n- one\n- two\n  more\n\n**Now.** Do it.")
    ]
    assert kinds([notes]) == [("notes", text)]


def test_a_figure_joins_the_heading_above_it_and_a_tag_decides():
    import nbformat
    import slides

    picture = nbformat.v4.new_output("display_data", {"image/png": ""})
    figures = [nbformat.v4.new_code_cell("draw()", outputs=[picture] * n) for n in (2, 1)]
    hidden = nbformat.v4.new_markdown_cell("Not now.", metadata={"tags": ["skip"]})
    heading = nbformat.v4.new_markdown_cell("## Title")
    made = slides.as_slides(nbformat.v4.new_notebook(cells=[heading, hidden, *figures]))
    assert [kind for kind, _ in kinds(made.cells)] == [
        "slide", "notes", "skip", "-", "subslide", "subslide"
    ]  # fmt: skip


@pytest.mark.parametrize("path", sorted(HOME.glob("[0-9][0-9]*_*.ipynb")), ids=lambda p: p.stem)
def test_a_lesson_makes_slides_that_need_no_network(path, tmp_path):
    import re

    import slides

    for name in slides.LIBRARIES:
        (tmp_path / "npm" / name).mkdir(parents=True)
    page = slides.make(path, tmp_path / "npm", tmp_path / "slides").read_text(encoding="utf-8")
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="(https?://[^"]*)', page)
    assert loaded == []
    assert page.count("<section") > 10
    with pytest.raises(FileNotFoundError, match="npm install"):
        slides.make(path, tmp_path, tmp_path / "slides")
