"""The exercises are themselves examined: the reference passes, a stub fails, and a bug is named."""

import ast
import inspect
import json
import re
from dataclasses import asdict
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import Phase

from minires import InputError, get_ops, school
from minires.gradcheck import GradientError, check_op
from minires.ops import numpy_ops
from minires.school import grading, search
from minires.school.draw import LARGE, MEDIUM, SMALL
from minires.school.exercises import EXERCISES, exercise, stub
from minires.school.hunt import choose_bug, hidden_bug_file
from minires.school.sandbox import Limits
from minires.school.zoo import ZOO

OF_EXERCISES = [(bug, e.name) for bug in ZOO for e in EXERCISES.values() if e.where == bug.where]


def sizes(message):
    """Elements of the arrays in a failing case."""
    shapes = re.findall(r"# shape \((.*?)\)", message)
    return [np.prod([int(n) for n in shape.split(",") if n.strip()]) for shape in shapes]


@pytest.fixture
def unshrunk(monkeypatch):
    """Take the first case that fails: most of the time goes into shrinking."""
    monkeypatch.setattr(search, "PHASES", [Phase.generate])


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_passes(name, monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 15), (MEDIUM, 25), (LARGE, 10)))
    report = school.check(EXERCISES[name].reference, name)
    assert report.passed, report
    assert report.examples >= 50


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("name", EXERCISES)
def test_an_untouched_stub_fails_and_says_that_it_is_not_written_yet(name, tmp_path, run_cli):
    assert run_cli("exercise", "start", name, tmp_path)[0] == 0
    file = tmp_path / f"{name}.py"
    code, out, _ = run_cli("exercise", "check", file)
    assert code == 1
    assert f"{name} is not written yet" in out
    assert "smallest case" not in out
    line = 1 + file.read_text().splitlines().index(f'    raise NotImplementedError("{name}")')
    assert f"line {line}: raise NotImplementedError" in out
    assert f"File: {file}" in out


def test_a_condition_ends_the_search_at_once():
    tried = []

    def condition(case):
        tried.append(case)
        if len(tried) == 3:
            raise search.Enough
        return False

    assert search.smallest_case("relu_forward", condition) is None
    assert len(tried) == 3


def test_no_case_is_drawn_after_the_time_is_over(monkeypatch):
    drawn = []
    cases = search.problems(SMALL)["relu_forward"][0].map(lambda case: drawn.append(case) or case)
    monkeypatch.setattr(search, "problems", lambda size: {"relu_forward": (cases, None)})
    reference = EXERCISES["relu_forward"].reference
    report = school.check(reference, "relu_forward", limits=Limits(total=0))
    assert (report.passed, report.cause) == (False, "timeout")
    assert len(drawn) == 1


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("bug", "name"), OF_EXERCISES, ids=lambda v: getattr(v, "name", v))
def test_every_bug_fails_its_exercise_and_is_named(bug, name):
    report = school.check(attrgetter(bug.function)(bug.plant()), name)
    assert not report.passed
    if "expected shape" in report.message:  # says it already
        assert (bug.name, report.diagnosis) == ("channels-before-kernel", "")
    else:
        assert bug.says in report.diagnosis


@pytest.mark.parametrize(
    ("bug", "most"),
    [
        ("kernel-not-flipped", 4),
        ("no-variance-path", 3),
        ("padding-of-zeros", 6),
        ("labels-of-all-rows", 4),
    ],
)
def test_a_failing_case_is_shrunk_to_a_few_numbers_and_its_bug_named(bug, most):
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


BACKWARDS = ["col2im", *(name for name in EXERCISES if name.endswith("_backward"))]


@pytest.mark.parametrize("name", [n for n in BACKWARDS if "." not in EXERCISES[n].function])
def test_a_stub_shows_shapes_and_the_forward_and_the_formula_is_the_last_hint(name, run_cli):
    text = stub(name)
    doc = inspect.getdoc(EXERCISES[name].reference)
    forward = "im2col" if name == "col2im" else name.replace("_backward", "_forward")
    assert EXERCISES[forward].summary in text
    hints = EXERCISES[name].hints
    contract = next(line for line in doc.splitlines() if "->" in line).rpartition(": ")[2]
    assert contract.removesuffix(".") in text
    hidden = ("->", "input_gradient :", "groups :")
    rest = [line for line in doc.splitlines() if line and not any(h in line for h in hidden)]
    assert all(line in hints[-1] and line not in text for line in rest)
    assert f"minires exercise hint {name} {len(hints)}" in text
    code, out, _ = run_cli("exercise", "hint", name, len(hints))
    assert (code, hints[-1] in out) == (0, True)
    code, _, err = run_cli("exercise", "hint", name, len(hints) + 1)
    assert (code, f"a hint from 1 to {len(hints)}" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu_backward", "Pass dy where x > 0"),
        ("global_avg_pool_backward", "dy / (H W)"),
        ("linear_backward", "dw[c, k] = sum_n x[n, c] dy[n, k]"),
        ("conv2d_backward", "dx = col2im(dcols)"),
        ("softmax_cross_entropy", "minus 1 if k is the label"),
    ],
)
def test_no_stub_and_no_list_gives_a_formula_away(name, formula, run_cli):
    assert formula in EXERCISES[name].hints[-1]
    assert formula not in stub(name)
    assert formula not in run_cli("exercise", "list")[1]


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
        ("return dy", "dx is a view of an argument"),
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


