"""The layout holds: who may import whom, how long files and functions may be, who opens what."""

import ast
import io
import itertools
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

import minires

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "minires").rglob("*.py"))
TESTS = sorted((ROOT / "tests").glob("*.py"))

CODE_LINES, COLUMNS, FUNCTION_LINES, KERNEL_ARGUMENTS = 250, 100, 40, 8

# what a package may import of minires, beside itself; the lowest first
BASE = {"errors", "text", "plugins"}
OPS = BASE | {"ops"}
LAYERS = OPS | {"layers"}
NETS = LAYERS | {"nets"}
DATA = BASE | {"data"}
RUNS = NETS | {"optim", "runs"}
TRAIN = RUNS | DATA | {"train"}
MAY_IMPORT = {
    "minires": {"errors", "gradcheck", "nets", "ops"},
    "minires.__main__": {"cli"},
    "minires.errors": set(),
    "minires.text": set(),
    "minires.plugins": {"errors"},
    "minires.optim": {"errors"},
    "minires.ops": OPS,
    "minires.layers": LAYERS,
    "minires.gradcheck": LAYERS
    | {
        "gradcheck",
        "gradcheck_arguments",
        "gradcheck_differences",
        "gradcheck_lines",
        "gradcheck_report",
        "gradcheck_slopes",
    },
    "minires.nets": NETS,
    "minires.data": DATA,
    "minires.runs": RUNS,
    "minires.exchange": NETS | {"exchange"},
    "minires.train": TRAIN,
    "minires.lab": TRAIN | {"lab"},
    "minires.bench": TRAIN | {"exchange", "bench"},
    "minires.school": NETS | {"optim", "gradcheck", "school"},
    "minires.cli": TRAIN | {"lab", "bench", "exchange", "school", "cli"},
}
ORDER_IN_TRAIN = ("step", "task", "state", "loop", "together", "parallel", "sweep")
FILES_OF_A_RUN = ("config.json", "metrics.jsonl", ".safetensors")


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path):
    """Modules of minires that a file imports, as written: "ops.checks", "data", ..."""
    known = {module(f) for f in FILES}
    for node in ast.walk(tree(path)):
        assert not getattr(node, "level", 0), f"{path}: imports are written from the package on"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "minires":
            base = node.module.removeprefix("minires").lstrip(".")
            for alias in node.names:
                full = ".".join(p for p in ("minires", base, alias.name) if p)
                yield full.removeprefix("minires.") if full in known else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "minires":
                    yield alias.name.removeprefix("minires").lstrip(".")


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path):
    name = module(path)
    packages = [p for p in MAY_IMPORT if name == p or name.startswith((f"{p}.", f"{p}_"))]
    package = max((p for p in packages if p != "minires" or name == p), key=len)
    for used in imports(path):
        if used:  # "" is the package itself: its version
            allowed = any(used == a or used.startswith(f"{a}.") for a in MAY_IMPORT[package])
            assert allowed, f"{name} must not import minires.{used}"


def test_inside_train_imports_run_from_step_to_together():
    for path in sorted((ROOT / "minires/train").glob("*.py")):
        if path.stem in ORDER_IN_TRAIN:
            later = ORDER_IN_TRAIN[ORDER_IN_TRAIN.index(path.stem) + 1 :]
            assert not [m for m in imports(path) if m in {f"train.{stem}" for stem in later}], path


# ----------------------------------------------------------------------------------------- limits


