"""Exercises: write an op yourself. The file to start from is made from the reference, all but the answer."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from minires.errors import InputError
from minires.school.bugs import Bug, home
from minires.school.zoo import ZOO

OPS = "ops.numpy_ops:"
OPTIONS = ("groups", "input_gradient")  # arguments that exercises leave out


@dataclass(frozen=True)
class Exercise:
    """A function of the library that a student writes.

    Attributes
    ----------
    name : str
    where : str
        "module:function" of the reference, below minires.
    hints : tuple of str
        Each gives away more than the one before.
    """

    name: str
    where: str
    hints: tuple[str, ...]

    @property
    def function(self) -> str:
        """Name of the reference in its module, such as "conv2d_backward" or "SGD.step"."""
        return self.where.partition(":")[2]

    @property
    def reference(self) -> Any:
        """The function that is to be written."""
        return attrgetter(self.function)(home(self.where))

    @property
    def summary(self) -> str:
        """First line of what it should do."""
        return _doc(self).splitlines()[0]


HINTS = {
    OPS + "im2col": (
        "Pad first: np.pad takes a pair for every axis.",
        "For fixed p and q, what all windows have at (p, q) is one strided slice of the padded image.",
        "np.lib.stride_tricks.sliding_window_view gives every window at stride 1; copy what you return.",
    ),
    OPS + "col2im": (
        "Make the padded image of zeros, add, and crop at the very end.",
        "Loop over p and q: cols[:, :, :, p, q] belongs on one strided slice of the padded image.",
        "The slice begins at p, has OH elements, and steps by stride. It is +=, as windows overlap.",
    ),
    OPS + "conv2d_forward": (
        "You may import im2col from minires.ops.numpy_ops.",
        "Lay the windows out as rows of KH*KW*C numbers, and the filters as a matrix of that many rows.",
        "The order of the rows of w.reshape(-1, K) is that of the windows: first KH, then KW, then C.",
    ),
    OPS + "conv2d_backward": (
        "You may import im2col and col2im from minires.ops.numpy_ops.",
        "The forward is y = cols @ W with matrices. What are dW and dcols of a matrix product?",
        "dx is what col2im makes of dcols, reshaped to (N, OH, OW, KH, KW, C).",
    ),
    OPS + "batchnorm_forward": (
        "The statistics go over all axes but the last: x.reshape(-1, C) makes that one axis.",
        "The variance is the biased one, divided by the number of values, and eps is added to it.",
        "The cache holds the normalised x before gamma and beta, gamma, and 1 / sqrt(var + eps).",
    ),
    OPS + "batchnorm_backward": (
        "dbeta and dgamma first: sums over all axes but the last.",
        "x acts on y along three paths: itself, through the mean, and through the variance.",
        "Try dy = 1 everywhere: dx must be 0, since the sum of y never moves. With eps = 0, dy = xhat gives 0 too.",
    ),
    OPS + "batchnorm_inference": (
        "Nothing is computed from the batch here.",
        "gamma and the standard deviation may be drawn together into one scale for each channel.",
    ),
    OPS + "relu_forward": ("The cache is a tuple of one array of booleans, of the shape of x.",),
    OPS + "relu_backward": ("Where x was not positive, y did not depend on it.",),
    OPS + "max_pool_forward": (
        "Pad with -np.inf, or a padding of 0 wins over negative pixels.",
        "You may import im2col from minires.ops.numpy_ops; it pads with zeros, so pad yourself.",
        "winner has the shape of y and holds p * size + q of the winning pixel; of equals the first wins.",
    ),
    OPS + "max_pool_backward": (
        "winner[n, i, j, c] is p * size + q: which pixel of the window was the largest.",
        "Make an array of windows that is 0 but for the winners, and let col2im add it up.",
        "np.arange(size * size) compared with winner gives the places of the winners.",
    ),
    OPS + "global_avg_pool_forward": ("The cache holds the shape of x, and nothing else.",),
    OPS + "global_avg_pool_backward": (
        "Every pixel has the same share in the average.",
        "np.broadcast_to returns a view that cannot be written to: return a copy.",
    ),
    OPS + "linear_forward": ("b is added to every row.",),
    OPS + "linear_backward": (
        "Write down the shapes: only one product of dy and w has the shape of x.",
        "Each element of b was added N times.",
    ),
    OPS + "softmax_cross_entropy": (
        "Subtract the largest logit of each row before exp: the softmax stays the same, and nothing overflows.",
        "The loss is log(sum of exp) minus the logit of the true label, averaged over the rows.",
        "probabilities[np.arange(N), labels] picks one element of each row.",
    ),
    "nets.resnet:ResidualBlock.backward": (
        "Read forward in minires/nets/resnet.py: which layer was the last, and which two read x?",
        "The gradient of a sum goes to both of its terms unchanged; the gradients of two uses of x add up.",
    ),
    "optim:SGD.step": (
        "The velocity of w is self.velocity[name]; self.momentum and self.weight_decay are numbers.",
        "Change the arrays in place. v = ... makes a new array and leaves the stored one as it was.",
        "gradients belong to someone else: do not change them.",
    ),
    "optim:step_schedule": ("Count the milestones that are not after this iteration.",),
}


def _name(where: str) -> str:
    """Return the function's own name; for a method, the class in small letters before it."""
    owner, _, function = where.partition(":")[2].rpartition(".")
    return "_".join(filter(None, [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", owner).lower(), function]))


EXERCISES = {_name(where): Exercise(_name(where), where, hints) for where, hints in HINTS.items()}


def exercise(name: str) -> Exercise:
    """Return the exercise of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in EXERCISES:
        raise InputError(f"unknown exercise {name!r}: expected one of {', '.join(EXERCISES)}")
    return EXERCISES[name]


# -------------------------------------------------------------------------------------------- the file to start from


def _tree(function: Any) -> ast.FunctionDef:
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _doc(chosen: Exercise) -> str:
    """Docstring of the reference, for a method after that of its class.

    Errors and `OPTIONS` are left out, and numbers are integers, never pairs.
    """
    owner = chosen.function.rpartition(".")[0]
    docs = [inspect.getdoc(getattr(home(chosen.where), owner))] if owner else []
    text = "\n\n".join(doc for doc in [*docs, inspect.getdoc(chosen.reference)] if doc)
    text = re.sub(r"\n\nRaises\n-+\n.*?(?=\n\n|$)", "", text, flags=re.S)
    text = re.sub(rf"\n({'|'.join(OPTIONS)}) : .*(\n +.*)*", "", text)
    return text.replace("int, or (rows, columns)", "int")


def _signature(chosen: Exercise) -> str:
    """Arguments of the reference without their types, which the docstring says."""
    arguments = _tree(chosen.reference).args
    for argument in arguments.args:
        argument.annotation = None
    while arguments.args[-1].arg in OPTIONS:
        arguments.args.pop()
        arguments.defaults.pop()
    return ast.unparse(arguments)


def cache_line(chosen: Exercise) -> str:
    """Line by which the op's backward unpacks the cache; "" if there is no cache."""
    backward = getattr(home(chosen.where), chosen.name.replace("_forward", "_backward"), None)
    lines = inspect.getsource(backward).splitlines() if backward else []
    return next((line.strip() for line in lines if line.endswith(" = cache")), "")


def _cache_notes(chosen: Exercise) -> list[str]:
    """How the forward made what the backward finds in the cache: its own lines, but for what it was given."""
    forward = getattr(home(chosen.where), chosen.name.replace("_backward", "_forward"))
    tree, lines = _tree(forward), inspect.getsource(forward).splitlines()
    computed = {
        ast.unparse(n.targets[0]): lines[n.lineno - 1].strip()
        for n in tree.body
        if isinstance(n, ast.Assign)
    }
    given = {argument.arg for argument in tree.args.args}
    targets = ast.parse(cache_line(chosen)).body[0].targets[0].elts  # type: ignore[attr-defined]
    kept = tree.body[-1].value.elts[-1].elts  # type: ignore[attr-defined]  # return y, ..., (a, b, c)
    pairs = [(ast.unparse(a), ast.unparse(b)) for a, b in zip(targets, kept, strict=True)]
    return [
        computed.get(value, f"{target} = {value}") for target, value in pairs if value not in given
    ]


def _body(chosen: Exercise) -> list[str]:
    """What the file says about the cache, or about self."""
    owner, line = chosen.function.rpartition(".")[0], cache_line(chosen)
    if owner:
        return [f"# this becomes the method {chosen.function}"]
    if not line:
        return []
    if chosen.name.endswith("_forward"):
        return [f"# the backward will unpack your cache by   {line}"]
    notes = _cache_notes(chosen)
    head = "# from the forward" + (", which had computed" if notes else "")
    return [head, *(f"#     {note}" for note in notes), line]


def stub(name: str) -> str:
    """Text of the file that a student starts from."""
    chosen = exercise(name)
    doc = _doc(chosen)
    body = [
        f'"""{doc}' + ('\n"""' if "\n" in doc else '"""'),
        *_body(chosen),
        f'raise NotImplementedError("{name}")',
    ]
    lines = [
        f'"""Exercise: write {name}, then type   minires exercise check {name}.py"""',
        "",
        "import numpy as np",
        "",
        "",
        f"def {name}({_signature(chosen)}):",
        textwrap.indent("\n".join(body), " " * 4),
        "",
        "",
        "# Hints: each gives away more than the one before.",
        *(f"#\n# {i}. {hint}" for i, hint in enumerate(chosen.hints, start=1)),
    ]
    return "\n".join(lines) + "\n"


def write(text: str, file: Path) -> Path:
    """Write a new file.

    Raises
    ------
    InputError
        If it is there already, or its folder cannot be made.
    """
    try:
        if file.parent.is_file():
            raise NotADirectoryError(0, f"{file.parent} is a file")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as f:
            f.write(text)
    except FileExistsError:
        raise InputError(
            f"{file} is there already, and is left as it is; name another folder, or move it"
        ) from None
    except OSError as e:
        raise InputError(f"cannot write {file}: {e.strerror}; name another folder") from None
    return file


# --------------------------------------------------------------------------------------------------------- the hunt


def quarry(op: str | None = None, seed: int = 0) -> tuple[Exercise, Bug]:
    """Choose a bug that the gradient checker can find: of one backward pass, or of any.

    Raises
    ------
    InputError
        If there is no bug in that op.
    """
    by_where = {
        e.where: e
        for e in EXERCISES.values()
        if e.where.startswith(OPS) and e.name.endswith("_backward")
    }
    bugs = [bug for bug in ZOO if bug.where in by_where]
    chosen = [bug for bug in bugs if op in (None, bug.function)]
    if not chosen:
        known = sorted({bug.function for bug in bugs})
        raise InputError(f"no bug hides in {op!r}: expected one of {', '.join(known)}")
    bug = chosen[int(np.random.default_rng(seed).integers(len(chosen)))]
    return by_where[bug.where], bug


def hidden(chosen: Exercise, bug: Bug) -> str:
    """Text of a file in which `bug` hides in the whole op, without being named."""
    source = bug.source()
    used = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    names = sorted(name for name in used & set(vars(home(chosen.where))) if name != "np")
    op = chosen.name.removesuffix("_backward")
    forward = inspect.signature(getattr(home(chosen.where), f"{op}_forward"))
    inputs = ", ".join(name for name in forward.parameters if name not in OPTIONS)
    return f'''"""One line of {chosen.name} below is wrong. Find it with the gradient checker:

    from minires import get_ops, gradcheck
    gradcheck.check_op(get_ops("numpy").{op}_forward, {chosen.name}, {inputs})

with arrays of your choice. Which gradient is wrong, at which elements, for which strides, batches, cotangents? Mend the
line and let the file be checked: minires exercise check FILE
"""

import numpy as np

from minires.{chosen.where.partition(":")[0]} import {", ".join(names)}


{source}'''