def test_a_file_with_two_exercises_is_graded_for_the_one_in_its_name(
    tmp_path, run_cli, monkeypatch
):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 5),))
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


def test_a_cache_that_the_backward_cannot_use_is_named():
    def relu_forward(x):
        return np.maximum(x, 0), (x, 1)

    report = school.check(relu_forward)
    assert "relu_backward cannot use this cache" in report.message
    assert "(positive,) = cache" in report.message


@pytest.mark.usefixtures("unshrunk")
def test_the_file_at_the_path_is_imported(tmp_path, run_cli):
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
def test_none_where_a_number_is_expected_is_named(name, function):
    report = school.check(function, name)
    assert not report.passed
    assert "expected a number, got NoneType: None" in report.message


def test_a_file_without_a_solution_is_refused_with_exit_code_2(tmp_path, run_cli):
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
    assert set(record) == {"name", "passed", "verdict", "examples", "message", "diagnosis"}
    assert record["verdict"] == "failed"
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
def test_an_answer_that_is_no_number_is_wrong(name, wrong):
    assert not school.check(lambda *_: wrong, name).passed


def test_anything_but_a_function_is_refused():
    for given in ("conv2d_backward", type("relu_backward", (), {})):
        with pytest.raises(InputError, match="expected a function"):
            school.check(given)
    assert not school.check(np.maximum, "relu_forward").passed


# ------------------------------------------------------------------------------- wrong solutions


def stable(logits):
    z = logits - logits.max(axis=1, keepdims=True)
    return z, np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def cross_entropy(loss=None, gradient=None, z_of=stable):
    def softmax_cross_entropy(logits, labels):
        rows = np.arange(len(logits))
        z, p = z_of(logits)
        value = (np.log(np.exp(z).sum(axis=1)) - z[rows, labels]).mean()
        d = p.copy()
        d[rows, labels] -= 1
        d /= len(p)
        return (loss(p, labels) if loss else value), (gradient(p, labels) if gradient else d)

    return softmax_cross_entropy


def norm(x, gamma, beta, eps, mean=None, var=None):
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes) if mean is None else mean
    var = x.var(axes) if var is None else var
    xhat = (x - mean) / np.sqrt(var + eps)
    return gamma * xhat + beta, mean, var, (xhat, gamma, 1 / np.sqrt(var + eps))


def one_pass(x, gamma, beta, eps):
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return norm(x, gamma, beta, eps, mean, (x * x).mean(axes) - mean**2)


def only_first(self, gradients, lr):
    for name, w in self.parameters.items():
        v = self.velocity[name]
        v *= self.momentum
        v += gradients[name] + self.weight_decay * w
        w -= lr * v
        return


def one_velocity(self, gradients, lr):
    v = 0
    for name, w in self.parameters.items():
        v = self.momentum * v + gradients[name] + self.weight_decay * w
        self.velocity[name][...] = v
        w -= lr * v


def in_order_of_gradients(self, gradients, lr):
    for (name, w), g in zip(self.parameters.items(), gradients.values(), strict=True):
        self.velocity[name][...] = self.momentum * self.velocity[name] + g + self.weight_decay * w
        w -= lr * self.velocity[name]


def sgd(v, w):
    def sgd_step(self, gradients, lr):
        for name, p in self.parameters.items():
            u, g = self.velocity[name], gradients[name]
            u[...] = v(self.momentum, u, g, self.weight_decay, p, lr)
            p[...] = w(p, lr, u)

    return sgd_step


def pool(fill, winner=lambda a: a, kind=np.max):
    def max_pool_forward(x, size, stride, pad):
        p = ((0, 0), (pad, pad), (pad, pad), (0, 0))
        a = numpy_ops.im2col(np.pad(x, p, constant_values=fill), size, size, stride)
        a = a.reshape(*a.shape[:3], size * size, -1)
        return kind(a, axis=3), (winner(a.argmax(axis=3)), x.shape, size, stride, pad)

    return max_pool_forward


def conv(change):
    def conv2d_forward(x, w, stride, pad):
        y, _ = numpy_ops.conv2d_forward(x, change(w), stride, pad)
        return y, (x, w, stride, pad)

    return conv2d_forward


def rounded(op, kind):
    def function(*args, **named):
        result = getattr(numpy_ops, op)(*args, **named)
        return tuple(kind(a) if isinstance(a, np.ndarray) else a for a in result)

    return function