def docstrings(parsed):
    """Numbers of the lines that docstrings stand on."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    lines = set()
    for node in ast.walk(parsed):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            lines |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def code_lines(path):
    """Numbers of the lines with code: no blank ones, comments, docstrings."""
    text = path.read_text(encoding="utf-8")
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER}
    layout |= {tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return lines - docstrings(ast.parse(text))


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_file_has_more_than_250_lines_of_code(path):
    assert len(code_lines(path)) <= CODE_LINES


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_function_has_more_than_40_lines_of_code(path):
    code = code_lines(path)
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    lengths = {f.name: len(code & set(range(f.lineno, f.end_lineno + 1))) for f in functions}
    assert {name: n for name, n in lengths.items() if n > FUNCTION_LINES} == {}


@pytest.mark.parametrize("path", [*FILES, *TESTS], ids=lambda p: p.stem)
def test_no_line_is_wider_than_100_columns(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [i for i, line in enumerate(lines, start=1) if len(line) > COLUMNS] == []


def is_kernel(function):
    names = {n.id for d in function.decorator_list for n in ast.walk(d) if isinstance(n, ast.Name)}
    return bool(names & {"kernel", "inline", "inner", "njit"})


def test_no_kernel_has_more_than_8_arguments():
    kernels = [
        (path.stem, node.name, len(node.args.args))
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and is_kernel(node)
    ]
    assert len(kernels) > 30
    assert [k for k in kernels if k[2] > KERNEL_ARGUMENTS] == []


COMPUTED = (ast.Call, ast.BinOp, ast.ListComp, ast.DictComp, ast.SetComp, ast.GeneratorExp)


def several_values(node):
    """Whether a line assigns several values that are computed in it."""
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)):
        return False
    if not isinstance(node.targets[0], ast.Tuple):
        return False
    computed = [v for v in node.value.elts if any(isinstance(n, COMPUTED) for n in ast.walk(v))]
    return len(computed) > 1


@pytest.mark.parametrize("path", FILES, ids=module)
def test_a_line_holds_one_statement(path):
    parsed = tree(path)
    bodies = [getattr(n, "body", None) for n in ast.walk(parsed)]
    same_line = [
        a.lineno
        for body in bodies
        if isinstance(body, list)
        for a, b in itertools.pairwise(body)
        if a.end_lineno == b.lineno
    ]
    assert same_line == []
    assert [node.lineno for node in ast.walk(parsed) if several_values(node)] == []


# ---------------------------------------------------------------------------------- who does what


def strings(path):
    """Strings of a file, except docstrings and strings that are sentences."""
    parsed = tree(path)
    prose = docstrings(parsed)
    for node in ast.walk(parsed):
        text = getattr(node, "value", None) if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and node.lineno not in prose and " " not in text:
            yield text


@pytest.mark.parametrize("path", FILES, ids=module)
def test_only_runs_opens_the_files_of_a_run(path):
    named = [s for s in strings(path) if any(name in s for name in FILES_OF_A_RUN)]
    if not module(path).startswith("minires.runs"):
        assert named == []


NAME_PARSING = re.compile(
    r"\.(startswith|endswith|removeprefix|removesuffix|partition|split|find)\(\s*\(?['\"]"
    r"(plain|resnet|imagenet|alexnet|vgg)"
    r"|\bre\.\w+\([^)]*\b(net|nets|title|facts)\b"
    r"|isdig(it)?\b[^)]*\b(net|title)\b"
)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_only_the_registry_parses_names_of_networks(path):
    if module(path) != "minires.nets.registry":
        assert NAME_PARSING.findall(path.read_text(encoding="utf-8")) == []


def test_the_pattern_for_parsing_names_finds_what_version_1_did():
    for line in (
        'net.title.startswith("imagenet")',
        'self.net.startswith("plain")',
        're.sub(r"\\d+", "", self.net)',
        're.findall(r"\\d+", self.net)',
        '"".join(filter(str.isdigit, net))',
    ):
        assert NAME_PARSING.search(line), line


def test_no_module_works_at_import_but_to_register_what_it_has():
    """A statement at the top of a module defines, registers, or decides on what is installed."""
    allowed = {"register", "app", "TypeVar", "declare", "table", "add_typer", "callback"}
    for path in FILES:
        for node in tree(path).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                words = {n.id for n in ast.walk(node.value.func) if isinstance(n, ast.Name)}
                words |= {n.attr for n in ast.walk(node.value.func) if isinstance(n, ast.Attribute)}
                words |= {word for name in words for word in name.split("_")}
                assert words & (allowed | {"define", "main"}), f"{path}:{node.lineno}"


# ------------------------------------------------------------------------------------------ pages


def test_every_backward_stands_directly_below_its_forward():
    for path in sorted((ROOT / "minires/ops").glob("numpy_*.py")):
        functions = [n.name for n in tree(path).body if isinstance(n, ast.FunctionDef)]
        names = [name for name in functions if not name.startswith("_")]
        forwards = [i for i, name in enumerate(names) if name.endswith("_forward")]
        assert forwards
        for i in forwards:
            assert names[i + 1] == names[i].replace("_forward", "_backward")


def test_no_random_draw_is_hidden_in_global_state():
    hidden = r"np\.random\.(seed|rand|randn|normal|uniform|permutation|shuffle|choice)\b"
    for path in FILES:
        assert not re.search(hidden, path.read_text(encoding="utf-8")), path


def test_nothing_foreign_is_unpickled():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"\bpickle\.(\w+)", text))
        # the base class of the restricted unpickler, and names used only for writing
        assert found <= {"Unpickler", "dumps", "PicklingError"}, path
        other = r"from pickle\b|import pickle as|allow_pickle\s*=(?!\s*False\b)"
        assert not re.search(other, text), path


def test_the_readme_tree_names_every_file_of_the_package():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [f.name for f in FILES if f.name not in ("__init__.py", "__main__.py")]
    assert [name for name in names if name not in readme] == []


def test_the_readme_tree_names_no_file_that_is_not_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree_of_files = max(re.findall(r"```\w*\n(.*?)```", readme, re.S), key=len)
    names = set(re.findall(r"[\w/]+\.py\b", tree_of_files))
    there = {str(f.relative_to(ROOT)) for f in ROOT.rglob("*.py")}
    assert names
    assert [n for n in names if not any(t == n or t.endswith(f"/{n}") for t in there)] == []


def test_the_readme_opens_its_quick_start_with_two_commands():
    part = (ROOT / "README.md").read_text(encoding="utf-8").split("## Quick start")[1]
    block = re.search(r"```\w*\n(.*?)```", part, re.S)[1].strip().splitlines()
    assert block == [
        "pip install -e . && minires degradation",
        'pip install -e ".[test]" && pytest',
    ]


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree_of_files = max(re.findall(r"```\w*\n.*?```", readme, re.S), key=len)
    assert len(readme.split(tree_of_files)[0].split()) <= 1100
    program = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    assert len([line for line in program.splitlines() if line.strip()]) <= 10


def test_the_citation_names_this_version_and_the_authors_of_the_licence():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'version: "{minires.__version__}"' in citation
    assert f"license: {project['license']}" in citation
    authors = re.search(r"\(c\) \d+ (.+)", (ROOT / "LICENSE").read_text(encoding="utf-8"))[1]
    assert f'- name: "{authors}"' in citation


def test_pictures_and_pages_that_the_readme_links_are_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", readme) + re.findall(r'src="([^":]+)"', readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def moved_names():
    """Rows of the change log's table: names and their new module."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for row in re.findall(r"^\| (`minires.*) \|$", text, re.M):
        _, names, new = (cell.strip() for cell in row.split(" | "))
        home = re.match(r"`(minires[\w.]*)`", new)
        if home and "removed" not in new:
            renamed = re.findall(r", as `(\w+)`", new)
            yield home[1], renamed or re.findall(r"`(\w+)`", names)


def test_the_change_log_names_new_homes_that_exist():
    rows = list(moved_names())
    assert len(rows) > 30
    for home, names in rows:
        (path,) = (f for f in FILES if module(f) == home)  # read, as PyTorch may be missing
        text = path.read_text(encoding="utf-8")
        assert [name for name in names if not re.search(rf"\b{name}\b", text)] == [], home


def test_dates_and_measurements_stand_in_the_log_not_in_the_code():
    dated = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b|\d+(\.\d+)? (ms|times as fast)\b")
    for path in FILES:
        assert not dated.findall(path.read_text(encoding="utf-8")), path
    log = (ROOT / "LOG.md").read_text(encoding="utf-8")
    assert len(set(re.findall(r"\b20\d\d-[01]\d-[0-3]\d\b", log))) > 3
