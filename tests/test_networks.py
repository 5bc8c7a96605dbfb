"""The networks are the paper's: counts, shapes, names, twins; layers keep their contract."""

import numpy as np
import pytest

import minires
from minires import InputError
from minires.layers.base import layer_outputs
from minires.layers.core import BatchNorm, Conv2d, Linear, ReLU, recompute_statistics
from minires.nets.audit import audit, macs, table
from minires.nets.registry import by_name
from minires.nets.resnet import (
    PlainBlock,
    ResidualBlock,
    imagenet_plain,
    imagenet_resnet,
    plain,
    resnet,
)

# the paper's table 6 to more digits: option A, no bias in convolutions, gamma and beta, a bias in
# the last layer
PARAMETERS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
MULTIPLY_ADDS = {20: 40.6, 32: 68.9, 44: 97.2, 56: 125.5, 110: 252.9}  # millions
IMAGENET_MULTIPLY_ADDS = {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}  # billions, table 1
# 18 and 34 layers have option A here; with option B, as others count, three projections make
# 11,689,512 and 21,797,672
IMAGENET_PARAMETERS = {
    18: 11_515_688,
    34: 21_623_848,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}


def parameters(net):
    return sum(p.size for p in net.parameters().values())


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameters_and_multiply_adds_are_the_papers(depth):
    assert parameters(resnet(depth)) == parameters(plain(depth)) == PARAMETERS[depth]
    assert parameters(resnet(depth, "B")) == PARAMETERS[depth] + 2752
    n = (
        depth - 2
    ) // 6  # blocks of a stage; a projection has C K weights and a batch norm of K channels
    of_option_c = (
        [(16, 16)] * n + [(16, 32)] + [(32, 32)] * (n - 1) + [(32, 64)] + [(64, 64)] * (n - 1)
    )
    assert parameters(resnet(depth, "C")) == PARAMETERS[depth] + sum(
        C * K + 2 * K for C, K in of_option_c
    )
    assert (
        round(macs(resnet(depth)) / 1e6, 1)
        == round(macs(plain(depth)) / 1e6, 1)
        == MULTIPLY_ADDS[depth]
    )


def test_the_1202_layer_network_has_19_4_million_parameters():
    assert parameters(resnet(1202)) == 19_421_274


@pytest.mark.parametrize("depth", IMAGENET_MULTIPLY_ADDS)
def test_imagenet_networks_cost_what_table_1_says(depth):
    net = imagenet_resnet(depth)
    assert macs(net) / 1e9 == pytest.approx(IMAGENET_MULTIPLY_ADDS[depth], abs=0.06)
    assert parameters(net) == IMAGENET_PARAMETERS[depth]


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_imagenet_networks_cost_what_their_residual_twins_do_and_have_their_weights(depth):
    a, b = imagenet_plain(depth, rng=3), imagenet_resnet(depth, rng=3)
    assert macs(a) == macs(b)
    assert parameters(a) == IMAGENET_PARAMETERS[depth]
    assert list(a.parameters()) == list(b.parameters())
    np.testing.assert_array_equal(a.parameters()["fc.w"], b.parameters()["fc.w"])
    assert not any(isinstance(layer, ResidualBlock) for _, layer in a.named_layers())


# torchvision's own figures: parameters, and billions of multiply-adds, which are more than in
# table 1, as three 1x1 convolutions see four times the pixels
TORCHVISION = {
    18: (11_689_512, 1.81),
    34: (21_797_672, 3.66),
    50: (25_557_032, 4.09),
    101: (44_549_160, 7.80),
    152: (60_192_808, 11.51),
}


@pytest.mark.parametrize("depth", TORCHVISION)
def test_torchvisions_variant_strides_in_the_3x3_and_projects_where_shapes_change(depth):
    net = by_name(f"imagenet-resnet{depth}-torchvision")
    assert net.facts.kind == "imagenet-resnet-torchvision"
    assert (parameters(net), round(macs(net) / 1e9, 2)) == TORCHVISION[depth]
    strides = {r.name: r.kind for r in audit(net) if r.name.startswith("stage3.block1")}
    strided = "stage3.block1.body.conv2" if depth >= 50 else "stage3.block1.body.conv1"
    assert [name for name, kind in strides.items() if kind == "conv 3x3 /2"] == [strided]
    assert strides["stage3.block1.shortcut.conv"] == "conv 1x1 /2"