def float32_sums(x, w, b):
    y = (x.astype(np.float32) @ w.astype(np.float32)).astype(x.dtype) + b
    return y, (x, w)


def changes_b(x, w, b):
    b += 0  # the same values
    b[:] = b + 1
    return x @ w + b - 1, (x, w)


BUFFERS = {}


def shared_result(dy, cache):
    a = BUFFERS.setdefault((dy.shape, dy.dtype), np.empty(dy.shape, dy.dtype))
    a[...] = dy * cache[0]
    return a


def identity_only(self, dy):
    dz = self.relu.backward(dy)
    dx = self.body.backward(dz)
    return dx + dz if dx.shape == dz.shape else dx


def first_rows(x, w, b):
    y = np.zeros((len(x), w.shape[1]), x.dtype)
    y[:4] = x[:4] @ w + b
    return y, (x, w)


def labels_below_5(logits, labels):
    return cross_entropy()(logits, np.minimum(labels, 4) if logits.shape[1] > 5 else labels)


def c_order_only(x):
    flat = x.ravel("K").reshape(x.shape)
    return np.maximum(flat, 0), (x > 0,)


def small_kernels_only(x, w, stride, pad):
    w = np.where(np.arange(w.shape[0])[:, None, None, None] < 3, w, 0)
    return conv(lambda w: w)(x, w, stride, pad)


def schedule(drops):
    return lambda lr, milestones, iteration: lr / 10 ** drops(milestones, iteration)


def inference(change):
    def batchnorm_inference(x, gamma, beta, mean, var, eps):
        return change(x, gamma, beta, mean, var, eps).astype(x.dtype)

    return batchnorm_inference


def backward_norm(change):
    def batchnorm_backward(dy, cache):
        xhat, gamma, inv = cache
        axes = tuple(range(dy.ndim - 1))
        M = dy.size // dy.shape[-1]
        db, dg = dy.sum(axes), (dy * xhat).sum(axes)
        return change(dy, xhat, gamma, inv, db, dg, M)

    return batchnorm_backward


def windows_by_hand(dy, cache, add):
    winner, shape, size, stride, pad = cache
    x = np.zeros((shape[0], shape[1] + 2 * pad, shape[2] + 2 * pad, shape[3]), dy.dtype)
    for n, i, j, c in np.ndindex(dy.shape):
        p, q = divmod(int(winner[n, i, j, c]), size)
        spot = n, i * stride + p, j * stride + q, c
        x[spot] = dy[n, i, j, c] + (x[spot] if add else 0)
    return x[:, pad : pad + shape[1], pad : pad + shape[2]].copy()


def eats_milestones(lr, milestones, iteration):
    while milestones and milestones[0] <= iteration:
        milestones.pop(0)
        lr /= 10
    return lr


def eats_gradients(self, gradients, lr):
    for name, w in self.parameters.items():
        gradients[name] = gradients[name] + self.weight_decay * w
        self.velocity[name][...] = self.momentum * self.velocity[name] + gradients[name]
        w -= lr * self.velocity[name]


