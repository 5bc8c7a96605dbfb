"""JAX differentiates the same networks itself: logits, gradients and running statistics agree."""

import importlib.util
import os

import numpy as np
import pytest

from minires.errors import InputError
from minires.layers.alexnet import Dropout
from minires.layers.base import Layer, Sequential
from minires.nets import alexnet
from minires.nets.registry import by_name
from minires.ops import get_ops

pytestmark = pytest.mark.peers
if importlib.util.find_spec("jax") is None and not os.environ.get("CI"):
    pytest.skip("JAX is optional: pip install -e '.[jax]'", allow_module_level=True)

import jax  # noqa: E402

from minires.exchange import jax_twin  # noqa: E402

NETS = {
    "option A": lambda: by_name("resnet8", rng=3),
    "plain": lambda: by_name("plain8", rng=3),
    "bottlenecks": lambda: by_name("imagenet-resnet50", rng=3),
    "AlexNet's ops": lambda: by_name("alexnet-cifar", rng=3),
    "smaller pools": lambda: by_name("alexnet-cifar-pool2", rng=3),
    "groups and dropout": lambda: alexnet.alexnet(67, rng=3),
}
TRAINED = sorted(NETS.keys() - {"groups and dropout"})


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def problem(name, rng):
    net = NETS[name]().astype("float64")
    side = 67 if name == "groups and dropout" else 32
    return net, rng.standard_normal((4, side, side, 3)), rng.integers(0, net.facts.classes, 4)


def assert_equal_to_rounding(theirs, ours):
    assert theirs.keys() == ours.keys()
    for key, value in ours.items():
        scale = np.abs(value).max() or 1
        assert np.abs(theirs[key] - value).max() < 1e-10 * scale, key


@pytest.mark.parametrize("name", TRAINED)
def test_one_training_pass_of_jax_has_our_loss_gradients_and_statistics(name, rng):
    net, x, labels = problem(name, rng)
    before = jax_twin.buffers(net)
    step = jax.value_and_grad(lambda p: jax_twin.loss(net, p, before, x, labels), has_aux=True)
    (theirs, moved), gradients = jax.jit(step)(net.parameters())
    loss, dlogits = get_ops("numpy").softmax_cross_entropy(net.forward(x, train=True), labels)
    net.backward(dlogits)
    assert abs(theirs - loss) < 1e-10 * loss
    assert_equal_to_rounding(gradients, net.gradients())
    assert_equal_to_rounding(moved, jax_twin.buffers(net))


@pytest.mark.parametrize("name", NETS)
def test_logits_in_evaluation_are_jaxs(name, rng):
    net, x, _ = problem(name, rng)
    pass_ = jax_twin.Pass(net, net.parameters(), jax_twin.buffers(net), train=False)
    theirs = jax_twin.forward(net, x, pass_)
    assert_equal_to_rounding({"logits": theirs}, {"logits": net.forward(x)})
    assert not pass_.moved


def test_dropout_keeps_the_mean_and_needs_a_key(rng):
    net = Sequential(drop=Dropout(0.25))
    x = np.ones((100, 1000))
    y = jax_twin.forward(net, x, jax_twin.Pass(net, {}, {}, True, jax.random.key(0)))
    assert set(np.unique(y)) == {0, 1 / 0.75}
    deviation = np.sqrt(0.25 / 0.75 / x.size)
    assert abs(y.mean() - 1) < 4 * deviation
    with pytest.raises(InputError, match="needs a key"):
        jax_twin.forward(net, x, jax_twin.Pass(net, {}, {}, True))


class Doubled(Layer):
    """y = 2 x."""


def test_a_layer_without_a_function_is_named_until_one_is_registered(monkeypatch):
    monkeypatch.setattr(jax_twin, "FUNCTIONS", dict(jax_twin.FUNCTIONS))
    layer = Doubled()
    nothing = jax_twin.Pass(layer, {}, {}, False)
    with pytest.raises(InputError, match=r"no JAX function is known for the layer Doubled"):
        jax_twin.forward(layer, 1.0, nothing)
    jax_twin.register(Doubled, lambda layer, x, pass_: 2 * x)
    assert jax_twin.forward(layer, 1.0, nothing) == 2


@pytest.mark.parametrize("wrong", [(Layer, len), (int, len), (Doubled, "2 x")])
def test_only_functions_for_classes_of_layers_are_registered(wrong):
    with pytest.raises(InputError, match="expected a"):
        jax_twin.register(*wrong)
