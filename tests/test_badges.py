"""Badges of the lessons: none without a public address, and right links with one."""

import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lessons
LESSON = "04_batch_norm.ipynb"
HOME = Path(__file__).parents[1] / "lessons"


def project(folder, urls):
    file = folder / "pyproject.toml"
    file.write_text(f'[project]\nname = "minires"\n{urls}\n', encoding="utf-8")
    return file


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_the_address_is_that_of_the_repository(tmp_path, end):
    import badges

    urls = f'[project.urls]\nRepository = "https://github.com/someone/a.name{end}"'
    assert badges.address(project(tmp_path, urls)) == "https://github.com/someone/a.name"


@pytest.mark.parametrize(
    "urls",
    ["", '[project.urls]\nHomepage = "https://github.com/a/b"',
     '[project.urls]\nRepository = "https://example.org/a/b"'],
)  # fmt: skip
def test_without_a_repository_on_github_there_are_no_badges(tmp_path, urls):
    import badges
    import nbformat

    assert badges.address(project(tmp_path, urls)) is None
    assert badges.address(tmp_path / "missing.toml") is None
    notebook = nbformat.read(HOME / LESSON, as_version=4)
    before = [cell.source for cell in notebook.cells]
    assert [cell.source for cell in badges.add(notebook, LESSON, None).cells] == before


def test_badges_stand_below_the_title_once_and_installing_does_nothing_here(monkeypatch):
    import badges
    import nbformat
    from IPython.core.interactiveshell import InteractiveShell

    notebook = nbformat.read(HOME / LESSON, as_version=4)
    cells = len(notebook.cells)
    for _ in range(2):  # the second time replaces the first
        badges.add(notebook, LESSON, "https://github.com/someone/minires")
    assert len(notebook.cells) == cells + 2
    title, shields, install = notebook.cells[:3]
    assert title.source.startswith("# 4.")
    assert re.findall(r"\]\((https://[^)]*)\)\]\((https://[^)]*)\)", shields.source) == [
        ("https://colab.research.google.com/assets/colab-badge.svg",
         f"https://colab.research.google.com/github/someone/minires/blob/main/lessons/{LESSON}"),
        ("https://mybinder.org/badge_logo.svg",
         f"https://mybinder.org/v2/gh/someone/minires/main?labpath=lessons%2F{LESSON}"),
    ]  # fmt: skip
    assert "git clone --depth 1 https://github.com/someone/minires\n" in install.source
    shell = InteractiveShell()
    asked = []
    monkeypatch.setattr(shell, "system", asked.append)
    result = shell.run_cell(install.source)
    assert result.success
    assert asked == []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(
        shell, "run_line_magic", lambda name, line, **_: asked.append(f"%{name} {line}")
    )
    assert shell.run_cell(install.source).success
    assert asked == [
        "git clone --depth 1 https://github.com/someone/minires",
        "%cd minires/lessons",
        'pip install -q -e "..[lessons]"',
    ]