# exercise, a wrong solution, and words of the diagnosis; "" where the message says it all
WRONG = [
    # found in trials: they passed the first grader
    ("sgd_step", only_first, "first parameter"),
    ("sgd_step", one_velocity, ""),
    ("softmax_cross_entropy", cross_entropy(z_of=lambda a: (a - a.max(), np.exp(a - a.max())
        / np.exp(a - a.max()).sum(axis=1, keepdims=True))), "one maximum"),
    ("softmax_cross_entropy", cross_entropy(
        loss=lambda p, t: -np.log(p[np.arange(len(p)), t]).mean()), "-log(p)"),
    ("batchnorm_forward", one_pass, "cancels where the mean is large"),
    ("max_pool_forward", pool(-1e9), "-1e+09"),
    ("linear_forward", float32_sums, ""),
    ("relu_forward", c_order_only, ""),
    ("conv2d_forward", small_kernels_only, ""),
    ("linear_forward", changes_b, ""),
    ("relu_backward", shared_result, ""),
    ("residual_block_backward", identity_only, ""),
    ("step_schedule", eats_milestones, ""),
    ("sgd_step", eats_gradients, ""),
    # made to fit small cases
    ("relu_forward", rounded("relu_forward", np.round), "whole numbers"),
    ("linear_forward", rounded("linear_forward", lambda a: a.astype("f2").astype(a.dtype)), ""),
    ("linear_forward", first_rows, ""),
    ("softmax_cross_entropy", labels_below_5, ""),
    ("step_schedule", schedule(lambda ms, i: sum(i >= m for m in ms[:3])), ""),
    ("max_pool_forward", pool(-4), ""),
    ("max_pool_forward", pool(-np.inf, lambda a: a.astype("i1")), "8 bits"),
    ("sgd_step", in_order_of_gradients, ""),
    ("relu_backward", lambda dy, cache: np.broadcast_to(dy * cache[0], dy.shape), ""),
    ("global_avg_pool_backward", lambda dy, cache: np.broadcast_to(
        (dy / (cache[0][1] * cache[0][2]))[:, None, None], cache[0]), ""),
    # plausible slips
    ("relu_forward", lambda x: (abs(x), (x > 0,)), "absolute"),
    ("relu_forward", lambda x: (np.where(x > 0, x, 0.01 * x).astype(x.dtype), (x > 0,)), "leaky"),
    ("relu_forward", lambda x: (np.maximum(x, 0), (x >= 0,)), "x >= 0"),
    ("relu_forward", lambda x: (np.maximum(x, 0), (x,)), "x in the cache"),
    ("relu_backward", lambda dy, cache: dy * ~cache[0], "not positive"),
    ("relu_backward", lambda dy, cache: dy.copy(), "nothing was done"),
    ("relu_backward", lambda dy, cache: np.where(cache[0], abs(dy), 0), "without its sign"),
    ("linear_forward", lambda x, w, b: (x @ w, (x, w)), "without b"),
    ("linear_backward", lambda dy, c: (dy @ c[1].T, c[0].T @ dy / len(dy), dy.sum(0)), "by N"),
    ("linear_backward", lambda dy, c: (dy @ c[1].T, c[0].T @ dy, dy.mean(0)), "mean over the"),
    ("linear_backward", lambda dy, c: (2 * dy @ c[1].T, c[0].T @ dy, dy.sum(0)), "twice"),
    ("global_avg_pool_forward", lambda x: (x.sum((1, 2)), (x.shape,)), "number of pixels"),
    ("global_avg_pool_forward", lambda x: (x.max((1, 2)), (x.shape,)), "maximum"),
    ("global_avg_pool_backward", lambda dy, cache: np.ascontiguousarray(np.broadcast_to(
        dy[:, None, None] / cache[0][1], cache[0])).astype(dy.dtype), "multiplied by W"),
    ("softmax_cross_entropy", cross_entropy(
        gradient=lambda p, t: p / p.dtype.type(len(p))), "label"),
    ("softmax_cross_entropy", cross_entropy(
        loss=lambda p, t: -np.log(p[np.arange(len(p)), t] + 1e-9).mean()), "inside the logarithm"),
    ("softmax_cross_entropy", cross_entropy(loss=lambda p, t: p.dtype.type(0)), "zeros"),
    ("batchnorm_forward", lambda x, gamma, beta, eps: norm(x, gamma, 0 * beta, eps), "beta"),
    ("batchnorm_forward", lambda x, gamma, beta, eps: norm(x, gamma, beta, 0 * eps), ""),
    ("batchnorm_forward", lambda x, gamma, beta, eps: (
        *norm(x, gamma, beta, eps)[:2], np.sqrt(norm(x, gamma, beta, eps)[2]),
        norm(x, gamma, beta, eps)[3]), "standard deviation"),
    ("batchnorm_backward", backward_norm(lambda dy, xhat, g, inv, db, dg, M: (
        g * inv * (dy - db - xhat * dg), dg, db)), "division by M"),
    ("batchnorm_backward", backward_norm(lambda dy, xhat, g, inv, db, dg, M: (
        g * (dy - db / M - xhat * dg / M), dg, db)), "standard deviation"),
    ("batchnorm_backward", backward_norm(lambda dy, xhat, g, inv, db, dg, M: (
        g * inv * (dy - db / M - xhat * dg / M), db, dg)), "swapped"),
    ("batchnorm_inference", inference(lambda x, g, b, m, v, e: g * (x - m) / (v + e) + b),
        "variance"),
    ("batchnorm_inference", inference(lambda x, g, b, m, v, e: (x - m) / np.sqrt(v + e) + b),
        "gamma"),
    ("batchnorm_inference", inference(lambda x, g, b, m, v, e: norm(x, g, b, e)[0]), "batch"),
    ("conv2d_forward", conv(lambda w: w[::-1]), "rows of the kernel flipped"),
    ("conv2d_forward", conv(lambda w: np.ascontiguousarray(w.swapaxes(0, 1)).reshape(w.shape)),
        "swapped"),
    ("max_pool_forward", pool(-np.inf, kind=np.min), "smallest"),
    ("max_pool_forward", pool(-np.inf, lambda a: 0 * a), "winners 0"),
    ("max_pool_backward", lambda dy, cache: windows_by_hand(dy, cache, False), "overwriting"),
    ("sgd_step", sgd(lambda m, v, g, d, w, lr: m * v + g, lambda w, lr, v: w - lr * v), "decay"),
    ("sgd_step", sgd(lambda m, v, g, d, w, lr: m * v + lr * (g + d * w), lambda w, lr, v: w - v),
        "inside the velocity"),
    ("sgd_step", sgd(lambda m, v, g, d, w, lr: m * v + g + d * w, lambda w, lr, v: w + lr * v),
        "up the gradient"),
    ("step_schedule", schedule(lambda ms, i: any(i >= m for m in ms)), "at most once"),
    ("step_schedule", schedule(lambda ms, i: len(ms)), "reached or not"),
    ("residual_block_backward", lambda self, dy: self.body.backward(dz := self.relu.backward(dy))
        - self.shortcut.backward(dz), "subtracted"),
    ("residual_block_backward", lambda self, dy: self.body.backward(dy)
        + self.shortcut.backward(dy), "ReLU left out"),
    ("im2col", lambda x, KH, KW, stride, pad: np.ascontiguousarray(numpy_ops.im2col(
        x, KH, KW, stride, pad)[:, :, :, ::-1]), "rows of each window flipped"),
    ("im2col", lambda x, KH, KW, stride, pad: numpy_ops.im2col(np.pad(
        x, ((0, 0), (0, 2 * pad), (0, 2 * pad), (0, 0))), KH, KW, stride).copy(), "bottom"),
    ("col2im", lambda cols, H, W, stride, pad: numpy_ops.col2im(
        cols, H, W, stride, pad) / cols.dtype.type(2), "half"),
]  # fmt: skip


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize(("name", "function", "words"), WRONG)
def test_a_plausible_wrong_solution_fails_and_its_diagnosis_is_right(name, function, words):
    report = school.check(function, name)
    assert not report.passed
    assert words in report.diagnosis
    assert words or not report.diagnosis


