"""Badges that open a lesson on Colab or Binder, once the project has a public address.

`build.py` puts them below the title of each lesson if `[project.urls]` of pyproject.toml has a
"Repository" on GitHub. A cell follows that clones and installs the project on Colab, and does
nothing elsewhere.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import quote

import nbformat

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
TAG = "online"  # of the cells that are added
BRANCH = "main"


def address(project: Path = PROJECT) -> str | None:
    """The address of the repository on GitHub, without a slash at its end; None if there is none."""
    if not project.is_file():  # the lessons are a copy, outside the repository
        return None
    urls = tomllib.loads(project.read_text(encoding="utf-8"))["project"].get("urls", {})
    found = re.fullmatch(
        r"(https://github\.com/[\w.-]+/[\w.-]+?)(\.git)?/?", urls.get("Repository", "")
    )
    return found[1] if found else None


def add(notebook, name: str, repository: str | None):
    """Put the badges and the first cell of a lesson below its title, in place; replace old ones.

    Parameters
    ----------
    notebook : NotebookNode
    name : str
        File name of the notebook.
    repository : str or None
        As `address` returns it. None only removes old ones.
    """
    cells = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    if repository:
        title, *rest = cells
        cells = [title, *_cells(name, repository), *rest]
    notebook.cells = cells
    return notebook


def _cells(name, repository):
    """The cell with the badges, and the cell that installs on Colab."""
    owner_and_name = repository.removeprefix("https://github.com/")
    colab = (
        f"https://colab.research.google.com/github/{owner_and_name}/blob/{BRANCH}/lessons/{name}"
    )
    place = quote(f"lessons/{name}", safe="")
    binder = f"https://mybinder.org/v2/gh/{owner_and_name}/{BRANCH}?labpath={place}"
    shields = {
        "Open in Colab": ("https://colab.research.google.com/assets/colab-badge.svg", colab),
        "Open in Binder": ("https://mybinder.org/badge_logo.svg", binder),
    }
    badges = nbformat.v4.new_markdown_cell(
        " ".join(f"[![{words}]({picture})]({link})" for words, (picture, link) in shields.items())
    )
    install = nbformat.v4.new_code_cell(
        "import sys\n\n"
        'if "google.colab" in sys.modules:  # on Colab, get the files beside this notebook\n'
        f"    !git clone --depth 1 {repository}\n"
        f"    %cd {repository.rpartition('/')[2]}/lessons\n"
        '    !pip install -q -e "..[lessons]"'
    )
    for cell, tags in ((badges, [TAG, "skip"]), (install, [TAG, "skip"])):
        cell.metadata["tags"] = tags
    install.metadata["jupyter"] = {"source_hidden": True}
    return badges, install
