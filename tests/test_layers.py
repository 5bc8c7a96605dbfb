"""Layers describe themselves, have their own random streams, can be watched; convolutions vary."""

import importlib
import inspect
import pkgutil
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minires.layers
import minires.nets
from minires import InputError, imagenet_resnet, plain, resnet
from minires.gradcheck import check_layer
from minires.layers import (
    BatchNorm,
    Conv2d,
    Description,
    GlobalAvgPool,
    Identity,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sequential,
    in_sequence,
    layer_outputs,
)
from minires.nets.audit import audit, macs, table
from minires.nets.freeze import trained_parameters
from minires.nets.fuse import fuse
from minires.nets.initialise import initialise
from minires.nets.network import Facts, Network
from minires.nets.resnet import PlainBlock, ResidualBlock, make_shortcut
from minires.ops import BACKENDS


class Scale(Layer):
    """y = w * x, a layer that the library does not know, without `describe`."""

    def __init__(self, C):
        super().__init__()
        self.params = {"w": np.full(C, 2, np.float32)}

    def forward(self, x, train=False):
        self._keep((x,), train)
        return x * self.params["w"]

    def backward(self, dy):
        (x,) = self._pop()
        self.grads["w"] = (dy * x).sum(axis=(0, 1, 2))
        return dy * self.params["w"]


class DescribedScale(Scale):
    """The same layer, with `describe`."""

    def describe(self, x_shape):
        return Description("scale", x_shape, macs=int(np.prod(x_shape)))


class Dropout(Layer):
    """Half of the features, chosen at random, are dropped in training."""

    draws = True

    def forward(self, x, train=False):
        if not train:
            return x
        mask = 2.0 * (self.random().random(x.shape) < 0.5)
        self._keep((mask,), train)
        return x * mask.astype(x.dtype)

    def backward(self, dy):
        (mask,) = self._pop()
        return dy * mask.astype(dy.dtype)


def network(**layers):
    """Return a network for 8x8 images that is in no paper."""
    return Network(Facts("toy", "toy", 2, (8, 8, 3), 5), **layers)


def toy(scale):
    return network(
        conv=Conv2d(3, 4, pad=1, rng=0), scale=scale, pool=GlobalAvgPool(), fc=Linear(4, 5, rng=1)
    )


# --------------------------------------------------------------------------------- description