def test_most_wrong_solutions_get_a_diagnosis():
    assert len(WRONG) >= 60
    assert sum(bool(words) for *_, words in WRONG) >= len(WRONG) / 2


def cast(exercise, change):
    """The reference, with `change` applied to what it returns, or to the arrays it changes."""

    def apply(value):
        if isinstance(value, tuple):
            return tuple(apply(v) if isinstance(v, np.ndarray | float) else v for v in value)
        return change(value)

    def function(*args, **named):
        if exercise.name == "sgd_step":
            exercise.reference(*args, **named)
            for held in (args[0].parameters, args[0].velocity):
                for name in held:
                    if change is CASTS["float16 inside"]:
                        held[name][...] = change(held[name])
                    else:
                        held[name] = change(held[name])
            return None
        return apply(exercise.reference(*args, **named))

    return function


CASTS = {
    "float64": lambda a: np.asarray(a, np.float64),
    "lists": lambda a: np.asarray(a).tolist(),
    "float16 inside": lambda a: np.asarray(a, np.float16).astype(np.asarray(a).dtype),
}


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("change", CASTS)
@pytest.mark.parametrize("name", EXERCISES)
def test_right_values_of_another_dtype_or_type_get_no_diagnosis(name, change):
    report = school.check(cast(EXERCISES[name], CASTS[change]), name)
    assert report.diagnosis == ""
    assert "Your the" not in repr(report)


# ------------------------------------------------------------------------------- foreign code


