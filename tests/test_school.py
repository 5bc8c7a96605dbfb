"""The exercises are themselves examined: the reference passes, a stub fails, and a bug is named."""

import ast
import inspect
import json
import re
from dataclasses import asdict
from functools import partial
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import Phase, settings

from minires import InputError, get_ops, school
from minires.gradcheck import GradientError, check_op
from minires.ops import numpy_ops
from minires.school import search
from minires.school.exercises import EXERCISES, stub
from minires.school.hunt import choose_bug, hidden_bug_file
from minires.school.zoo import ZOO

OF_EXERCISES = [(bug, e.name) for bug in ZOO for e in EXERCISES.values() if e.where == bug.where]


def sizes(message):
    """Elements of the arrays in a failing case."""
    shapes = re.findall(r"# shape \((.*?)\)", message)
    return [np.prod([int(n) for n in shape.split(",") if n.strip()]) for shape in shapes]


@pytest.fixture
def unshrunk(monkeypatch):
    """Take the first case that fails: most of the time goes into shrinking."""
    monkeypatch.setattr(search, "settings", partial(settings, phases=[Phase.generate]))


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_passes(name):
    report = school.check(EXERCISES[name].reference, name)
    assert report.passed, report
    assert report.examples >= 50


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", EXERCISES)
def test_an_untouched_stub_fails_and_says_that_it_is_still_to_be_written(name, tmp_path, run_cli):
    assert run_cli("exercise", "start", name, tmp_path)[0] == 0
    file = tmp_path / f"{name}.py"
    code, out, _ = run_cli("exercise", "check", file)
    assert code == 1
    assert f"{name} is still to be written" in out
    line = 1 + file.read_text().splitlines().index(f'    raise NotImplementedError("{name}")')
    assert f"line {line}: raise NotImplementedError" in out
    assert f"File: {file}" in out


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("bug", "name"), OF_EXERCISES, ids=lambda v: getattr(v, "name", v))
def test_every_bug_fails_its_exercise_and_is_named(bug, name):
    report = school.check(attrgetter(bug.function)(bug.plant()), name)
    assert not report.passed
    assert bug.says in report.diagnosis


@pytest.mark.parametrize(
    ("bug", "most"),
    [
        ("kernel-not-flipped", 4),
        ("no-variance-path", 3),
        ("padding-of-zeros", 4),
        ("labels-of-all-rows", 4),
    ],
)
def test_what_fails_is_shrunk_to_a_few_numbers_and_still_named(bug, most):
    bug = next(b for b in ZOO if b.name == bug)
    report = school.check(attrgetter(bug.function)(bug.plant()))
    assert max(sizes(report.message)) <= most
    assert bug.says in report.diagnosis


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_has_the_signature_and_the_words_of_the_reference(name):
    tree = ast.parse(stub(name))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    code = EXERCISES[name].reference.__code__
    arguments = code.co_varnames[: code.co_argcount]
    options = ("groups", "input_gradient")  # left out of exercises
    assert [a.arg for a in function.args.args] == [a for a in arguments if a not in options]
    assert not any(word in stub(name) for word in (*options, "(rows, columns)"))
    assert ast.get_docstring(function).splitlines()[0] == EXERCISES[name].summary
    assert all(len(line) <= 120 for line in stub(name).splitlines())
    assert "# 1. " in stub(name)


def test_a_stub_of_a_backward_says_what_the_cache_holds():
    assert "xhat, gamma, inv_std = cache" in stub("batchnorm_backward")
    assert "#     inv_std = 1 / np.sqrt(var + eps)" in stub("batchnorm_backward")
    assert "#     positive = x > 0" in stub("relu_backward")


# ------------------------------------------------------------------------------ what a student does


def relu(body, tmp_path, name="relu_backward"):
    """Report on a relu_backward with this body."""
    file = tmp_path / f"{name}.py"
    head = "import numpy as np\n\n\ndef relu_backward(dy, cache):\n    (positive,) = cache\n"
    file.write_text(f"{head}    {body}\n")
    return file


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return dy.copy()", "expected 0, got"),
        ("return dy", "view of an argument"),
        ("return (dy * positive).astype('float16')", "got float16"),
        ("return (dy * positive)[None]", "expected shape"),
        ("return (dy * positive).tolist()", "expected an array of shape"),
        ("dy *= positive; return dy.copy()", "changed in place"),
        ("dy * positive", "is there a return?"),
        ("return dy * positive, 1", "Expected 1 results (dx), got 2"),
        ("return dy @ positive.nothing", "line 6: return dy @ positive.nothing"),
        ("return dy * positive if np.random.default_rng().random() < 0.5 else dy + 1", ""),
        (
            "seen = vars(relu_backward).setdefault('seen', []); seen.append(dy.tobytes()); "
            "return dy + 1 if seen.count(seen[-1]) == 1 else dy * positive",
            "gave different answers",
        ),
        ("print('seen', dy.shape); return dy", "In this case it printed:\n    seen ("),
        ("return dy * np.nan", "got nan"),
    ],
)
def test_a_mistake_is_named(body, words, tmp_path, run_cli):
    code, out, _ = run_cli("exercise", "check", relu(body, tmp_path))
    assert code == 1
    assert words in out
    assert not re.search(r"(grading|judge|search|words|cases)\.py", out)


