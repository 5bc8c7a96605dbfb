"""Studies of lessons 5b and 11: equal angles, shattered gradients, blocks, slices, variants."""

import numpy as np
import pytest

from minires import plain, resnet
from minires.gradcheck import check_layer
from minires.lab.studies import blocks, equal_angles, shattered, slices, variants
from minires.layers import Conv2d
from minires.nets.resnet import Identity, ResidualBlock, basic_body
from minires.optim import SGD


def batch(rng, N=6, size=8):
    """Images (N, size, size, 3) in float64, and labels."""
    return rng.standard_normal((N, size, size, 3)), rng.integers(0, 10, N)


def gradients(net, x, labels):
    _, dy = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
    net.backward(dy)
    return net.gradients()


def arriving(net, x, labels, name="stage1"):
    """The gradient at the input of a part of the net."""
    found = {}
    with net.watch(lambda call: found.update({(call.name, call.direction): call.value})):
        gradients(net, x, labels)
    return found[name, "backward"]


# ------------------------------------------------------------------------------- equal angles


def test_the_first_step_turns_every_convolution_by_the_same_angle_and_keeps_its_length(rng):
    net = plain(14, rng=0).astype("float64")
    found = gradients(net, *batch(rng))
    before = {name: w.copy() for name, w in net.parameters().items()}
    optimizer = equal_angles.EqualAngles(net)
    optimizer.step(found, 0.1)
    angles = {}
    for name in optimizer.lengths:
        u, w = before[name], net.parameters()[name]
        assert np.linalg.norm(w) == pytest.approx(np.linalg.norm(u), rel=1e-12)
        cosine = (u * w).sum() / np.linalg.norm(u) / np.linalg.norm(w)
        angles[name] = np.arccos(cosine)
    # the first step has a tenth of the velocity of many equal ones; batch norm's eps bends a little
    assert len(angles) == 13
    assert np.allclose(list(angles.values()), np.arctan(0.1 * 0.1), rtol=1e-3)


def test_all_other_parameters_take_the_steps_of_sgd(rng):
    steps = {}
    for rule in equal_angles.RULES:
        net = plain(8, rng=0).astype("float64")
        found = gradients(net, *batch(np.random.default_rng(0)))
        equal_angles.RULES[rule](net).step(found, 0.1)
        steps[rule] = net.parameters()
    for name, w in steps["SGD"].items():
        same = np.array_equal(w, steps["equal angles"][name])
        assert same == (w.ndim != 4), name


def test_the_angles_of_the_rule_are_nearly_equal_and_those_of_sgd_are_not():
    equal, usual = (
        equal_angles.turned("plain14", rule, steps=8) for rule in ("equal angles", "SGD")
    )
    assert equal.shape == usual.shape == (8, 13)
    assert np.allclose(equal[0], np.arctan(0.1 * 0.01), rtol=1e-2)
    ratios = [angles[-1].max() / angles[-1].min() for angles in (equal, usual)]
    assert ratios[0] < 1.5 < 4 < ratios[1]
    assert equal.max() < 0.01


def test_a_layer_without_gradient_stays_where_it_is():
    net = plain(8, rng=0)
    nothing = {name: np.zeros_like(w) for name, w in net.parameters().items()}
    before = net.parameters()["conv.w"].copy()
    equal_angles.EqualAngles(net).step(nothing, 0.1)
    assert np.allclose(net.parameters()["conv.w"], before, rtol=1e-6)


def test_a_training_with_equal_angles_is_reproducible():
    first, second = (equal_angles.errors("plain8", "equal angles", steps=2) for _ in range(2))
    assert np.array_equal(first, second)
    assert first.shape == (2,)
    assert isinstance(equal_angles.RULES["SGD"](plain(8)), SGD)


# --------------------------------------------------------------------------- shattered gradients


def test_cosines_are_those_of_gradients_at_each_distance():
    lines = np.array([[1.0, 0], [0, 2], [-3, 0]])
    assert shattered.cosines(lines) == pytest.approx([1, 0, -1])


def test_the_gradient_of_a_picture_does_not_depend_on_the_others():
    three, five = (shattered.input_gradients("resnet8", points) for points in (3, 5))
    size = abs(three).max()
    assert np.allclose(three, five[::2], rtol=0, atol=1e-5 * size)


def test_shortcuts_keep_the_gradients_of_neighbours_alike():
    mean = {
        net: np.mean([shattered.cosines(shattered.input_gradients(net, seed=s))[1] for s in (0, 1)])
        for net in ("plain20", "resnet20")
    }
    assert mean["plain20"] < mean["resnet20"] - 0.3


# ------------------------------------------------------------------------- blocks of trained nets


