"""Every bug of the zoo is killed by a test that the reference passes; usual checks miss many."""

import sys
from operator import attrgetter

import numpy as np
import pytest
import test_alexnet_ops
import test_gradients
import test_networks
import test_ops
import test_optim
from hypothesis import Phase, settings
from weak import weak_checks

from minires import InputError
from minires.ops import numpy_alexnet, numpy_ops, parts
from minires.school.bugs import Bug, copy_of, reference_module, replace_function
from minires.school.tables import parse_tables
from minires.school.zoo import FIELDS, ZOO

NUMPY = numpy_ops  # the modules that bugs are planted in
ALEXNET = numpy_alexnet
CONVOLUTION = (test_ops.test_convolution_equals_loops, NUMPY)
NORM = (test_ops.test_batch_norm_equals_loops, NUMPY)
POOL = (test_ops.test_max_pool_equals_loops, NUMPY)
LOSS = (test_ops.test_cross_entropy_equals_loops_and_never_overflows, NUMPY)
BLOCK = (test_gradients.test_layer, "residual block A", "numpy", "rng")
STEPS = (test_optim.test_three_steps_by_hand,)

# a test and its arguments, for every bug of a function unless the bug has one of its own
KILLER = {
    "im2col": CONVOLUTION,
    "col2im": CONVOLUTION,
    "conv2d_forward": CONVOLUTION,
    "conv2d_backward": (test_gradients.test_convolution, NUMPY),
    "batchnorm_forward": NORM,
    "batchnorm_backward": (test_gradients.test_batch_norm, NUMPY),
    "relu_backward": (test_gradients.test_relu, NUMPY),
    "max_pool_forward": POOL,
    "max_pool_backward": (test_gradients.test_max_pool, NUMPY),
    "global_avg_pool_backward": (test_gradients.test_global_average_pool, NUMPY),
    "linear_backward": (test_gradients.test_linear, NUMPY),
    "softmax_cross_entropy": LOSS,
    "ResidualBlock.forward": (
        test_gradients.test_layer,
        "residual block, same shape",
        "numpy",
        "rng",
    ),
    "ResidualBlock.backward": BLOCK,
    "ZeroPadShortcut.backward": (test_gradients.test_layer, "option A", "numpy", "rng"),
    "SGD.step": STEPS,
    "step_schedule": (test_optim.test_the_papers_schedule,),
    "channel_groups": (test_ops.test_convolution_in_groups_and_with_pairs_equals_loops, NUMPY),
    "local_response_norm_forward": (
        test_alexnet_ops.test_local_response_norm_equals_loops,
        ALEXNET,
    ),
    "local_response_norm_backward": (
        test_alexnet_ops.test_gradient_of_local_response_norm,
        ALEXNET,
    ),
    "dropout_mask": (
        test_alexnet_ops.test_a_mask_has_the_mean_1_and_the_share_of_zeros,
        ALEXNET,
        0.25,
    ),
    "dropout_backward": (
        test_alexnet_ops.test_dropout_is_the_product_with_its_mask_in_both_directions,
        ALEXNET,
        "rng",
    ),
    "tanh_backward": (test_alexnet_ops.test_tanh_and_its_slope, ALEXNET, "rng", "float64"),
    "last-of-equals": (test_ops.test_the_first_of_equal_maxima_gets_the_gradient, NUMPY),
    "batch-statistics-at-test-time": (
        test_networks.test_evaluation_of_an_image_does_not_depend_on_its_neighbours,
        "rng",
    ),
    "biased-running-variance": (
        test_networks.test_running_statistics_follow_with_the_unbiased_variance,
        "rng",
    ),
    "running-momentum-swapped": (
        test_networks.test_running_statistics_follow_with_the_unbiased_variance,
        "rng",
    ),
    "evaluation-overwrites-the-cache": (
        test_networks.test_evaluation_between_forward_and_backward_does_no_harm,
        "rng",
    ),
    "cache-used-twice": (
        test_networks.test_backward_without_a_training_forward_names_the_layer,
        "rng",
    ),
}


HOLDERS = (NUMPY, ALEXNET, parts, test_gradients, test_networks, test_ops, test_optim)


def release(monkeypatch, bug, module):
    """Replace a function in the library, and wherever a test module holds it, for one test."""
    owner, _, name = bug.function.rpartition(".")
    reference = reference_module(bug.where)
    original = attrgetter(bug.function)(reference)
    replacement = attrgetter(bug.function)(module)
    monkeypatch.setattr(attrgetter(owner)(reference) if owner else reference, name, replacement)
    for holder in HOLDERS:
        for held in [key for key, value in vars(holder).items() if value is original]:
            monkeypatch.setattr(holder, held, replacement)