def test_a_solution_passes_with_exit_code_0(tmp_path, run_cli):
    code, out, _ = run_cli("exercise", "check", relu("return dy * positive", tmp_path))
    assert (code, "relu_backward: passed" in out) == (0, True)


def test_of_a_file_with_two_exercises_the_one_it_is_named_after_is_graded(
    tmp_path, run_cli, monkeypatch
):
    monkeypatch.setattr(search, "EXAMPLES", 5)
    file = relu("return dy * positive", tmp_path)
    file.write_text(file.read_text() + "\n\ndef relu_forward(x):\n    raise NotImplementedError\n")
    code, out, _ = run_cli("exercise", "check", file)
    assert (code, "relu_backward: passed" in out) == (0, True)
    code, _, err = run_cli("exercise", "check", file.rename(tmp_path / "mine.py"))
    assert (code, "found relu_forward, relu_backward" in err) == (2, True)


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (lambda x: x > 0, "The cache, last of what is returned, must be a tuple, got ndarray."),
        (
            lambda x: (x >= 0,),
            "What is returned is right, but the backward makes a wrong gradient of this cache.\ndx",
        ),
    ],
    ids=["no tuple", "x >= 0"],
)
def test_a_wrong_cache_is_named(cache, message):
    report = school.check(lambda x: (np.maximum(x, 0), cache(x)), "relu_forward")
    assert not report.passed
    assert message in report.message


def test_a_forward_whose_cache_the_backward_cannot_use_is_told_so():
    def relu_forward(x):
        return np.maximum(x, 0), (x, 1)

    report = school.check(relu_forward)
    assert "relu_backward cannot use this cache" in report.message
    assert "(positive,) = cache" in report.message


@pytest.mark.usefixtures("unshrunk")
def test_the_file_at_the_path_is_what_is_imported(tmp_path, run_cli):
    right, wrong = tmp_path / "a", tmp_path / "b"
    right.mkdir()
    wrong.mkdir()
    files = [
        relu("return dy * positive", right),
        relu("return dy * (dy>0)  ", wrong),
    ]  # of the same length
    codes = [run_cli("exercise", "check", file)[0] for file in files]
    assert codes == [0, 1]
    relu("return dy * (dy>0)  ", right)
    assert run_cli("exercise", "check", files[0])[0] == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "a",
        "b",
        "relu_backward.py",
        "relu_backward.py",
    ]


def test_checking_leaves_the_library_alone(tmp_path, run_cli):
    before = dict(vars(numpy_ops))
    run_cli("exercise", "check", relu("return dy", tmp_path))
    assert dict(vars(numpy_ops)) == before


def test_a_file_that_cannot_be_imported_fails_with_the_line(tmp_path, run_cli):
    file = tmp_path / "relu_backward.py"
    file.write_text("import numpy as np\ndef relu_backward(dy, cache)\n    return dy\n")
    code, out, _ = run_cli("exercise", "check", file)
    assert code == 1
    assert "line 2: def relu_backward(dy, cache)" in out


@pytest.mark.parametrize(("content", "reason"), [
    (b"import sys\nsys.exit(0)\n", "SystemExit: 0"),
    ("def relu_backward(dy, cache):\n    return dy\n".encode("utf-16"), "Error: "),
])  # fmt: skip
def test_a_file_that_ends_the_program_or_is_no_text_has_not_passed(
    content, reason, tmp_path, run_cli
):
    file = tmp_path / "relu_backward.py"
    file.write_bytes(content)
    code, out, _ = run_cli("exercise", "check", file)
    assert code == 1
    assert reason in out


def test_a_solution_that_ends_the_program_has_not_passed(tmp_path, run_cli):
    code, out, _ = run_cli("exercise", "check", relu("raise SystemExit(0)", tmp_path))
    assert code == 1
    assert "SystemExit" in out


@pytest.mark.parametrize(("name", "function"), [
    ("step_schedule", lambda lr, milestones, iteration: None),
    ("softmax_cross_entropy", lambda logits, labels: (None, logits * 0)),
])  # fmt: skip
def test_none_where_a_number_is_expected_is_said_so(name, function):
    report = school.check(function, name)
    assert not report.passed
    assert "expected a number, got NoneType: None" in report.message


