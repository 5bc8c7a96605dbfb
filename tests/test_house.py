"""The house keeps its order: which room may use which, how long a page may be, what the README promises is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "minires").rglob("*.py"))

# what a room may import of minires; a file's room is the longest prefix that fits
MAY_IMPORT = {
    "minires.errors": set(),
    "minires.ops": {"errors", "ops"},
    "minires.layers": {"errors", "ops"},
    "minires.resnet": {"errors", "layers"},
    "minires.optim": {"errors"},
    "minires.gradcheck": {"errors", "ops", "layers"},
    "minires.data": {"errors", "data"},
    "minires.lab": {"errors", "ops", "layers", "resnet", "optim", "data", "lab"},
    "minires.lab.runs": {"errors", "lab.checkpoint", "lab.config"},
    "minires.lab.plots": {"errors", "lab.checkpoint", "lab.runs", "lab.text"},
    "minires.lab.report": {"errors", "lab.config", "lab.plots", "lab.runs"},
    "minires.lab.checkpoint": {"errors"},
    "minires.lab.text": set(),
    "minires.school": {"errors", "ops", "layers", "resnet", "optim", "gradcheck", "school"},
    "minires.cli": {"errors", "ops", "resnet", "data", "lab", "school"},
    "minires.__main__": {"cli"},
    "minires": {"errors", "ops", "resnet", "gradcheck"},
}


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Modules of minires that a file imports, as written: "ops.checks", "data", ..."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not getattr(node, "level", 0), f"{path}: imports are written from the package on"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("minires"):
            base = node.module.removeprefix("minires").lstrip(".")
            for alias in node.names:
                known = {module(f) for f in FILES}
                full = ".".join(p for p in ("minires", base, alias.name) if p)
                yield full.removeprefix("minires.") if full in known else base
        elif isinstance(node, ast.Import):
            yield from (
                a.name.removeprefix("minires").lstrip(".")
                for a in node.names
                if a.name.startswith("minires")
            )


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path):
    name = module(path)
    room = max(
        (r for r in MAY_IMPORT if name == r or (name.startswith(r + ".") and r != "minires")),
        key=len,
    )
    allowed = MAY_IMPORT[room]
    for used in imports(path):
        if used:  # "" is the package itself: its version
            assert any(used == a or used.startswith(a + ".") for a in allowed), (
                f"{name} must not import minires.{used}"
            )


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_page_is_longer_than_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_backward_stands_directly_below_its_forward():
    tree = ast.parse((ROOT / "minires/ops/numpy_ops.py").read_text(encoding="utf-8"))
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]
    pairs = [i for i, name in enumerate(names) if name.endswith("_forward")]
    assert len(pairs) == 6
    for i in pairs:
        assert names[i + 1] == names[i].replace("_forward", "_backward")


def test_no_random_draw_is_hidden_in_global_state():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(
            r"np\.random\.(seed|rand|randn|normal|uniform|permutation|shuffle|choice)\b", text
        ), path


def test_nothing_foreign_is_unpickled():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\bpickle\.(\w+)", text)) <= {"Unpickler"}, (
            path
        )  # the base of the one that refuses
        assert not re.search(
            r"from pickle\b|import pickle as|allow_pickle\s*=(?!\s*False\b)", text
        ), path


def test_the_readme_tree_names_every_file_of_the_package():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [
        f.name
        for f in FILES
        if f.name not in ("__init__.py", "__main__.py") and f.name not in readme
    ]
    assert not missing


def test_the_readme_opens_its_quick_start_with_two_commands():
    part = (ROOT / "README.md").read_text(encoding="utf-8").split("## Quick start")[1]
    block = re.search(r"```\w*\n(.*?)```", part, re.S)[1].strip().splitlines()
    assert block == [
        "pip install -e . && minires degradation",
        'pip install -e ".[test]" && pytest',
    ]


def test_pictures_and_pages_that_the_readme_links_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", readme) + re.findall(r'src="([^":]+)"', readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