def test_a_residual_net_without_a_block_is_the_net_whose_body_adds_nothing(rng):
    net = resnet(14, rng=0)
    x = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    before = net.forward(x)
    changed = dict(blocks.without_blocks(net))
    assert list(changed) == [
        "stage1.block1", "stage1.block2", "stage2.block2", "stage3.block2"
    ]  # fmt: skip
    norm = net.children["stage2"].children["block2"].body.children["bn2"]
    norm.params["gamma"][...] = 0
    silent = net.forward(x)
    norm.params["gamma"][...] = 1
    assert np.array_equal(changed["stage2.block2"].forward(x), silent)
    assert not np.array_equal(silent, before)
    assert np.array_equal(net.forward(x), before)


def test_two_blocks_are_exchanged_within_a_stage_only(rng):
    net = plain(20, rng=0)
    changed = dict(blocks.exchanged(net))
    assert list(changed) == [
        "stage1.block1, stage1.block2",
        "stage1.block2, stage1.block3",
        "stage2.block2, stage2.block3",
        "stage3.block2, stage3.block3",
    ]
    one, two = (changed[list(changed)[-1]].children["stage3"].children[f"block{i}"] for i in (2, 3))
    original = net.children["stage3"].children
    for copied, taken in ((one, "block3"), (two, "block2")):
        w = copied.parameters()["body.conv1.w"]
        assert np.array_equal(w, original[taken].parameters()["body.conv1.w"])


def test_gradients_by_length_of_path_add_up_to_the_gradient(rng):
    net = resnet(14, rng=0).astype("float64")
    x, labels = batch(rng)
    parts = blocks.gradients_by_path(net, x, labels)
    assert len(parts) == 6 + 1
    whole = arriving(net, x, labels)
    assert np.allclose(parts.sum(axis=0), whole, rtol=0, atol=1e-12 * abs(whole).max())


def test_only_the_path_around_all_bodies_is_left_if_they_add_nothing(rng):
    net = resnet(14, rng=0).astype("float64")
    for name, w in net.parameters().items():
        if name.endswith("bn2.gamma"):
            w[...] = 0
    parts = blocks.gradients_by_path(net, *batch(rng))
    assert abs(parts[0]).max() > 0
    assert abs(parts[1:]).max() == 0


# ------------------------------------------------------------------------------------ slices


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_net():
    net = resnet(8, rng=0)
    found = slices.direction(net, 1)
    for name, w in net.parameters().items():
        if w.ndim == 1:
            assert not found[name].any()
            continue
        lengths = (np.linalg.norm(a.reshape(-1, a.shape[-1]), axis=0) for a in (w, found[name]))
        assert np.allclose(*lengths, rtol=1e-5)


def test_a_slice_passes_through_the_loss_and_leaves_the_net_as_it_was(rng):
    net = resnet(8, rng=0).astype("float64")
    x, labels = batch(rng)
    state = net.state()
    found = slices.losses_along(net, slices.direction(net, 1), [-0.5, 0, 0.5], x, labels)
    expected, _ = net.ops.softmax_cross_entropy(net.forward(x, train=True), labels)
    assert found[1] == pytest.approx(expected, rel=1e-12)
    assert len(set(found)) == 3
    assert all(np.array_equal(state[name], w) for name, w in net.load_state(state).state().items())


# ---------------------------------------------------------------------------------- variants


def block(C, K, stride):
    """A residual block that changes the shape if K differs from C."""
    shortcut = variants.make_shortcut("A", C, K, stride, 0)
    return ResidualBlock(basic_body(C, K, stride, np.random.default_rng(1)), shortcut)


@pytest.mark.parametrize("variant", variants.VARIANTS)
def test_the_gradient_of_a_variant_is_right(variant, rng):
    change, _ = variants.VARIANTS[variant]
    layer = change(block(2, 4, 2), np.random.default_rng(2))
    check_layer(layer, rng.standard_normal((2, 4, 4, 2)))


def test_the_original_variant_is_the_residual_net(rng):
    x = rng.standard_normal((2, 16, 16, 3)).astype(np.float32)
    found = variants.vary(8, "original", rng=3).forward(x)
    assert np.array_equal(found, resnet(8, rng=3).forward(x))


def test_a_body_or_a_shortcut_is_weighted(rng):
    x = rng.standard_normal((1, 4, 4, 2))
    layer = variants.Weighted(Identity(), 0.5)
    assert np.array_equal(layer.forward(x), 0.5 * x)
    conv = Conv2d(2, 2, 1, rng=0)
    open_gate = variants.Gated(block(2, 2, 1), conv, -100, exclusive=True).astype("float64")
    assert np.allclose(open_gate.forward(x), np.maximum(x, 0))


def test_gradients_by_block_are_those_that_arrive(rng):
    net = variants.vary(8, "full pre-activation").astype("float64")
    x, labels = batch(rng)
    found = variants.gradients_by_block(net, x, labels)
    whole = arriving(net, x, labels)
    assert len(found) == 3
    assert found[0] == pytest.approx(np.sqrt((whole**2).mean()))