def solution(body, top=""):
    """A file with a relu_backward of these lines."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    imports = "import os, sys, threading, time\nimport numpy as np"
    return f"{imports}\n{top}\ndef relu_backward(dy, cache):\n    (positive,) = cache\n{lines}\n"


def graded(text, folder, limits=None):
    """Grade a file with this text."""
    file = folder / "relu_backward.py"
    file.write_text(text)
    return grading.check_file(file, limits)


RIGHT = "return dy * positive"
WRONG_ONE = "return dy.copy()"
FRAMES = "f = sys._getframe()\nwhile f:\n"
HOSTILE = {
    "loop": ("while True: pass", "longer than 0.4 seconds, in line 6: while True: pass"),
    "loop that catches all": (
        "while True:\n    try:\n        time.sleep(9)\n    except BaseException: pass",
        "longer than 0.4 seconds",
    ),
    "loop in a thread": (
        "def loop():\n    while True: pass\nt = threading.Thread(target=loop)\nt.start()\nt.join()",
        "longer than 0.4 seconds, in line",
    ),
    "loop in repr": (
        "class A:\n    def __repr__(self):\n        while True: pass\nreturn A()",
        "longer than 0.4 seconds, in line 8",
    ),
    "loop in str": (
        "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E()",
        "longer than 0.4 seconds, in line 8",
    ),
    "a gigabyte printed": ("while True: print('x' * 1000)", "more than 1 MB printed"),
    "a gigabyte to descriptor 1": (
        f"for i in range(20): os.write(1, b'x' * 50_000_000)\n{WRONG_ONE}",
        "not passed",
    ),
    "memory": (
        "keep = []\nwhile True: keep.append(np.ones(10**7))",
        "line 7: while True: keep.append(np.ones(10**7))\nMemoryError",
    ),
    "os._exit": ("os._exit(0)", "ended the process (exit status 0)"),
    "segmentation fault": (
        "import ctypes\nctypes.string_at(0)",
        "The process crashed or was killed",
    ),
    "kills itself": ("os.kill(os.getpid(), 9)", "The process crashed or was killed"),
    "closes standard output": (f"sys.stdout.close()\nos.close(0)\n{WRONG_ONE}", "not passed"),
    "closes every pipe": (f"os.closerange(0, 256)\n{RIGHT}", "ended the process"),
    "BaseException": ("raise BaseException('no')", "line 6: raise BaseException('no')"),
    "GeneratorExit": ("raise GeneratorExit", "line 6: raise GeneratorExit"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "line 6: raise KeyboardInterrupt"),
    "asks for input": ("input('n? ')", "without a keyboard"),
    "patches NumPy": (f"np.isclose = np.allclose = lambda *a, **k: np.True_\n{WRONG_ONE}", "got"),
    "patches the grader": (
        f"import minires.school.judge as j\nj._compare = lambda *a: ''\n{WRONG_ONE}",
        "not available while a solution is graded",
    ),
    "looks at the stack": (
        f"{FRAMES}    for v in list(f.f_locals.values()):\n"
        "        if isinstance(v, dict) and 'dx' in v: return v['dx']\n"
        f"    f = f.f_back\n{WRONG_ONE}",
        "expected 0",
    ),
    "forges output": (
        f"print('relu_backward: passed')\nos.write(1, b'relu_backward: passed')\n{WRONG_ONE}",
        "In this case it printed:\n    relu_backward: passed",
    ),
    "forges an answer": (
        f"{FRAMES}    if 'answers' in f.f_locals:\n        f.f_locals['answers'].write(bytes(99))\n"
        f"    f = f.f_back\n{RIGHT}",
        "wrote into the grader's pipe",
    ),
    "calls the reference": (
        "from minires.ops import numpy_ops\nreturn numpy_ops.relu_backward(dy, cache)",
        "minires.ops.numpy_ops.relu_backward",
    ),
    "hides that it does": (
        "from minires.ops import numpy_ops\ntry: return numpy_ops.relu_backward(dy, cache)\n"
        f"except Exception: {RIGHT}",
        "It calls minires.ops.numpy_ops.relu_backward",
    ),
    "loads the reference again": (
        "import importlib\nfrom minires.ops import numpy_ops\n"
        "return importlib.reload(numpy_ops).relu_backward(dy, cache)",
        "not available while a solution is graded",
    ),
    "returns tuples in tuples": (
        "x = ()\nfor i in range(10**5): x = (x,)\nreturn x",
        "RecursionError",
    ),
    "changes the terminal": ("raise ValueError('\\x1b]0;t\\x07')", r"ValueError: \x1b]0;t\x07"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_foreign_code_gets_a_verdict_in_words(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 6), (MEDIUM, 4)))
    body, words = HOSTILE[kind]
    report = graded(solution(body), tmp_path, Limits(seconds=0.4, total=5, megabytes=200))
    assert not report.passed
    assert words in repr(report)
    assert [p.name for p in tmp_path.iterdir()] == ["relu_backward.py"]


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("while True: pass", "longer than 0.4 seconds, in line 3: while True: pass"),
        ("os._exit(0)", "ended the process (exit status 0)"),
        ("raise BaseException('no')", "line 3: raise BaseException('no')"),
        ("input()", "without a keyboard"),
    ],
)
def test_foreign_code_gets_a_verdict_at_import_too(top, words, tmp_path):
    report = graded(solution(RIGHT, top), tmp_path, Limits(seconds=0.4))
    assert report.message.startswith("The file cannot be imported.")
    assert words in report.message


UNUSUAL = {
    "a dataclass with future annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Mask:\n    m: 'object'\n"
        "def relu_backward(dy, cache):\n    return dy * Mask(cache[0]).m\n"
    ),
    "a class of its own, pickled": (
        "import pickle\nclass A:\n    pass\n"
        "def relu_backward(dy, cache):\n    a = A()\n    a.m = cache[0]\n"
        "    return dy * pickle.loads(pickle.dumps(a)).m\n"
    ),
    "a helper beside the file": (
        "from my_helper import times\n"
        "def relu_backward(dy, cache):\n    return times(dy, cache[0])\n"
    ),
    "a decorator": (
        "import functools\ndef traced(f):\n    @functools.wraps(f)\n"
        "    def g(*a, **k):\n        print(a)\n        return f(*a, **k)\n    return g\n"
        "@traced\ndef relu_backward(dy, cache):\n    return dy * cache[0]\n"
    ),
    "a generator inside": (
        "import numpy as np\ndef relu_backward(dy, cache):\n"
        "    parts = (d * m for d, m in zip(dy.ravel(), cache[0].ravel()))\n"
        "    return np.fromiter(parts, dy.dtype, dy.size).reshape(dy.shape)\n"
    ),
    "another exercise's reference": (
        "from minires.ops.numpy_ops import relu_forward\nimport numpy as np\n"
        "def relu_backward(dy, cache):\n"
        "    relu_forward(dy)\n    return np.where(cache[0], dy, 0)\n"
    ),
    "threads": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def relu_backward(dy, cache):\n    with ThreadPoolExecutor(2) as pool:\n"
        "        return pool.submit(lambda: dy * cache[0]).result()\n"
    ),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_a_right_solution_in_unusual_form_passes(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 6), (MEDIUM, 4)))
    (tmp_path / "my_helper.py").write_text("def times(a, b):\n    return a * b\n")
    report = graded(UNUSUAL[kind], tmp_path)
    assert report.passed, report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my_helper.py", "relu_backward.py"]


def test_a_right_solution_compiled_by_numba_passes(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 3),))
    text = (
        "import numba\nimport numpy as np\n@numba.njit\ndef times(d, m):\n"
        "    out = np.empty_like(d)\n    for i in range(d.size):\n"
        "        out[i] = d[i] if m[i] else 0\n    return out\n"
        "def relu_backward(dy, cache):\n"
        "    return times(dy.ravel(), cache[0].ravel()).reshape(dy.shape)\n"
    )
    report = graded(text, tmp_path, Limits(seconds=60, total=120))
    assert report.passed, report


def test_im2col_and_col2im_may_be_imported_where_the_hints_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 6), (MEDIUM, 6)))
    file = tmp_path / "conv2d_backward.py"
    file.write_text(
        "from minires.ops.numpy_ops import im2col, col2im\n"
        "def conv2d_backward(dy, cache):\n    x, w, stride, pad = cache\n"
        "    KH, KW, C, K = w.shape\n    cols = im2col(x, KH, KW, stride, pad)\n"
        "    rows = dy.reshape(-1, K)\n    dw = cols.reshape(len(rows), -1).T @ rows\n"
        "    dcols = (rows @ w.reshape(-1, K).T).reshape(cols.shape)\n"
        "    dx = col2im(dcols, x.shape[1], x.shape[2], stride, pad)\n"
        "    return dx, dw.reshape(w.shape)\n"
    )
    report = grading.check_file(file)
    assert report.passed, report


def test_all_cases_together_have_a_limit(tmp_path):
    report = graded(solution(f"time.sleep(0.2)\n{RIGHT}"), tmp_path, Limits(total=0.5))
    assert not report.passed
    assert "All cases together take longer than 0.5 seconds" in report.message


def test_a_function_of_this_program_is_stopped_at_the_limit_and_cannot_change_numpy():
    def loops(dy, cache):
        while True:
            pass

    def patches(dy, cache):
        np.isclose = lambda *a, **k: True
        return dy.copy()

    before = np.isclose
    report = school.check(loops, "relu_backward", Limits(seconds=0.2))
    assert "longer than 0.2 seconds, in line" in report.message
    report = school.check(patches, "relu_backward")
    assert "It changed numpy.isclose" in report.message
    assert np.isclose is before


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("conv2d_forward", lambda a, w, stride, pad: None, "must take (x, w, stride, pad), yours"),
        ("batchnorm_forward", lambda x, gamma, beta: None, "yours takes (x, gamma, beta)"),
        ("relu_backward", lambda dy: dy, "must take (dy, cache), yours takes (dy)"),
        ("sgd_step", lambda gradients, lr: None, "must take (self, gradients, lr)"),
    ],
)
def test_a_function_with_other_arguments_is_refused_with_both_signatures(name, function, words):
    report = school.check(function, name)
    assert not report.passed
    assert words in report.message


def test_without_docstrings_one_line_says_what_to_do(monkeypatch, run_cli):
    monkeypatch.setattr(exercise, "__doc__", None)
    for words in (("list",), ("start", "relu_backward")):
        code, _, err = run_cli("exercise", *words)
        assert (code, len(err.splitlines()), "PYTHONOPTIMIZE" in err) == (2, 1, True)


def test_print_options_of_the_program_do_not_reach_the_report():
    with np.printoptions(formatter={"all": lambda x: "<0>"}, precision=1):
        report = school.check(lambda dy, cache: dy.copy(), "relu_backward")
    assert "<0>" not in report.message


def test_a_check_leaves_no_folder_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graded(solution(RIGHT), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["relu_backward.py"]


@pytest.mark.parametrize("name", EXERCISES)
def test_cases_vary_layout_scale_and_size(name):
    arrays = []

    def collect(value):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            arrays.append(value)
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                collect(item)

    for case in search.sample(name):
        collect(case)
    if name == "step_schedule":
        assert max(len(case["milestones"]) for case in search.sample(name)) > 3
        return
    assert any(a.flags.f_contiguous and not a.flags.c_contiguous for a in arrays)
    assert any(step < 0 for a in arrays for step in a.strides)
    assert any(not a.flags.writeable for a in arrays)
    assert any((a != np.round(a)).any() for a in arrays)
    assert max(a.size for a in arrays) > 40


# ---------------------------------------------------------------------- right, in another style


def norm_by_numpy(x, gamma, beta, eps):
    axes = tuple(range(x.ndim - 1))
    mean, var = np.mean(x, axis=axes), np.var(x, axis=axes)
    std = np.sqrt(var + eps)
    return (x - mean) / std * gamma + beta, mean, var, ((x - mean) / std, gamma, 1 / std)


def norm_backward_by_chain_rule(dy, cache):
    xhat, gamma, inv = cache
    axes = tuple(range(dy.ndim - 1))
    M = dy.size // dy.shape[-1]
    dxhat = dy * gamma
    dx = (M * dxhat - dxhat.sum(axes) - xhat * (dxhat * xhat).sum(axes)) * inv / M
    return dx, (dy * xhat).sum(axes), dy.sum(axes)


def conv_by_loops(x, w, stride, pad):
    KH, KW, _, K = w.shape
    a = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    OH, OW = (a.shape[1] - KH) // stride + 1, (a.shape[2] - KW) // stride + 1
    y = np.zeros((len(x), OH, OW, K), x.dtype)
    for i in range(OH):
        for j in range(OW):
            window = a[:, i * stride : i * stride + KH, j * stride : j * stride + KW]
            y[:, i, j] = np.einsum("npqc,pqck->nk", window, w)
    return y, (x, w, stride, pad)


def loss_by_log_softmax(logits, labels):
    top = logits.max(axis=1, keepdims=True)
    log_p = logits - top - np.log(np.sum(np.exp(logits - top), axis=1, keepdims=True))
    onehot = np.eye(logits.shape[1], dtype=logits.dtype)[labels]
    return float(-(onehot * log_p).sum() / len(labels)), (np.exp(log_p) - onehot) / len(labels)


def step_with_new_velocities(self, gradients, lr):
    for name in self.parameters:
        g = gradients[name] + self.weight_decay * self.parameters[name]
        self.velocity[name] = self.momentum * self.velocity[name] + g
        self.parameters[name] -= lr * self.velocity[name]


def pool_by_loops(x, size, stride, pad):
    a = np.full((len(x), x.shape[1] + 2 * pad, x.shape[2] + 2 * pad, x.shape[3]), -np.inf, x.dtype)
    a[:, pad : pad + x.shape[1], pad : pad + x.shape[2]] = x
    OH, OW = (a.shape[1] - size) // stride + 1, (a.shape[2] - size) // stride + 1
    y = np.zeros((len(x), OH, OW, x.shape[3]), x.dtype)
    winner = np.zeros(y.shape, int)
    for n, i, j, c in np.ndindex(y.shape):
        window = a[n, i * stride : i * stride + size, j * stride : j * stride + size, c]
        winner[n, i, j, c] = window.argmax()
        y[n, i, j, c] = window.max()
    return y, (winner, x.shape, size, stride, pad)


def rate_by_division(lr, milestones, iteration):
    for m in milestones:
        lr = lr / 10 if iteration >= m else lr
    return lr


STYLES = [
    ("batchnorm_forward", norm_by_numpy),
    ("batchnorm_backward", norm_backward_by_chain_rule),
    ("batchnorm_inference", lambda x, gamma, beta, mean, var, eps: gamma * (x - mean)
        / np.sqrt(var + eps).astype(x.dtype) + beta),
    ("conv2d_forward", conv_by_loops),
    ("softmax_cross_entropy", loss_by_log_softmax),
    ("sgd_step", step_with_new_velocities),
    ("max_pool_forward", pool_by_loops),
    ("step_schedule", rate_by_division),
    ("step_schedule", lambda lr, milestones, iteration: lr
        * 0.1 ** np.searchsorted(milestones, iteration, side="right")),
    ("linear_forward", lambda x, w, b: (np.einsum("nc,ck->nk", x, w) + b, (x, w))),
    ("linear_backward", lambda dy, cache: (np.einsum("nk,ck->nc", dy, cache[1]),
        np.einsum("nc,nk->ck", cache[0], dy), np.add.reduce(dy))),
    ("relu_forward", lambda x: (np.where(x > 0, x, x.dtype.type(0)), (x > 0,))),
    ("relu_forward", lambda x: (x * (x > 0), (np.greater(x, 0),))),
    ("global_avg_pool_forward", lambda x: (x.sum((1, 2)) / (x.shape[1] * x.shape[2]),
        (x.shape,))),
    ("global_avg_pool_backward", lambda dy, cache: np.ones(cache[0], dy.dtype)
        * dy[:, None, None] / (cache[0][1] * cache[0][2])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function"), STYLES)
def test_a_right_solution_in_another_style_passes(name, function, monkeypatch):
    monkeypatch.setattr(search, "SEARCHES", ((SMALL, 5), (MEDIUM, 15), (LARGE, 10)))
    report = school.check(function, name)
    assert report.passed, report