def run(monkeypatch, test, *arguments):
    """Run a test of the suite; a property at the same examples each time, without shrinking."""
    if hasattr(test, "hypothesis"):
        quick = settings(
            max_examples=50, derandomize=True, deadline=None, database=None, phases=[Phase.generate]
        )
        monkeypatch.setattr(test, "_hypothesis_internal_use_settings", quick)
    with np.errstate(all="ignore"):
        test(*(np.random.default_rng(0) if a == "rng" else a for a in arguments))


PASSED = set()  # what the reference need not pass again in this process


@pytest.mark.parametrize("bug", ZOO, ids=lambda bug: bug.name)
def test_every_bug_is_killed_by_a_test_that_the_reference_passes(bug, monkeypatch):
    test, *arguments = KILLER.get(bug.name) or KILLER[bug.function]
    clean, planted = copy_of(bug.where), bug.plant()
    if (bug.function, test, *arguments) not in PASSED:
        release(monkeypatch, bug, clean)
        run(monkeypatch, test, *arguments)
        PASSED.add((bug.function, test, *arguments))
    release(monkeypatch, bug, planted)
    with pytest.raises((AssertionError, pytest.fail.Exception, InputError)):
        run(monkeypatch, test, *arguments)


def test_planting_leaves_the_library_alone():
    def functions():
        return {bug.where: attrgetter(bug.function)(reference_module(bug.where)) for bug in ZOO}

    before, modules = functions(), dict(sys.modules)
    for bug in ZOO:
        bug.plant()
    assert functions() == before
    assert {name: m for name, m in sys.modules.items() if name.startswith("minires")} == {
        name: m for name, m in modules.items() if name.startswith("minires")
    }


def test_a_bug_whose_line_is_gone_is_refused_not_disarmed():
    with pytest.raises(InputError, match="found it 0 times"):
        Bug("gone", "ops.numpy_ops:relu_backward", "no such piece", "", "", "").plant()
    with pytest.raises(InputError, match="the reference has changed"):
        Bug("twice", "ops.numpy_ops:relu_backward", "dy", "x", "", "").plant()


def test_a_bug_of_a_function_that_its_module_only_imports_is_refused_not_disarmed():
    with pytest.raises(InputError, match="name the module that defines it"):
        Bug("elsewhere", "layers.core:Layer._keep", "if train:", "if True:", "", "").plant()


RIGHT = {"name": "a", "where": "b:c", "old": "d", "new": "e", "says": "f", "hint": "g"}


def toml(*rows, key="bug"):
    lines = (f"[[{key}]]\n" + "".join(f"{k} = {v!r}\n" for k, v in row.items()) for row in rows)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[bug]", "zoo.toml: expected TOML"),
        ("", r"expected \[\[bug\]\] tables only, got none"),
        ("bug = [1]", "tables only, got bug"),
        (toml(RIGHT, key="ant"), "tables only, got ant"),
        (toml(RIGHT, {"name": "b"}), r"\[\[bug\]\] number 2: expected the fields name, where, old"),
        (toml(RIGHT | {"more": "x"}), "got name, where, old, new, says, hint, more"),
        (toml(RIGHT | {"old": 3}), "old must be a string, got 3"),
        (toml(RIGHT | {"where": "relu_backward"}), "where must be 'module:function'"),
        (toml(RIGHT, RIGHT), "number 2: name 'a' is taken"),
    ],
)
def test_a_zoo_with_a_mistake_in_it_is_refused_with_the_place(text, message):
    assert parse_tables(toml(RIGHT), "zoo.toml", "bug", FIELDS, unique="name") == [RIGHT]
    with pytest.raises(InputError, match=message):
        parse_tables(text, "zoo.toml", "bug", FIELDS, unique="name")


def test_names_are_unique_and_each_bug_is_one_line():
    assert len({bug.name for bug in ZOO}) == len(ZOO) >= 24
    for bug in ZOO:
        assert "\n" not in bug.old + bug.new
        assert not bug.says.endswith(".")
        assert bug.hint.endswith((".", "?"))


def test_a_function_put_into_a_copy_is_the_one_the_copy_uses():
    where = "ops.numpy_ops:im2col"
    copied = copy_of(where)
    replace_function(copied, "im2col", lambda x, KH, KW, stride, pad: np.ones((1, 1, 1, 1, 1, 1)))
    x = np.full((1, 1, 1, 1), 5.0)
    assert copied.conv2d_forward(x, x)[0] == 5
    assert NUMPY.conv2d_forward(x, x)[0] == 25


def test_each_quick_check_lets_some_bug_through_and_the_thorough_ones_none():
    table = weak_checks()
    assert not any(table.pop("the reference").values())
    assert len(table) >= 20
    thorough = {"minires.gradcheck", "CS231n"}
    for check in next(iter(table.values())):
        assert all(row[check] for row in table.values()) == (check in thorough), check
    assert not table["no-variance-path"]["cotangent of ones"]
    assert not table["gradient-not-averaged"]["batch of one"]