LAYERS = {
    "conv": (lambda: Conv2d(3, 4, 3, 2, 1, rng=0), (7, 6, 3)),
    "conv, pairs": (lambda: Conv2d(3, 4, (1, 5), (2, 3), (0, 2), rng=0), (7, 6, 3)),
    "conv, groups": (lambda: Conv2d(4, 6, 3, groups=2, bias=True, rng=0), (7, 6, 4)),
    "batch norm": (lambda: BatchNorm(3), (7, 6, 3)),
    "relu": (ReLU, (7, 6, 3)),
    "identity": (Identity, (7, 6, 3)),
    "max pool": (lambda: MaxPool(3, 2, 1), (7, 6, 3)),
    "average pool": (GlobalAvgPool, (7, 6, 3)),
    "linear": (lambda: Linear(3, 4, rng=0), (3,)),
    "option A": (lambda: make_shortcut("A", 3, 6, 2, 0), (7, 6, 3)),
    "option B": (lambda: make_shortcut("B", 3, 6, 2, 0), (7, 6, 3)),
    "resnet": (lambda: resnet(8), (32, 32, 3)),
    "fused": (lambda: fuse(resnet(8, "C")), (31, 30, 3)),
    "bottlenecks": (lambda: imagenet_resnet(50), (65, 64, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_described_shapes_are_those_that_forward_returns(name):
    make, x_shape = LAYERS[name]
    layer = make()
    outputs = layer_outputs(layer, np.zeros((1, *x_shape), "float32"))
    outputs[""] = layer.forward(np.zeros((1, *x_shape), "float32"))
    uncalled = {key for key, _ in layer.named_layers()} - set(outputs)
    assert not uncalled or (name == "fused" and all(key.endswith("relu") for key in uncalled))

    def compare(name, described):
        assert name in uncalled or described.y_shape == outputs[name].shape[1:], name
        for key, part in described.parts.items():
            compare(f"{name}.{key}" if name else key, part)

    compare("", layer.describe(x_shape))


@given(
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    groups=st.sampled_from([1, 2, 4]),
)
def test_a_convolution_multiplies_as_often_as_it_says(size, stride, pad, groups):
    """With inputs and weights of 1 and enough padding, the sum over all outputs counts products."""
    conv = Conv2d(4, 8, size, stride, pad, groups=groups, rng=0)
    described = conv.describe((6, 5, 4))
    conv.params["w"][...] = 1
    outputs = conv.forward(np.ones((1, 6, 5, 4), "float32"))
    assert described.y_shape == outputs.shape[1:]
    if pad == (0, 0):
        assert described.macs == outputs.sum()
    else:
        assert described.macs >= outputs.sum()


@pytest.mark.parametrize("name", ["conv", "conv, pairs", "max pool", "option A"])
def test_window_and_stride_are_the_pixels_that_an_output_sees(name):
    make, _ = LAYERS[name]
    layer = make().astype("float64")
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3))
    described = layer.describe((16, 16, 3))
    rows, columns = described.window
    before = layer.forward(x)[0]
    assert (np.ceil(16 / described.stride[0]), np.ceil(16 / described.stride[1])) == pytest.approx(
        before.shape[:2], abs=1
    )
    seen = np.zeros((16, 16), bool)
    for i, j in np.ndindex(16, 16):
        moved = x.copy()
        moved[0, i, j] += 10
        seen[i, j] = not np.array_equal(layer.forward(moved)[0][3, 2], before[3, 2])
    assert (seen.any(axis=1).sum(), seen.any(axis=0).sum()) == (rows, columns)


@pytest.mark.parametrize(
    ("stride", "groups", "kind"),
    [(1, 1, "conv 3x3"), (2, 1, "conv 3x3 /2"), ((2, 1), 1, "conv 3x3 /2x1"),
     (1, 2, "conv 3x3, 2 groups"), (1, 3, "conv 3x3, 3 groups")],
)  # fmt: skip
def test_the_kind_of_a_convolution_says_what_is_not_usual(stride, groups, kind):
    assert Conv2d(6, 6, 3, stride, groups=groups, rng=0).describe((8, 8, 6)).kind == kind


def test_images_that_a_layer_cannot_take_are_not_described():
    for layer, x_shape in (
        (Conv2d(3, 4, rng=0), (8, 8, 4)),
        (Conv2d(3, 4, rng=0), (3,)),
        (GlobalAvgPool(), (3,)),
        (Linear(3, 4, rng=0), (8, 8, 3)),
    ):
        with pytest.raises(InputError, match="expected"):
            layer.describe(x_shape)


def test_a_shortcut_is_counted_but_nothing_is_seen_through_it():
    block = ResidualBlock(Sequential(norm=BatchNorm(3)), make_shortcut("B", 3, 6, 2, 0))
    described = block.describe((8, 8, 3))
    assert described.parts["shortcut"].macs == described.macs > 0
    assert (described.window, described.stride) == ((1, 1), (1, 1))


# --------------------------------------------------------------------------------------- audit


@pytest.mark.parametrize("use", [audit, macs, table], ids=["audit", "macs", "table"])
def test_a_network_with_a_layer_that_says_nothing_is_refused_by_its_class(use):
    with pytest.raises(InputError, match=r"write Scale\.describe"):
        use(toy(Scale(4)))


def test_a_layer_from_elsewhere_that_describes_itself_is_counted():
    rows = {row.name: row for row in audit(toy(DescribedScale(4)))}
    assert list(rows) == ["conv", "scale", "pool", "fc"]
    assert (rows["scale"].parameters, rows["scale"].macs, rows["scale"].window) == (4, 256, (3, 3))
    net = toy(DescribedScale(4))
    assert macs(net) == 64 * 9 * 12 + 256 + 20
    assert sum(row.parameters for row in rows.values()) == sum(
        p.size for p in net.parameters().values()
    )


@pytest.mark.parametrize("layer", [Identity, ReLU])
def test_a_layer_that_neither_multiplies_nor_normalises_is_not_listed(layer):
    assert [row.name for row in audit(toy(layer()))] == ["conv", "pool", "fc"]


@pytest.mark.parametrize("make", [lambda: fuse(plain(8)), lambda: fuse(resnet(14, "B"))])
def test_an_audit_of_a_fused_network_counts_all_of_it(make):
    net = make()
    assert sum(row.parameters for row in audit(net)) == sum(
        p.size for p in net.parameters().values()
    )


def test_a_container_that_forgets_a_child_is_refused():
    class Forgetful(PlainBlock):
        def describe(self, x_shape):
            return in_sequence("forgetful", x_shape, body=self.body.describe(x_shape))

    net = network(block=Forgetful(Sequential(conv=Conv2d(3, 3, rng=0))))
    with pytest.raises(InputError, match=r"Forgetful\.describe must describe"):
        audit(net)


def test_parameters_of_a_container_itself_are_counted():
    class Scaled(PlainBlock):
        def __init__(self, body):
            super().__init__(body)
            self.params["scale"] = np.ones(7, "float32")

    rows = audit(network(block=Scaled(Sequential(conv=Conv2d(3, 3, rng=0)))))
    assert [(row.name, row.parameters) for row in rows] == [("block.body.conv", 81), ("block", 7)]


# ------------------------------------------------------------------------------- constructors


@pytest.mark.parametrize("make", [lambda: Conv2d(3, 4), lambda: Linear(3, 4)])
def test_weights_are_not_drawn_without_an_rng(make):
    with pytest.raises(TypeError, match="rng"):
        make()


def test_the_fan_out_of_groups_is_that_of_one_input():
    w = Conv2d(64, 128, 3, groups=4, rng=0).params["w"]
    assert w.shape == (3, 3, 16, 128)
    assert w.std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.01)