@pytest.mark.parametrize("depth", [20, 50])
def test_the_paper_has_plain_imagenet_networks_of_18_and_34_layers_only(depth):
    with pytest.raises(InputError, match=f"18, 34, got {depth}; see table 2"):
        imagenet_plain(depth)


def test_the_stem_of_imagenet_networks_is_that_of_table_1():
    stem = imagenet_resnet(18).children
    assert list(stem)[:5] == ["conv", "bn", "relu", "maxpool", "stage1"]
    assert (stem["conv"].params["w"].shape, stem["conv"].stride, stem["conv"].pad) == (
        (7, 7, 3, 64),
        2,
        3,
    )
    assert (stem["maxpool"].size, stem["maxpool"].stride, stem["maxpool"].pad) == (3, 2, 1)


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_weighted_layers_are_counted_by_the_depth(depth):
    rows = audit(resnet(depth))
    assert sum(r.kind.startswith("conv") or r.kind == "linear" for r in rows) == depth
    assert [r.shape for r in rows if r.kind == "zero padding"] == [(16, 16, 32), (8, 8, 64)]


def test_the_receptive_field_grows_as_computed_by_hand():
    fields = {r.name: r.window for r in audit(resnet(8))}
    # 3x3 at 1 pixel a step three times, then the strided one still at 1, then at 2, at 2, at 4
    expected = {"conv": 3, "stage1.block1.body.conv2": 7, "stage2.block1.body.conv1": 9}
    expected |= {
        "stage2.block1.body.conv2": 13,
        "stage3.block1.body.conv1": 17,
        "stage3.block1.body.conv2": 25,
    }
    assert {name: fields[name] for name in expected} == {n: (s, s) for n, s in expected.items()}


def test_the_receptive_field_is_the_set_of_pixels_that_matter():
    net = resnet(8).astype("float64")
    field, _ = next(r.window for r in audit(net) if r.name == "stage1.block1.body.conv2")
    x = np.random.default_rng(0).standard_normal((1, 32, 32, 3))
    before = layer_outputs(net, x)["stage1.block1.body.conv2"][0, 16, 16]
    touched = np.zeros((32, 32), bool)
    for i in range(32):
        moved = x.copy()
        moved[0, i, 16] += 1
        touched[i, 16] = not np.array_equal(
            layer_outputs(net, moved)["stage1.block1.body.conv2"][0, 16, 16], before
        )
    assert touched.sum() == field


def test_the_audit_shows_every_layer_and_the_totals():
    text = table(resnet(20))
    assert "stage3.block1.shortcut" in text
    assert "269,722 parameters" in text
    assert "40,551,040 multiply-adds" in text
    assert "0.27M" in text


@pytest.mark.parametrize("depth", [8, 20])
def test_plain_is_residual_without_the_shortcuts(depth):
    a, b = plain(depth, rng=3), resnet(depth, rng=3)
    assert list(a.parameters()) == list(b.parameters())
    for name, p in a.parameters().items():
        np.testing.assert_array_equal(p, b.parameters()[name])
    blocks = [
        (type(p), type(r))
        for (_, p), (_, r) in zip(
            [n for n in a.named_layers() if isinstance(n[1], PlainBlock)],
            [n for n in b.named_layers() if isinstance(n[1], ResidualBlock)],
            strict=True,
        )
    ]
    assert len(blocks) == (depth - 2) // 2


def test_without_its_shortcut_a_residual_network_computes_what_its_plain_twin_does(rng):
    a, b = plain(8, rng=3), resnet(8, rng=3)
    for _, layer in b.named_layers():
        if isinstance(layer, ResidualBlock):
            layer.shortcut.forward = lambda x, train=False: np.float32(0)
    x = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(a.forward(x), b.forward(x))