def test_what_is_no_solution_is_refused_with_exit_code_2(tmp_path, run_cli):
    empty = tmp_path / "empty.py"
    empty.write_text("from minires.ops.numpy_ops import relu_backward\n")
    for words, answer in [
        (("check", tmp_path / "nothing.py"), "found none at"),
        (("check", empty), "found none"),
        (("start", "conv3d"), "unknown exercise 'conv3d'"),
        (("hunt", "conv3d"), "no bug hides in 'conv3d'"),
    ]:
        code, _, err = run_cli("exercise", *words)
        assert (code, answer in err) == (2, True), err


def test_a_file_that_is_there_is_never_overwritten(tmp_path, run_cli):
    for words in (("start", "relu_backward", tmp_path), ("hunt", "--into", tmp_path)):
        assert run_cli("exercise", *words)[0] == 0
        before = {p: p.read_text() for p in tmp_path.iterdir()}
        code, _, err = run_cli("exercise", *words)
        assert (code, "is there already" in err) == (2, True)
        assert {p: p.read_text() for p in tmp_path.iterdir()} == before


def test_json_is_for_grade_books(tmp_path, run_cli):
    file = relu("return dy * (dy > 0)", tmp_path)
    file.write_text("print('hello')\n" + file.read_text())
    code, out, _ = run_cli("exercise", "check", file, "--json")
    record = json.loads(out)
    assert code == 1
    assert set(record) == {"name", "passed", "examples", "message", "diagnosis"}
    assert (record["name"], record["passed"]) == ("relu_backward", False)
    assert "mask taken from the gradient" in record["diagnosis"]


def test_a_report_reads_well_in_a_notebook():
    def relu_backward(dy, cache):
        return dy * (dy > 0)

    report = school.check(relu_backward)
    assert repr(report).startswith("relu_backward: not passed\n")
    assert "dy * (dy &gt; 0)" not in report._repr_html_()
    assert "not passed" in report._repr_html_()
    assert report == school.check(relu_backward)
    assert asdict(report)["passed"] is False


def test_a_failing_case_can_be_pasted():
    report = school.check(
        attrgetter("conv2d_backward")(
            next(b for b in ZOO if b.name == "kernel-not-flipped").plant()
        )
    )
    case = report.message.split("\n\n")[1]
    values = {"np": np}
    exec("\n".join(line.strip() for line in case.splitlines()), values)
    _, cache = numpy_ops.conv2d_forward(values["x"], values["w"], values["stride"], values["pad"])
    assert numpy_ops.conv2d_backward(values["dy"], cache)[0].shape == values["x"].shape


def test_the_list_has_every_exercise_and_every_op_of_the_contract_is_one(run_cli):
    code, out, _ = run_cli("exercise", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(EXERCISES)
    ops = [name for name in vars(numpy_ops) if name.endswith(("_forward", "_backward"))]
    assert set(ops) | {"im2col", "col2im", "batchnorm_inference", "softmax_cross_entropy"} <= set(
        EXERCISES
    )


# ---------------------------------------------------------------------------------------- the hunt


@pytest.mark.usefixtures("unshrunk")
def test_a_hunted_bug_is_found_by_the_gradient_checker_and_not_named(rng, tmp_path, run_cli):
    chosen, bug = choose_bug("batchnorm_backward", 1)
    text = hidden_bug_file(chosen, bug)
    assert bug.new in text
    assert bug.says not in text
    space = {}
    exec(text, space)
    x, gamma, beta = rng.standard_normal((3, 4, 4, 2)), *rng.uniform(0.5, 2, (2, 2))
    with pytest.raises(GradientError):
        check_op(
            get_ops("numpy").batchnorm_forward, space["batchnorm_backward"], x, gamma, beta, 1e-5
        )
    code, out, _ = run_cli("exercise", "hunt", "batchnorm_backward", "--seed", 1, "--reveal")
    assert (code, bug.says in out) == (0, True)
    assert (
        run_cli("exercise", "hunt", "batchnorm_backward", "--seed", 1, "--into", tmp_path)[0] == 0
    )
    file = tmp_path / "hunt_batchnorm_backward_1.py"
    assert run_cli("exercise", "check", file)[0] == 1
    file.write_text(file.read_text().replace(bug.source(), inspect.getsource(chosen.reference)))
    assert run_cli("exercise", "check", file)[0] == 0


def test_every_seed_hides_some_bug():
    assert len({choose_bug(None, seed)[1].name for seed in range(40)}) >= 8
    with pytest.raises(InputError, match="no bug hides"):
        choose_bug("relu_forward")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("step_schedule", "a"), ("step_schedule", {}), ("step_schedule", [[1], [1, 2]]),
     ("relu_backward", np.array(["a"])), ("relu_backward", np.array([object()]))],
)  # fmt: skip
def test_an_answer_that_is_no_number_is_wrong_and_no_more(name, wrong):
    assert not school.check(lambda *_: wrong, name).passed


def test_what_is_no_function_is_refused():
    for given in ("conv2d_backward", type("relu_backward", (), {})):
        with pytest.raises(InputError, match="expected a function"):
            school.check(given)
    assert not school.check(np.maximum, "relu_forward").passed