@pytest.mark.parametrize("groups", [0, 2, -1])
def test_groups_that_do_not_divide_the_channels_are_refused(groups):
    with pytest.raises(InputError, match="groups"):
        Conv2d(3, 4, groups=groups, rng=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_are_convolutions_side_by_side(backend, rng):
    whole = Conv2d(4, 6, (3, 2), (2, 1), (1, 0), groups=2, rng=0).use(backend)
    x = rng.standard_normal((2, 7, 6, 4)).astype("float32")
    parts = []
    for g in range(2):
        part = Conv2d(2, 3, (3, 2), (2, 1), (1, 0), rng=0).use(backend)
        part.params["w"] = np.ascontiguousarray(whole.params["w"][..., 3 * g : 3 * g + 3])
        parts.append(part.forward(np.ascontiguousarray(x[..., 2 * g : 2 * g + 2])))
    np.testing.assert_allclose(whole.forward(x), np.concatenate(parts, axis=3), atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bias_is_added_to_every_pixel_and_gets_the_sum_of_their_gradients(backend, rng):
    conv = Conv2d(3, 4, pad=1, bias=True, rng=0).use(backend)
    assert list(conv.params) == ["w", "b"]
    assert not conv.params["b"].any()
    x = rng.standard_normal((2, 5, 5, 3)).astype("float32")
    without = conv.forward(x)
    conv.params["b"][...] = [1, 2, 3, 4]
    np.testing.assert_array_equal(conv.forward(x, train=True), without + conv.params["b"])
    dy = rng.standard_normal((2, 5, 5, 4)).astype("float32")
    conv.backward(dy)
    np.testing.assert_allclose(conv.grads["b"], dy.sum(axis=(0, 1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_input_gradient_a_convolution_returns_none_and_the_same_dw(backend, rng):
    conv = Conv2d(3, 4, bias=True, rng=0).use(backend)
    x, dy = rng.standard_normal((2, 5, 5, 3)), rng.standard_normal((2, 3, 3, 4))
    conv.astype("float64").forward(x, train=True)
    assert conv.backward(dy).shape == x.shape
    kept = dict(conv.grads)
    conv.input_gradient = False
    conv.forward(x, train=True)
    assert conv.backward(dy) is None
    for key, gradient in kept.items():
        np.testing.assert_array_equal(conv.grads[key], gradient)


# --------------------------------------------------------------------------------- randomness


def dropout_net():
    return Sequential(first=Dropout(), nested=Sequential(second=Dropout()))


def masks(net, x):
    """Return the output of each dropout layer for the same input."""
    parts = dict(net.named_layers())
    return [parts[name].forward(x, train=True) for name in ("first", "nested.second")]


def test_masks_stay_until_reseed_and_differ_between_layers():
    net, x = dropout_net(), np.ones((4, 5, 5, 8), "float32")
    net.reseed(np.random.SeedSequence([7, 0]))
    a, b = masks(net, x)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal((a, b), masks(net, x))
    net.reseed(np.random.SeedSequence([7, 1]))
    assert not np.array_equal(a, masks(net, x)[0])
    net.reseed(np.random.SeedSequence([7, 0]))
    np.testing.assert_array_equal((a, b), masks(net, x))


def test_masks_are_a_function_of_seed_and_name_alone():
    x = np.ones((4, 5, 5, 8), "float32")
    seeds = np.random.SeedSequence(7)
    expected = masks(dropout_net().reseed(seeds), x)
    more = Sequential(zeroth=Dropout(), **dropout_net().children)
    np.testing.assert_array_equal(masks(more.reseed(seeds), x), expected)
    assert seeds.n_children_spawned == 0


def test_sequences_spawned_from_one_seed_give_different_masks():
    x = np.ones((4, 5, 5, 8), "float32")
    one, other = (
        masks(dropout_net().reseed(seeds), x) for seeds in np.random.SeedSequence(7).spawn(2)
    )
    assert not np.array_equal(one, other)


def test_a_layer_that_draws_is_checked_like_any_other(rng):
    net = Sequential(conv=Conv2d(3, 4, rng=0), dropout=Dropout())
    net.reseed(np.random.SeedSequence(3))
    report = check_layer(net, rng.standard_normal((2, 5, 5, 3)))
    assert [row.argument for row in report.rows] == ["x", "conv.w"]


def test_a_layer_that_draws_is_refused_without_a_seed():
    with pytest.raises(InputError, match="reseed"):
        Dropout().forward(np.ones((2, 3)), train=True)


# ------------------------------------------------------------------------------------ watching


def test_watch_reports_every_call_below_in_the_order_in_which_they_return(rng):
    net, x = resnet(8), rng.standard_normal((2, 8, 8, 3)).astype("float32")
    layers = dict(net.named_layers())
    calls = []
    start = time.perf_counter()
    with net.watch(calls.append) as watched:
        assert watched is net
        y = net.forward(x, train=True)
        net.backward(np.ones_like(y))
    longest = time.perf_counter() - start
    assert {call.name for call in calls} == set(layers) - {""}
    for direction in ("forward", "backward"):
        assert len([c for c in calls if c.direction == direction]) == len(layers) - 1
    assert all(call.layer is layers[call.name] and 0 <= call.seconds <= longest for call in calls)
    assert [call.name for call in calls[:2]] == ["conv", "bn"]
    assert [call.name for call in calls[-2:]] == ["bn", "conv"]
    by_name = {call.name: call for call in calls if call.direction == "forward"}
    np.testing.assert_array_equal(by_name["fc"].value, y)
    inside = [c for name, c in by_name.items() if name in ("stage1.block1.body", "stage1.block1")]
    assert inside[0].seconds <= inside[1].seconds


def test_watch_reports_that_a_fused_network_computes_no_gradient_of_images(rng):
    net, calls = fuse(plain(8)), []
    with net.watch(calls.append):
        net.backward(net.forward(rng.standard_normal((2, 8, 8, 3)).astype("float32"), train=True))
    assert (calls[-1].name, calls[-1].direction, calls[-1].value) == ("conv", "backward", None)


def unpatched(net):
    return all({"forward", "backward"}.isdisjoint(vars(layer)) for _, layer in net.named_layers())


def test_watch_leaves_nothing_behind():
    net, x = resnet(8), np.zeros((2, 8, 8, 3), "float32")
    outer, nested = [], []
    with net.watch(outer.append):
        with net.watch(nested.append):
            net.forward(x)
        net.forward(x)
    assert unpatched(net)
    assert len(outer) == 2 * len(nested) > 0
    net.forward(x)
    assert len(outer) == 2 * len(nested)


def test_two_watches_may_stop_in_any_order(rng):
    net, first, second = resnet(8), [], []
    x = rng.standard_normal((1, 4, 4, 3)).astype(np.float32)
    one, two = net.watch(first.append), net.watch(second.append)
    one.__enter__()
    two.__enter__()
    net.forward(x)
    one.__exit__(None, None, None)
    seen = len(first)
    assert seen == len(second)
    assert seen > 0
    net.forward(x)
    two.__exit__(None, None, None)
    net.forward(x)
    assert len(first) == seen
    assert len(second) == 2 * seen
    assert all("forward" not in vars(layer) for _, layer in net.named_layers())


def test_watch_leaves_nothing_behind_after_a_mistake():
    net = resnet(8)

    def refuse(call):
        raise KeyError(call.name)

    with pytest.raises(InputError, match="channels"), net.watch(print):
        net.forward(np.zeros((2, 8, 8, 4), "float32"))
    with pytest.raises(KeyError, match="conv"), net.watch(refuse):
        net.forward(np.zeros((2, 8, 8, 3), "float32"))
    assert unpatched(net)


def test_a_method_that_was_replaced_before_is_there_again_after_a_watch():
    net = resnet(8)
    relu = net.children["relu"]
    relu.forward = own = lambda x, train=False: x
    with net.watch(print):
        assert relu.forward is not own
    assert relu.forward is own


# ------------------------------------------------------------------------------ initialisation


def test_he_leaves_the_weights_as_the_layers_drew_them():
    net, before = resnet(8, "B"), resnet(8, "B").state()
    assert initialise(net, "he", np.random.default_rng(1)) is net
    assert all(np.array_equal(a, before[name]) for name, a in net.state().items())


def test_normal_draws_weights_in_network_order_and_nothing_else():
    net = network(conv=Conv2d(3, 40, bias=True, rng=0), bn=BatchNorm(40), fc=Linear(40, 5, rng=0))
    for p in net.parameters().values():
        p += 3
    live = net.parameters()
    initialise(net, "normal", np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for name in ("conv.w", "fc.w"):
        drawn = 0.01 * rng.standard_normal(live[name].shape)
        np.testing.assert_array_equal(live[name], drawn.astype("float32"))
    assert live["conv.w"].std() == pytest.approx(0.01, rel=0.1)
    assert not live["conv.b"].any()
    assert not live["fc.b"].any()
    assert (live["bn.gamma"] == 4).all()
    assert (live["bn.beta"] == 3).all()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(InputError, match="he, normal"):
        initialise(resnet(8), "xavier", np.random.default_rng(0))


def test_a_window_may_have_a_border_of_half_its_size_or_none(rng):
    x = rng.standard_normal((1, 3, 3, 2))
    np.testing.assert_array_equal(MaxPool(1, 1).forward(x), x)
    assert MaxPool(2, 1).forward(x).shape == (1, 2, 2, 2)
    assert MaxPool(4, 1, 2).forward(x).shape == (1, 4, 4, 2)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Conv2d(0, 4, rng=0), "Conv2d: C must be an integer of at least 1, got 0"),
        (lambda: Conv2d(3, 4.0, rng=0), "K must be"),
        (lambda: Conv2d(3, 4, 0, rng=0), "size must be"),
        (
            lambda: Conv2d(3, 4, (3, 0), rng=0),
            r"size must be an integer of at least 1, or a pair \(rows, columns\) of them, got \(3",
        ),
        (lambda: Conv2d(3, 4, (3,), rng=0), r"size must be an integer .*, got \(3,\)"),
        (lambda: Conv2d(4, 6, groups=4, rng=0), "4 channels and 6 filters .* such as 2"),
        (lambda: Conv2d(3, 4, stride=0, rng=0), "stride must be"),
        (lambda: Conv2d(3, 4, stride=(1, 2, 3), rng=0), "stride must be"),
        (lambda: Conv2d(3, 4, pad=-1, rng=0), "pad must be"),
        (lambda: Conv2d(4, 4, groups=0, rng=0), "groups must be"),
        (lambda: BatchNorm(0), "C must be"),
        (lambda: BatchNorm(4, eps=-1), "eps must be"),
        (lambda: BatchNorm(4, eps=float("nan")), "eps must be"),
        (lambda: BatchNorm(4, eps=float("inf")), "eps must be"),
        (lambda: BatchNorm(4, momentum=5), "momentum"),
        (lambda: BatchNorm(4, momentum=0), "momentum"),
        (lambda: BatchNorm(4, momentum=-0.1), "momentum"),
        (lambda: MaxPool(0, 1), "size must be"),
        (lambda: MaxPool(2, (1, 1)), "stride must be"),
        (lambda: MaxPool(3, 2, -1), "pad must be"),
        (lambda: MaxPool(3, 2, 2), "pad must be at most size // 2 = 1, got 2"),
        (lambda: MaxPool(4, 2, 3), "pad must be at most size // 2 = 2, got 3"),
        (lambda: Linear(0, 3, rng=0), "C must be"),
        (lambda: Linear(3, "3", rng=0), "K must be"),
    ],
)
def test_a_layer_refuses_senseless_arguments_when_it_is_made(make, named):
    with pytest.raises(InputError, match=named):
        make()


for package in (minires.layers, minires.nets):
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def every_layer_class(base=Layer):
    """Layer and the classes of the package that are made from it."""
    yield base
    for made in base.__subclasses__():
        if made.__module__.startswith("minires."):
            yield from every_layer_class(made)


@pytest.mark.parametrize("layer", list(every_layer_class()), ids=lambda layer: layer.__name__)
def test_a_layer_evaluates_unless_it_is_asked_to_train(layer):
    assert inspect.signature(layer.forward).parameters["train"].default is False


@pytest.mark.parametrize(
    ("layer", "defaults"),
    [
        (Conv2d, {"size": 3, "stride": 1, "pad": 0, "groups": 1, "bias": False}),
        (BatchNorm, {"eps": 1e-5, "momentum": 0.1}),
        (MaxPool, {"pad": 0}),
        (Linear, {}),
    ],
)
def test_the_defaults_of_a_layer_are_those_of_its_documentation(layer, defaults):
    parameters = inspect.signature(layer).parameters.values()
    assert {p.name: p.default for p in parameters if p.default is not p.empty} == defaults
    named_only = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert named_only == {"groups", "bias", "rng"} & {p.name for p in parameters}


def test_every_parameter_of_a_new_network_is_trained():
    net = resnet(8, "B")
    assert list(trained_parameters(net)) == list(net.parameters())


def test_a_layer_without_forward_or_backward_says_so():
    for call in (Layer().forward, Layer().backward):
        with pytest.raises(NotImplementedError):
            call(np.zeros(1))


def test_a_call_that_was_reported_cannot_be_changed():
    calls = []
    with toy(Identity()).watch(calls.append) as net:
        net.forward(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(AttributeError):
        calls[0].name = "other"


def test_outputs_of_layers_are_those_of_evaluation_unless_asked():
    assert inspect.signature(layer_outputs).parameters["train"].default is False


def test_a_foreign_state_is_described_by_its_first_three_names():
    net = toy(Identity())
    own = list(net.state())
    assert own == ["conv.w", "fc.w", "fc.b"]
    foreign = {name: np.zeros(1) for name in "abcd"}
    with pytest.raises(InputError) as e:
        net.load_state(foreign)
    assert str(e.value).startswith(
        "expected 3 arrays, got 4: 3 missing ['conv.w', 'fc.w', 'fc.b'], "
        "4 unknown ['a', 'b', 'c']; this state belongs"
    )
    with pytest.raises(InputError, match=r"0 missing \[\], 1 unknown \['d'\]"):
        net.load_state(net.state() | {"d": np.zeros(1)})
    with pytest.raises(InputError, match=r"1 missing \['fc.b'\], 0 unknown \[\]"):
        net.load_state({name: a for name, a in net.state().items() if name != "fc.b"})
    deep = resnet(8)
    with pytest.raises(InputError, match=r"missing \['\S+', '\S+', '\S+'\], 0 unknown"):
        deep.load_state({})
