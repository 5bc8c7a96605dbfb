"""A student's own op works in a network and in training, and a wrong one shows."""

import copy
from operator import attrgetter

import numpy as np
import pytest

from minires import InputError, get_ops, plain, resnet
from minires.layers import Conv2d
from minires.ops import numpy_ops
from minires.ops.numpy_ops import col2im, im2col
from minires.optim import SGD
from minires.school.hunt import FIRST, choose_bug
from minires.train.step import train_step


def conv2d_backward(dy, cache):
    """As a student writes it: without the arguments that exercises leave out."""
    x, w, stride, pad = cache
    rows = im2col(x, *w.shape[:2], stride, pad)  # (N, OH, OW, KH, KW, C)
    dcols = np.tensordot(dy, w, (3, 3))
    dw = np.tensordot(rows, dy, ((0, 1, 2), (0, 1, 2)))
    return col2im(dcols, *x.shape[1:3], stride, pad), dw


def losses(net, data, steps, lr=0.02):
    """Losses of training on images of 8x8 pixels."""
    images = data.prepare(data.train.images, None)[:, ::4, ::4].copy()
    optimizer = SGD(net.parameters())
    found = []
    for step in range(steps):
        rows = slice(32 * (step % 3), 32 * (step % 3) + 32)
        found.append(train_step(net, optimizer, images[rows], data.train.labels[rows], lr)[0])
    return np.array(found)


def test_an_op_of_your_own_trains_a_network(shapes):
    calls = []

    def mine(dy, cache):
        calls.append(dy.shape)
        return conv2d_backward(dy, cache)

    own = losses(resnet(8, rng=0).use("numpy", conv2d_backward=mine), shapes, 3)
    assert len(calls) == 3 * 7  # steps, convolutions
    theirs = losses(resnet(8, rng=0).use("numpy"), shapes, 3)
    assert own[0] == theirs[0]
    assert np.allclose(own, theirs, rtol=1e-3)  # float32, summed in another order
    wrong = resnet(8, rng=0).use("numpy", conv2d_backward=lambda dy, c: (dy, c[1] * 0))
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        losses(wrong, shapes, 1)


def test_the_other_half_of_a_pair_has_the_documented_cache(shapes):
    x = np.ones((2, 6, 6, 3), np.float32)
    net = Conv2d(3, 4, rng=0).use("numpy", conv2d_backward=lambda dy, cache: (cache, dy))
    net.forward(x, train=True)
    cache = net.backward(np.ones((2, 6, 6, 4), np.float32))
    assert cache[0] is x
    assert net.ops.conv2d_forward is numpy_ops.conv2d_forward


def test_the_library_and_other_networks_do_not_change(shapes):
    before = dict(vars(numpy_ops))
    net = plain(8, rng=0).use("numpy", relu_backward=lambda dy, cache: dy * 0)
    assert copy.deepcopy(net).ops.relu_backward(1, None) == 0
    assert dict(vars(numpy_ops)) == before
    assert plain(8, rng=0).ops is get_ops("numpy")
    assert net.use("numpy").ops is get_ops("numpy")


def test_a_wrong_name_or_no_function_or_groups_is_refused():
    with pytest.raises(InputError, match="'conv2d_backwards'; did you mean conv2d_backward"):
        plain(8, rng=0).use("numpy", conv2d_backwards=conv2d_backward)
    with pytest.raises(InputError, match="relu_forward: expected a function, got 3"):
        plain(8, rng=0).use("numpy", relu_forward=3)
    x = np.ones((1, 4, 4, 4), np.float32)
    grouped = Conv2d(4, 4, groups=2, rng=0).use(
        "numpy", conv2d_forward=lambda x, w, stride, pad: (x, ())
    )
    with pytest.raises(InputError, match="add groups=1"):
        grouped.forward(x, train=True)


def test_the_first_hunt_is_for_a_bug_that_trains(shapes):
    chosen, bug = choose_bug()
    assert bug.name == FIRST
    wrong = attrgetter(bug.function)(bug.plant())
    found = losses(plain(8, rng=0).use("numpy", **{chosen.name: wrong}), shapes, 30)
    right = losses(plain(8, rng=0).use("numpy"), shapes, 30)
    falls = [values[:6].mean() - values[-6:].mean() for values in (found, right)]
    assert falls[0] > 0.5 * falls[1] > 0
    assert not np.array_equal(found, right)
