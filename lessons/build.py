"""
Build the notebooks from their texts, and the README's figures from the recorded runs.

`python lessons/build.py` builds everything; give names, such as 01_convolution.py or figures, to
build only these. `--slides` makes slides, see slides.py; `--site` makes a site, see pages.py. Edit
either half of a pair in JupyterLab (jupytext keeps the two in step), then run this script. It
executes every cell, stops at an error or a warning, and stores the outputs without the machine's
times and paths.
"""

import sys
from pathlib import Path

import badges
import jupytext
import nbformat
import slides
import terminal
from nbclient import NotebookClient
from style import recorded

from minires.data import shapes10
from minires.lab import plots

HERE = Path(__file__).parent
KEPT = {"jupytext", "kernelspec"}


def texts() -> list[Path]:
    """The lessons in order."""
    return sorted(HERE.glob("[0-9][0-9]*_*.py"))


def execute(text: Path) -> nbformat.NotebookNode:
    """
    Run a lesson from top to bottom.

    Raises
    ------
    RuntimeError
        If a cell wrote to standard error, where warnings go.
    """
    notebook = jupytext.read(text)
    badges.add(notebook, text.with_suffix(".ipynb").name, badges.address())
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": HERE}}
    ).execute()
    notebook.metadata = {key: notebook.metadata[key] for key in sorted(KEPT)}
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{i:02d}"
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(
                    f"{text.name}, cell {i}: expected no warnings, got: {output.text}"
                )
    return notebook


def figures() -> None:
    """Draw the README's figures: the recorded experiment, its terminal, a sheet of shapes10."""
    plots.save(plots.errors(recorded("cifar10")), HERE / "figures" / "degradation.png")
    plots.save(
        plots.sheet(shapes10.sheet(rows=5), shapes10.CLASSES), HERE / "figures" / "shapes10.png"
    )
    plots.save(terminal.picture(terminal.printed()), HERE / "figures" / "terminal.png")


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked[:1] == ["--slides"]:
        slides.main(asked[1:])
        sys.exit()
    if asked == ["--site"]:
        import pages  # needs Sphinx

        pages.main()
        sys.exit()
    if not asked or "figures" in asked:
        figures()
    unknown = [
        name for name in asked if name != "figures" and not (HERE / Path(name).name).is_file()
    ]
    if unknown:
        sys.exit(
            f"expected figures or {', '.join(text.name for text in texts())}; got {', '.join(unknown)}"
        )
    for text in (
        [HERE / Path(name).name for name in asked if name != "figures"] if asked else texts()
    ):
        nbformat.write(execute(text), text.with_suffix(".ipynb"))
        print(text.with_suffix(".ipynb").name)
