"""
Make the site: the lessons, quizzes, the pages around them, and the library's reference.

`pip install -e ".[docs]" && python lessons/build.py --site` writes build/site/html; open its
index.html. The notebooks are shown as they are, nothing is executed. Links are checked: a link to a
file that is not part of the site becomes words with the file's path in the repository; a picture
that is not part of it, and any other link that leads nowhere, is an error.
"""

import html
import html.parser
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import nbformat

from minires.school import quiz

HERE = Path(__file__).parent
ROOT = HERE.parent
SITE = HERE / "site"
BUILD = ROOT / "build" / "site"  # git ignores it
SOURCE, PAGES = BUILD / "source", BUILD / "html"
# pages of prose; those for teachers are left out, because the answers stand beside them
WORDS = (
    "README.md", "lessons/README.md", "lessons/runs/README.md", "lessons/transfer/README.md",
)  # fmt: skip
FIGURES = ("lessons/figures",)
# pages of the reference, in order; see `reference`
MODULES = (
    "ops.numpy_ops", "layers.base", "layers.core", "nets.resnet", "nets.network", "nets.registry",
    "nets.audit", "train.step", "optim", "gradcheck", "data.dataset", "data.shapes10",
    "lab.studies.deepen", "lab.studies.identity", "lab.studies.sensitivity",
    "lab.studies.equal_angles", "lab.studies.shattered", "lab.studies.blocks",
    "lab.studies.slices", "lab.studies.variants",
)  # fmt: skip
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(((?!https?://|mailto:|#)[^)\s]+)\)")
PICTURE = re.compile(r'<p><img src="(?!https?://|data:)([^"]*)"[^>]*alt="([^"]*)"></p>')


def main() -> None:
    """Collect the pages, build them, and check the links between them."""
    shutil.rmtree(BUILD, ignore_errors=True)
    collect()
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    subprocess.run([*command, SOURCE, PAGES], check=True)
    broken = broken_links(PAGES)
    if broken:
        sys.exit("expected links that lead somewhere, got:\n" + "\n".join(broken))
    print(PAGES / "index.html")


def collect() -> None:
    """Copy what the site shows into one folder, laid out as the repository is."""
    shutil.copytree(SITE, SOURCE, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in FIGURES:
        shutil.copytree(ROOT / folder, SOURCE / folder)
    notebooks, names = lessons(), pages()
    for name in WORDS:
        (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        text = (ROOT / name).read_text(encoding="utf-8")
        (SOURCE / name).write_text(standing(text, name, names), encoding="utf-8")
    for path in notebooks:
        name = f"lessons/{path.name}"
        nbformat.write(folded(nbformat.read(path, as_version=4), name, names), SOURCE / name)
    (SOURCE / "quizzes.md").write_text(quizzes(), encoding="utf-8")
    (SOURCE / "reference.md").write_text(reference(), encoding="utf-8")


def lessons() -> list[Path]:
    """The notebooks, in order."""
    return sorted(HERE.glob("[0-9][0-9]*_*.ipynb"))


def pages() -> set[str]:
    """Files of the repository that are pages of the site."""
    return {*WORDS, *(f"lessons/{path.name}" for path in lessons())}


def standing(text: str, name: str, names: set[str]) -> str:
    """A page's text in which a link that leaves the site is words with the path of the file.

    Raises
    ------
    ValueError
        If a picture is not part of the site.
    """

    def local(match: re.Match) -> str:
        picture, words, target = match.groups()
        path = urllib.parse.urljoin(name, target.partition("#")[0])
        if path in names or path.startswith(FIGURES):
            return match[0]
        if picture:
            raise ValueError(f"{name}: expected a picture in {', '.join(FIGURES)}, got {target}")
        named = path.endswith(words.strip("`"))
        return f"`{path}`" if named else f"{words} (`{path}`)"

    return LINK.sub(local, PICTURE.sub(r"![\2](\1)", text))


def folded(notebook, name: str, names: set[str]):
    """A notebook whose cells that JupyterLab hides are folded, with the links of the site."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = standing(cell.source, name, names)
        elif cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/markdown")
            if text:
                output.data["text/markdown"] = standing(text, name, names)
    return notebook


def quizzes() -> str:
    """The questions of all lessons; an answer opens at a click."""
    lines = ["# Quizzes", "", "Five questions on each lesson. Answer before you open the answer."]
    for lesson in quiz.lessons(HERE):
        lines += ["", f"## Lesson {lesson.lstrip('0')}", ""]
        for number, question in enumerate(quiz.questions(HERE, lesson), start=1):
            choices = [f"   - {choice}" for choice in question.choices]
            why = html.escape(f"{question.answer}. {question.why}".replace("..", "."))
            answer = f'<details class="quiz"><summary>Answer</summary>{why}</details>'
            lines += [f"{number}. {question.question}", "", *choices, "", f"   {answer}", ""]
    return "\n".join(lines)


def reference() -> str:
    """The page of the library's docstrings."""
    lines = ["# Reference", "", "The docstrings of the modules that the lessons use."]
    for module in MODULES:
        lines += ["", f"## minires.{module}", ""]
        lines += [f"```{{automodule}} minires.{module}", ":noindex:", "```"]
    return "\n".join(lines)


class _Links(html.parser.HTMLParser):
    """Targets of links and sources of a page, and the names that a link can lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag, attributes) -> None:
        """Note what a tag links to, and its id."""
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        self.targets += [found[key] for key in ("href", "src") if found.get(key)]


def broken_links(folder: Path) -> list[str]:
    """Links of all pages that lead to no file or no heading, and sources on other servers."""
    pages = {}
    for path in folder.rglob("*.html"):
        pages[path.resolve()] = parser = _Links()
        parser.feed(path.read_text(encoding="utf-8"))
    broken = []
    for page, found in pages.items():
        for target in found.targets:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or target.startswith("//"):
                continue
            file = (
                (page.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else page
            )
            names = pages[file].names if file in pages else None
            lost = parts.fragment and names is not None and parts.fragment not in names
            if not file.exists() or lost:
                broken.append(f"{page.relative_to(folder.resolve())}: {target}")
    return broken