def test_option_a_takes_every_second_pixel_and_appends_zero_channels(rng):
    x = rng.standard_normal((2, 6, 8, 16)).astype("float32")
    y = resnet(8).children["stage2"].children["block1"].shortcut.forward(x)
    assert y.shape == (2, 3, 4, 32)
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])
    assert not y[..., 16:].any()


def test_parameters_come_in_network_order_as_live_arrays():
    net = resnet(8, "B")
    names = list(net.parameters())
    assert names[:4] == ["conv.w", "bn.gamma", "bn.beta", "stage1.block1.body.conv1.w"]
    assert names[-2:] == ["fc.w", "fc.b"]
    block = [n for n in names if n.startswith("stage2.block1.")]
    assert [n.split(".", 2)[2] for n in block] == [
        "body.conv1.w", "body.bn1.gamma", "body.bn1.beta",
        "body.conv2.w", "body.bn2.gamma", "body.bn2.beta",
        "shortcut.conv.w", "shortcut.bn.gamma", "shortcut.bn.beta",
    ]  # fmt: skip
    net.parameters()["fc.b"][0] = 7
    assert net.forward(np.zeros((1, 32, 32, 3), "float32"))[0, 0] == 7


def test_initial_weights_have_he_variance_by_fan_out():
    w = Conv2d(64, 128, 3, rng=0).params["w"]
    assert w.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.01)
    assert abs(w.mean()) < 1e-3


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    a, b, c = (resnet(8, rng=s).parameters()["conv.w"] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    np.testing.assert_array_equal(a, resnet(8, rng=np.random.default_rng(1)).parameters()["conv.w"])


# ---------------------------------------------------------------------------------------- the state


def test_state_is_a_copy_and_load_state_restores_the_function(rng):
    net, x = resnet(8, rng=1), rng.standard_normal((4, 32, 32, 3)).astype("float32")
    net.forward(x, train=True)  # moves the running statistics
    state, before = net.state(), net.forward(x)
    assert not any(np.shares_memory(state[k], p) for k, p in net.parameters().items())
    kept = {name: value.copy() for name, value in state.items()}
    net.forward(x + 1, train=True)  # updates them, but not in the copy
    assert all(np.array_equal(kept[k], v) for k, v in state.items())
    other = resnet(8, rng=2)
    live = other.parameters()
    assert not np.array_equal(other.forward(x), before)
    np.testing.assert_array_equal(other.load_state(state).forward(x), before)
    np.testing.assert_array_equal(live["conv.w"], net.parameters()["conv.w"])


@pytest.mark.parametrize("other", [plain(14), resnet(8, "B"), resnet(14)])
def test_the_state_of_another_network_is_refused_and_changes_nothing(other):
    net = resnet(8)
    before = net.state()
    with pytest.raises(InputError, match="another network"):
        net.load_state(other.state())
    assert all(np.array_equal(before[k], v) for k, v in net.state().items())


def test_a_state_with_another_shape_is_refused():
    net = resnet(8)
    state = net.state() | {"fc.b": np.zeros(9)}
    with pytest.raises(InputError, match=r"fc\.b: expected shape \(10,\), got \(9,\)"):
        net.load_state(state)


def test_astype_reaches_every_array(rng):
    net = resnet(8, "B").astype("float64")
    assert {a.dtype.name for a in net.state().values()} == {"float64"}
    x = rng.standard_normal((2, 32, 32, 3))
    assert net.forward(x, train=True).dtype == np.float64
    net.backward(np.ones((2, 10)))
    assert {g.dtype.name for g in net.gradients().values()} == {"float64"}
    with pytest.raises(InputError, match="float16"):
        net.astype("float16")


def test_converting_a_network_drops_the_gradients(rng):
    net = resnet(8)
    net.forward(rng.standard_normal((2, 8, 8, 3)).astype("float32"), train=True)
    net.backward(np.ones((2, 10), "float32"))
    assert net.gradients()
    assert not net.astype("float64").gradients()


@pytest.mark.parametrize(
    "change",
    [lambda net: net.astype("float64"), lambda net: net.use("numba"), lambda net: net.forget()],
    ids=["astype", "use", "forget"],
)
def test_a_change_of_dtype_or_backend_and_forget_drop_what_forward_kept(change, rng):
    net = resnet(8)
    net.forward(rng.standard_normal((2, 8, 8, 3)).astype("float32"), train=True)
    with pytest.raises(InputError, match="every backward needs"):
        change(net).backward(np.ones((2, 10), "float32"))


def test_two_networks_on_two_backends_live_side_by_side():
    for backend in minires.ops.BACKENDS:
        net = resnet(8).use(backend)
        assert {layer.backend for _, layer in net.named_layers()} == {backend}
        assert net.ops is minires.get_ops(backend)
    with pytest.raises(InputError, match="backend"):
        resnet(8).use("tpu")


# --------------------------------------------------------------------------------------- the layers


def test_backward_without_a_training_forward_names_the_layer(rng):
    net, x = resnet(8), rng.standard_normal((2, 32, 32, 3)).astype("float32")
    with pytest.raises(InputError, match="resnet8 fc: every backward needs"):
        net.backward(np.ones((2, 10), "float32"))
    net.forward(x)
    with pytest.raises(InputError, match="every backward needs"):
        net.backward(np.ones((2, 10), "float32"))
    net.forward(x, train=True)
    net.backward(np.ones((2, 10), "float32"))
    with pytest.raises(InputError, match="every backward needs"):
        net.backward(np.ones((2, 10), "float32"))


def test_evaluation_between_forward_and_backward_does_no_harm(rng):
    net, x = resnet(8), rng.standard_normal((4, 32, 32, 3)).astype("float32")
    net.forward(x, train=True)
    expected = net.backward(np.ones((4, 10), "float32"))
    net.forward(x, train=True)
    net.forward(x[:1])
    np.testing.assert_array_equal(net.backward(np.ones((4, 10), "float32")), expected)


def test_evaluation_of_an_image_does_not_depend_on_its_neighbours(rng):
    net, x = resnet(8), rng.standard_normal((4, 32, 32, 3)).astype("float32")
    net.forward(x, train=True)
    np.testing.assert_allclose(net.forward(x)[:1], net.forward(x[:1]), rtol=1e-4, atol=1e-5)


def test_batch_norm_and_the_last_layer_begin_as_documented():
    norm, fc = BatchNorm(3), Linear(64, 1000, rng=0)
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)
    assert fc.params["w"].std() == pytest.approx(
        1 / 8, rel=0.02
    )  # of 64,000 draws: 0.3 % is one standard error
    assert not fc.params["b"].any()


def test_eps_is_added_to_the_variance_in_training_and_in_evaluation(rng):
    norm, x = BatchNorm(3, eps=0.5).astype("float64"), rng.standard_normal((4, 2, 2, 3))
    trained = norm.forward(x, train=True)
    np.testing.assert_allclose(
        trained, (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 0.5), rtol=1e-12
    )
    mean, var = norm.buffers["running_mean"], norm.buffers["running_var"]
    np.testing.assert_allclose(norm.forward(x), (x - mean) / np.sqrt(var + 0.5), rtol=1e-12)


def test_running_statistics_follow_with_the_unbiased_variance(rng):
    norm, x = BatchNorm(3, momentum=0.25), rng.standard_normal((4, 2, 2, 3)).astype("float32")
    norm.forward(x, train=True)
    flat = x.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(norm.buffers["running_mean"], 0.25 * flat.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        norm.buffers["running_var"], 0.75 + 0.25 * flat.var(axis=0, ddof=1), rtol=1e-5
    )


def test_training_batch_norm_on_a_single_value_is_refused():
    with pytest.raises(InputError, match="2 values"):
        BatchNorm(3).forward(np.zeros((1, 1, 1, 3), "float32"), train=True)


def test_recomputed_statistics_are_plain_averages_over_the_batches(rng):
    norm = BatchNorm(3)
    batches = [rng.standard_normal((8, 3, 3, 3)).astype("float32") + i for i in range(5)]
    recompute_statistics(norm, iter(batches))
    flat = [b.reshape(-1, 3).astype(float) for b in batches]
    np.testing.assert_allclose(
        norm.buffers["running_mean"], np.mean([f.mean(axis=0) for f in flat], axis=0), rtol=1e-5
    )
    expected = np.mean([f.var(axis=0, ddof=1) for f in flat], axis=0)
    np.testing.assert_allclose(norm.buffers["running_var"], expected, rtol=1e-5)
    assert norm.momentum == 0.1
    with pytest.raises(InputError):
        norm.backward(batches[0])


def test_recomputing_statistics_leaves_the_weights_alone(rng):
    net = resnet(8)
    before = {k: v.copy() for k, v in net.parameters().items()}
    recompute_statistics(net, [rng.standard_normal((4, 32, 32, 3)).astype("float32")])
    assert all(np.array_equal(before[k], v) for k, v in net.parameters().items())


def test_layer_outputs_are_in_order_and_leave_no_trace(rng):
    net, x = resnet(8), rng.standard_normal((2, 32, 32, 3)).astype("float32")
    seen = layer_outputs(net, x)
    assert list(seen)[:3] == ["conv", "bn", "relu"]
    assert list(seen)[-1] == "fc"
    np.testing.assert_array_equal(seen["fc"], net.forward(x))
    assert all("forward" not in vars(layer) for _, layer in net.named_layers())


@pytest.mark.parametrize(
    "walk",
    [lambda net, x: recompute_statistics(net, [x]), layer_outputs],
    ids=["recompute_statistics", "layer_outputs"],
)
def test_a_refused_image_leaves_momenta_and_layers_as_they_were(walk):
    net = resnet(8)
    norms = [layer for _, layer in net.named_layers() if isinstance(layer, BatchNorm)]
    norms[3].momentum = 0.3
    before = [norm.momentum for norm in norms]
    with pytest.raises(InputError, match="channels"):
        walk(net, np.zeros((2, 8, 8, 4), "float32"))
    assert [norm.momentum for norm in norms] == before
    assert all("forward" not in vars(layer) for _, layer in net.named_layers())


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("depth", [0, 7, 9, 21, 20.0, "20", -4])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(InputError, match="6n"):
        resnet(depth)


@pytest.mark.parametrize(
    "name", ["", "lenet5", "resnet", "plain20A", "resnet20D", "resnet21", "imagenet-resnet20"]
)
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(InputError, match=r"expected|must be"):
        by_name(name)


@pytest.mark.parametrize(
    ("name", "title"),
    [("plain20", "plain20"), ("plain-20", "plain20"), ("resnet56", "resnet56"),
     ("resnet20B", "resnet20B"), ("resnet-20A", "resnet20"), (" resnet56 ", "resnet56"),
     ("imagenet-resnet18", "imagenet-resnet18"), ("imagenet-resnet18A", "imagenet-resnet18"),
     ("imagenet-resnet18C", "imagenet-resnet18C")],
)  # fmt: skip
def test_networks_are_found_by_name(name, title):
    assert by_name(name).title == title


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(InputError, match="A, B or C"):
        resnet(8, "D")
    with pytest.raises(InputError, match="A, B or C"):
        imagenet_resnet(18, "D")


def test_images_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match="channels"):
        resnet(8).forward(np.zeros((1, 32, 32, 4), "float32"))
    with pytest.raises(InputError, match="N, H, W, C"):
        resnet(8).forward(np.zeros((32, 32, 3), "float32"))


def test_linear_and_relu_have_names_in_a_network():
    net = resnet(8)
    assert isinstance(net.children["fc"], Linear)
    assert isinstance(net.children["relu"], ReLU)
    assert repr(net) == "<resnet8: 75,290 parameters, numpy>"


def test_a_state_of_text_is_refused_and_changes_nothing():
    net, before = resnet(8, rng=0), resnet(8, rng=0).state()
    with pytest.raises(InputError, match=r"fc\.b: expected real numbers"):
        net.load_state({**resnet(8, rng=1).state(), "fc.b": np.full(10, "a")})
    assert all(np.array_equal(a, before[name]) for name, a in net.state().items())


def test_a_gradient_that_is_no_array_is_refused(rng):
    net = resnet(8)
    logits = net.forward(rng.standard_normal((2, 8, 8, 3)).astype(np.float32), train=True)
    with pytest.raises(InputError, match="must be a NumPy array, got list"):
        net.backward(logits.tolist())
