"""Training on pictures: exact resume, plateaus, shards, the recipe; testing and classifying."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minires import InputError, resnet
from minires.cli import classify, names
from minires.cli import train as train_commands
from minires.data import image_folder, scale_and_crop, scenes, seeds
from minires.data.normalisation import Normalisation, imagenet_normalisation
from minires.exchange import weights as exchange
from minires.lab import recipes
from minires.layers import Conv2d, Dropout, GlobalAvgPool, Linear, ReLU
from minires.nets import registry
from minires.nets.freeze import freeze
from minires.nets.network import Facts, Network
from minires.optim import SGD
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.run import read_run
from minires.train import loop, shards, testing
from minires.train import state as run_state
from minires.train.loop import train
from minires.train.task import Classification


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    """Forty small scenes of two classes."""
    folder = tmp_path_factory.mktemp("pictures") / "scenes"
    for _ in scenes.write(folder, classes=2, per_class=20, size=24):
        pass
    return folder


@pytest.fixture
def found(scenes_folder):
    return image_folder.dataset(scenes_folder)


@pytest.fixture
def recipe(found):
    return Config(
        "resnet8",
        found.name,
        6,
        batch_size=4,
        eval_every=2,
        eval_images=4,
        bn_images=8,
        image_size=16,
        pca_colour=True,
        plateau=1,
        shards=2,
    )


class KilledError(Exception):
    """Stands for a kill: nothing is saved."""


def killed_at(iteration):
    def kill(progress):
        if progress.iteration == iteration:
            raise KilledError

    return kill


def bits(folder):
    arrays, meta = checkpoint.load(folder)
    return {k: a.tobytes() for k, a in arrays.items()}, meta["running_error"], meta.get("plateau")


def lines(folder):
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in m.items() if k not in ("seconds", "waited")} for m in found]


# ------------------------------------------------------------------------------------------ runs


def test_a_run_on_pictures_is_killed_and_resumed_to_the_same_bits(
    recipe, found, tmp_path, monkeypatch
):
    monkeypatch.setattr(run_state, "CHECKPOINT_SECONDS", 0.0)
    train(recipe, tmp_path / "whole", found)
    for iteration in (1, 4):
        with pytest.raises(KilledError):
            train(recipe, tmp_path / "killed", found, killed_at(iteration))
    train(recipe, tmp_path / "killed", found)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert read_run(tmp_path / "killed").facts.input_shape == (16, 16, 3)


@pytest.mark.parametrize("net", ["imagenet-resnet18"])
def test_an_imagenet_network_trains_on_scenes_and_resumes_to_the_same_bits(
    net, recipe, found, tmp_path, monkeypatch
):
    recipe = replace(recipe, net=net, iterations=2, image_size=32, shards=1, bn_images=4)
    train(recipe, tmp_path / "whole", found)
    monkeypatch.setattr(run_state, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KilledError):
        train(recipe, tmp_path / "killed", found, killed_at(1))
    monkeypatch.setattr(run_state, "CHECKPOINT_SECONDS", 1e9)
    train(recipe, tmp_path / "killed", found)
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_the_share_of_time_that_steps_wait_is_recorded_and_shown(
    scenes_folder, run_cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("train", "resnet8", "--dataset", scenes_folder, "--image-size", 16, "--iterations", 3)
    words += ("--batch-size", 4, "--eval-images", 4, "--backend", "numpy", "--out", "run")
    code, out, err = run_cli(*words, "--quiet", "--json")
    assert code == 0, err
    last = read_run(tmp_path / "run").train[-1]
    assert 0 <= last["waited"] <= last["seconds"]
    assert json.loads(out)["waited_share"] == last["waited"] / last["seconds"]
    code, out, _ = run_cli("resume", "run", "--data", scenes_folder)
    assert code == 0
    assert "Steps waited for pictures" in out
    code, _, err = run_cli("resume", "run")
    assert code == 2
    assert "--data FOLDER" in err


def test_a_stopped_run_says_where_its_pictures_are(recipe, found, tmp_path):
    import threading

    stop = threading.Event()
    stop.set()
    with pytest.raises(loop.Interrupted, match=f"--data {found.source}"):
        train(recipe, tmp_path, found, stop=stop)
    assert not [t for t in threading.enumerate() if t.name == "prefetch"]


# --------------------------------------------------------------------------------------- plateau


def test_a_run_divides_its_rate_after_epochs_without_a_better_test_error(
    recipe, found, tmp_path, monkeypatch
):
    monkeypatch.setattr(Classification, "evaluate", lambda *_: {"loss": 1.0, "error": 0.5})
    few = replace(found, train=image_folder.PictureSplit(
        found.train.folder, found.train.files[:16], found.train.labels[:16]
    ))  # fmt: skip
    recipe = replace(recipe, iterations=14, bn_images=0, shards=1)
    run = read_run(train(recipe, tmp_path, few))
    # an epoch has 4 steps: after the evaluations at 2 (the best), 6 and 10 the rate falls
    assert [line["lr"] for line in run.train] == pytest.approx(6 * [0.1] + 4 * [0.01] + 4 * [0.001])


# ---------------------------------------------------------------------------------------- shards


def net_without_norm():
    facts = Facts("bare", "bare", 2, (6, 6, 3), 3)
    rng = np.random.default_rng(0)
    conv = Conv2d(3, 4, 3, rng=rng)
    layers = {"conv": conv, "relu": ReLU(), "pool": GlobalAvgPool()}
    return Network(facts, **layers, fc=Linear(4, 3, rng=rng)).astype("float64")


class Gradients:
    """An optimizer that keeps the gradients of its step."""

    def step(self, gradients, lr):
        self.seen = {name: g.copy() for name, g in gradients.items()}


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    return rng.standard_normal((8, 6, 6, 3)), rng.integers(0, 3, 8)


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_without_batch_norm_parts_add_up_to_the_whole_batch(parts, batch):
    net, task, whole, sharded = net_without_norm(), Classification(), Gradients(), Gradients()
    expected = task.step(net, whole, batch, 0.1)
    seed = seeds(0, "layers", 0)
    found = shards.sharded_step(task, net, sharded, batch, 0.1, parts, seed)
    assert found == pytest.approx(expected, rel=1e-12)
    for name, g in whole.seen.items():
        np.testing.assert_allclose(sharded.seen[name], g, rtol=1e-12, atol=1e-15)


def test_each_part_has_batch_norms_statistics_of_its_own_and_gradients_are_added_in_order(batch):
    x, labels = np.random.default_rng(2).standard_normal((8, 8, 8, 3)), batch[1]
    nets = [resnet(8, rng=0).astype("float64") for _ in range(2)]
    found, task = Gradients(), Classification()
    shards.sharded_step(task, nets[0], found, (x, labels), 0.1, 4, seeds(0, "layers", 0))
    total = {}
    for start in (0, 2, 4, 6):
        one = Gradients()
        task.step(nets[1], one, (x[start : start + 2], labels[start : start + 2]), 0.1)
        total = {name: total.get(name, 0) + g / 4 for name, g in one.seen.items()}
    for name, g in found.seen.items():
        np.testing.assert_array_equal(g, total[name])


def test_running_statistics_are_averaged_in_the_order_of_the_parts_and_frozen_ones_keep_their_bits(
    batch,
):
    x, labels = np.random.default_rng(2).standard_normal((6, 8, 8, 3)), batch[1][:6]
    net = freeze(resnet(8, rng=0).astype("float64"), ["stage1"])
    start, task, total = net.state(), Classification(), {}
    for rows in ([0, 1], [2, 3], [4, 5]):
        one = freeze(resnet(8, rng=0).astype("float64"), ["stage1"])
        task.step(one, Gradients(), (x[rows], labels[rows]), 0.1)
        total = {name: total.get(name, 0) + value / 3 for name, value in one.state().items()}
    shards.sharded_step(task, net, Gradients(), (x, labels), 0.1, 3, seeds(0, "layers", 0))
    for name, value in net.state().items():
        frozen = np.array_equal(value, start[name])
        assert frozen == ("running" not in name or name.startswith("stage1"))
        if not frozen:
            np.testing.assert_array_equal(value, total[name])


def test_a_loss_that_is_not_finite_changes_no_weight(batch):
    net = net_without_norm()
    x = batch[0].copy()
    x[-1] = np.nan
    before = net.state()
    with pytest.raises(FloatingPointError):
        shards.sharded_step(
            Classification(), net, SGD(net.parameters()), (x, batch[1]), 0.1, 4, seeds(0, "a", 0)
        )
    assert all(np.array_equal(a, net.state()[name]) for name, a in before.items())


def test_each_part_draws_numbers_of_its_own_that_depend_on_the_seeds_alone(batch):
    images = tuple(np.concatenate([a[:4], a[:4]]) for a in batch)  # both halves are alike
    masks = []

    class Seen(Dropout):
        def mask(self, shape, dtype):
            masks.append(super().mask(shape, dtype).tobytes())
            return super().mask(shape, dtype)

    def drawn(parts, iteration):
        bare = net_without_norm()
        net = Network(bare.facts, drop=Seen(), **bare.children).astype("float64")
        masks.clear()
        seed = seeds(0, "layers", iteration)
        shards.sharded_step(Classification(), net, Gradients(), images, 0.1, parts, seed)
        return [*masks]

    first, second = drawn(2, 0)
    assert first != second
    assert drawn(2, 0) == [first, second]
    assert not {first, second} & {*drawn(2, 1)}
    net = Network(net_without_norm().facts, drop=Dropout()).reseed(seeds(0, "layers", 0))
    mask = net.children["drop"].mask(images[0].shape, np.dtype("float64"))
    assert drawn(1, 0) == [mask.tobytes()]  # with one part, as in any other step


def test_a_batch_that_parts_do_not_divide_is_refused(batch):
    net, drawn = net_without_norm(), seeds(0, "layers", 0)
    for parts in (0, 3, 16):
        with pytest.raises(InputError, match=f"must divide the batch of 8, got {parts}"):
            shards.sharded_step(Classification(), net, Gradients(), batch, 0.1, parts, drawn)


class Together:
    """One of two ranks in threads that exchange what they send."""

    size = 2

    def __init__(self, rank, sent, barrier):
        self.rank, self.sent, self.barrier = rank, sent, barrier

    def share(self, *message):
        self.sent[self.rank] = message
        self.barrier.wait(timeout=60)
        found = [*self.sent]
        self.barrier.wait(timeout=60)
        return found


@pytest.mark.parametrize("parts", [2, 3])
def test_two_ranks_take_the_step_that_one_takes_alone(parts, batch):
    x, labels = np.random.default_rng(2).standard_normal((6, 8, 8, 3)), batch[1][:6]

    def stepped(**ranks):
        net, found = resnet(8, rng=0).astype("float64"), Gradients()
        drawn = seeds(0, "layers", 0)
        task = Classification()
        measured = shards.sharded_step(task, net, found, (x, labels), 0.1, parts, drawn, **ranks)
        for name, g in net.gradients().items():
            np.testing.assert_array_equal(g, found.seen[name])
        bits = {name: a.tobytes() for name, a in (net.state() | found.seen).items()}
        return measured, bits

    sent, barrier = [None, None], threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        pair = [Together(rank, sent, barrier) for rank in range(2)]
        ours = [*pool.map(lambda rank: stepped(ranks=rank), pair)]
    assert ours == [stepped()] * 2


@pytest.mark.parametrize(
    ("parts", "ranks", "advice"),
    [
        (1, 2, "got --shards 1, of a batch of 6; start one rank, or begin a run with --shards 2"),
        (2, 3, "start 2 ranks or fewer, or begin a run with --shards 3"),
        (2, 4, "start 2 ranks or fewer, or begin a run with --shards 6"),
        (3, 7, "7 ranks need --shards 7 or more, got --shards 3, of a batch of 6; start 3 ranks"),
    ],
)
def test_more_ranks_than_parts_are_refused_with_what_would_do(parts, ranks, advice, batch):
    net, drawn, images = net_without_norm(), seeds(0, "layers", 0), (batch[0][:6], batch[1][:6])
    many = SimpleNamespace(size=ranks, rank=0)
    with pytest.raises(InputError) as e:
        shards.sharded_step(Classification(), net, None, images, 0.1, parts, drawn, many)
    assert advice in str(e.value)
    assert ("begin a run" in str(e.value)) == (ranks <= 6)
    shards.check_number(parts, parts, 6)


def test_parts_must_divide_the_batch(tiny, run_cli):
    with pytest.raises(InputError, match="shards must divide the batch size 4, got 3"):
        replace(tiny, shards=3)
    words = ("train", "resnet8", "--dataset", "shapes10", "--iterations", 2, "--shards", 3)
    code, _, err = run_cli(*words)
    assert code == 2
    assert "divide the batch size 128" in err


# ---------------------------------------------------------------------------------------- recipe


@pytest.mark.parametrize("net", ["imagenet-resnet18", "imagenet-resnet152", "imagenet-plain34"])
def test_networks_for_imagenet_have_the_recipe_of_section_3_4(net, found):
    facts = registry.facts(net)
    asked = recipes.filled_in(recipes.recipe_of(facts), {}, found)
    assert asked["batch_size"] == 256
    assert (asked["lr"], asked["milestones"], asked["iterations"]) == (0.1, (), 600_000)
    assert asked["pca_colour"]
    assert asked["plateau"]


def test_typed_milestones_replace_the_plateau_and_a_typed_plateau_the_milestones(found):
    asked = recipes.filled_in("imagenet", {"milestones": (5,)}, found)
    assert asked["plateau"] is None
    assert recipes.filled_in("cifar10", {"plateau": 2}, found)["milestones"] == ()


def test_recipes_are_chosen_by_name(run_cli):
    assert recipes.recipe_of(registry.facts("resnet20")) == "cifar10"
    assert recipes.recipe_of(registry.facts("resnet20"), "imagenet") == "imagenet"
    assert tuple(recipes.RECIPES) == names.RECIPES
    code, _, err = run_cli("train", "resnet8", "--recipe", "imagenett")
    assert code == 2
    assert "did you mean imagenet" in err


def test_the_recipe_reaches_the_run(run_cli, scenes_folder, monkeypatch, tmp_path):
    seen = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_commands, "run_one", lambda config, *_: seen.append(config))
    monkeypatch.setattr("minires.cli.experiment.show", lambda *_, **__: {})
    words = ("train", "imagenet-resnet18", "--dataset", scenes_folder, "--batch-size", 6)
    code, _, err = run_cli(*words, "--backend", "numpy", "--image-size", 64)
    assert code == 0, err
    config = seen.pop()
    assert (config.batch_size, config.plateau, config.image_size) == (6, 5, 64)
    assert run_cli(*words, "--backend", "numpy")[0] == 0
    assert seen.pop().image_size == 224  # the network's own
    assert (config.eval_every, config.eval_images, config.warmup_lr) == (6, 4, None)


@pytest.mark.parametrize("recipe_name", recipes.RECIPES)
def test_a_recipe_measures_errors_on_as_many_images_as_there_are(recipe_name, found, shapes):
    for images in (found, shapes):
        chosen = recipes.filled_in(recipe_name, {"batch_size": 4}, images)
        assert chosen["eval_images"] == min(len(images.test), len(images.train) // 2)
        asked = recipes.filled_in(recipe_name, {"batch_size": 4, "eval_images": 7}, images)
        assert asked["eval_images"] == 7


def test_a_small_folder_trains_without_options_and_an_explicit_number_is_not_lowered(
    run_cli, scenes_folder, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    words = ("train", "resnet8", "--dataset", scenes_folder, "--iterations", 1, "--out", "run")
    words += ("--backend", "numpy", "--image-size", 16, "--batch-size", 8)
    code, out, err = run_cli(*words, "--quiet")
    assert code == 0, err
    assert "Errors are measured on 4 training and test images." in out
    config = read_run(tmp_path / "run").config
    assert (config["eval_images"], config["bn_images"]) == (4, 4)
    code, out, _ = run_cli("resume", "run", "--data", scenes_folder)
    assert (code, "Errors are measured" in out) == (0, False)
    code, _, err = run_cli(*words, "--eval-images", 5)
    assert code == 2
    assert "evaluation needs 10 training and 5 test images" in err


# --------------------------------------------------------------------------------------- testing


class Brightness:
    """A network whose first logit is the mean of its input's first channel."""

    def forward(self, x, train=False):
        return np.stack([x[..., 0].mean(axis=(1, 2)), np.zeros(len(x))], axis=1)


NOTHING = Normalisation(np.zeros(3, np.float32), np.ones(3, np.float32))


def first(z):
    """Probability of the first class for logits (z, 0)."""
    return 1 / (1 + np.exp(-z))


def test_ten_crops_are_averaged_as_probabilities(monkeypatch):
    monkeypatch.setattr(testing, "test_side", lambda size: 2)
    picture = np.zeros((2, 2, 3), np.uint8)
    picture[0] = 4  # the upper row; crops of one pixel: corners, and the centre at row 0
    expected = (6 * first(4.0) + 4 * first(0.0)) / 10
    found = testing.ten_crop(Brightness(), NOTHING, 1)([picture])
    np.testing.assert_allclose(found, [[expected, 1 - expected]], rtol=1e-6)


def test_the_centre_of_each_picture_is_classified():
    side = scale_and_crop.test_side(14)
    pictures = np.zeros((2, side, side, 3), np.uint8)
    pictures[0, 1:-1, 1:-1], pictures[1, 1:-1, 1:-1] = 3, 6
    assert side == 16
    found = testing.centre_crop(Brightness(), NOTHING, 14)([*pictures])
    np.testing.assert_allclose(found[:, 0], [first(3.0), first(6.0)], rtol=1e-6)


def test_the_usual_scales_are_those_of_section_3_4():
    seen = []

    class Spy(Brightness):
        def forward(self, x, train=False):
            seen.append(x.shape)
            return super().forward(x, train)

    testing.at_scales(Spy(), NOTHING)([np.zeros((2, 3, 3), np.uint8)])
    assert seen == [(2, side, side * 3 // 2, 3) for side in (224, 256, 384, 480, 640)]


def test_scales_are_averaged_over_whole_pictures(monkeypatch):
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, :3] = 6  # the mean is 3 at every size
    found = testing.at_scales(Brightness(), NOTHING, (2, 4))([picture, picture[:, :3]])
    np.testing.assert_allclose(found[:, 0], [first(3.0), first(6.0)], rtol=1e-6)


def test_the_fully_convolutional_form_is_the_linear_layer_averaged_over_places():
    net = net_without_norm().astype("float32")
    picture = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    body = net.children["relu"].forward(net.children["conv"].forward(NOTHING(picture[None])))
    linear = net.children["fc"]
    places = body @ linear.params["w"] + linear.params["b"]  # (1, 7, 10, 3)
    mirrored = testing.softmax(net.forward(NOTHING(picture[None, :, ::-1])))
    expected = (testing.softmax(places.mean(axis=(1, 2))) + mirrored) / 2
    found = testing.at_scales(net, NOTHING, (9,))([picture])
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_an_ensemble_averages_the_probabilities_of_its_networks():
    one, two = np.array([[0.2, 0.8]]), np.array([[0.6, 0.4]])
    both = testing.ensemble([lambda images: one, lambda images: two])
    np.testing.assert_allclose(both([None]), [[0.4, 0.6]])
    with pytest.raises(InputError, match="probabilities of one shape"):
        testing.average([one, np.ones((1, 3))])
    with pytest.raises(InputError, match="to average, got"):
        testing.average([])


# -------------------------------------------------------------------------------------- classify


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a resnet8 for two classes, with what they need of their pictures."""
    path = tmp_path_factory.mktemp("weights") / "resnet8.safetensors"
    net = registry.make(registry.fit(registry.facts("resnet8"), (16, 16, 3), 2), rng=3)
    about = {"mean": [0.5, 0.4, 0.3], "deviation": [0.5, 0.5, 0.5], "image_size": 16}
    path.write_bytes(exchange.to_bytes(net, pictures=about | {"labels": ["beach", "city"]}))
    return path


def test_pictures_are_classified_as_their_preparation_written_out(run_cli, file, scenes_folder):
    files = sorted((scenes_folder / "val").rglob("*.jpg"))
    code, out, err = run_cli("classify", "resnet8", "--weights", file, *files, "--json")
    assert code == 0, err
    answers = json.loads(out)
    assert [answer["file"] for answer in answers] == [str(path) for path in files]
    net, _ = exchange.load_network("resnet8", file)
    for path, answer in zip(files, answers, strict=True):
        square = scale_and_crop.centre_of(path, 16).astype(np.float32)
        x = (square / 255 - (0.5, 0.4, 0.3)) / 0.5
        expected = testing.softmax(net.forward(x[None].astype(np.float32)))[0]
        assert dict(answer["top"]) == pytest.approx(
            {"beach": expected[0], "city": expected[1]}, abs=1e-5
        )
        assert answer["top"][0][1] >= answer["top"][1][1]


def test_the_likeliest_classes_are_shown_with_bars(run_cli, file, scenes_folder):
    picture = scenes_folder / "val/beach/beach-0009.jpg"
    code, out, _ = run_cli("classify", "resnet8", "--weights", file, picture)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == str(picture)
    assert len(lines) == 3
    assert classify.bars([("a", 0.75), ("bb", 0.1)]).splitlines() == [
        "  a   ######################  75.0 %",
        "  bb  ###                     10.0 %",
    ]


def test_a_table_names_the_classes_of_weights(run_cli, file, scenes_folder, tmp_path):
    picture = scenes_folder / "val/beach/beach-0009.jpg"
    table = tmp_path / "labels.txt"
    table.write_text("n1 the sea side\nn2 a town\n")
    words = ("classify", "resnet8", "--weights", file, picture, "--labels", table)
    assert "the sea side" in run_cli(*words)[1]
    table.write_text("n1 one\n")
    code, _, err = run_cli(*words)
    assert code == 2
    assert "names 1 classes, and the network has 2" in err


def test_a_folder_is_evaluated_by_one_view_ten_crops_and_scales(
    run_cli, tmp_path, scenes_folder, found
):
    net = registry.make(registry.fit(registry.facts("resnet8"), (32, 32, 3), 2), rng=3)
    path = tmp_path / "resnet8.safetensors"
    path.write_bytes(exchange.to_bytes(net, pictures={"image_size": 32, "normalise": "imagenet"}))
    paths, labels = found.test[np.arange(4)]
    norm = imagenet_normalisation()
    expected = {
        (): testing.centre_crop(net, norm, 32),
        ("--ten-crop",): testing.ten_crop(net, norm, 32),
        ("--scales", "32,40"): testing.at_scales(net, norm, (32, 40)),
    }
    words = ("evaluate", "resnet8", "--weights", path, "--dataset", scenes_folder, "--json", "-q")
    for options, predict in expected.items():
        code, out, err = run_cli(*words, *options)
        assert code == 0, err
        wrong = (predict(paths).argmax(axis=1) != labels).mean()
        assert json.loads(out)["top1_error"] == pytest.approx(wrong)
    own = {"mean": [0.9, 0.1, 0.5], "deviation": [0.05, 0.6, 2.0], "image_size": 32}
    other = tmp_path / "other.safetensors"
    other.write_bytes(exchange.to_bytes(net, pictures=own))
    norm = Normalisation.of(own["mean"], own["deviation"])
    for options, test in ((), testing.centre_crop), (("--ten-crop",), testing.ten_crop):
        code, out, err = run_cli(*words[:3], other, *words[4:], *options)
        assert code == 0, err
        wrong = (test(net, norm, 32)(paths).argmax(axis=1) != labels).mean()
        assert json.loads(out)["top1_error"] == pytest.approx(wrong)
    for options, message in (
        (("--ten-crop", "--scales", "32"), "give one of them"),
        (("--scales", "8"), "from 32 to 2048"),
    ):
        code, _, err = run_cli(*words, *options)
        assert code == 2
        assert message in err


def test_an_exported_run_classifies_the_pictures_of_its_folder(
    recipe, found, tmp_path, run_cli, scenes_folder
):
    train(recipe, tmp_path, found)
    assert run_cli("export", tmp_path)[0] == 0
    net, about = exchange.load_network("resnet8", tmp_path / "weights.safetensors")
    assert about["labels"] == ["beach", "city"]
    assert (about["image_size"], about["normalise"]) == (16, "per-pixel-mean")
    prepare = found.with_images(16, "per-channel-mean").prepare
    path = scenes_folder / "val/city/city-0009.jpg"
    expected = testing.softmax(net.forward(prepare([path], None)))[0]
    words = ("classify", "resnet8", "--weights", tmp_path / "weights.safetensors", path, "--json")
    code, out, err = run_cli(*words)
    assert code == 0, err
    top = dict(json.loads(out)[0]["top"])
    assert [top["beach"], top["city"]] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"picture": "text.jpg"}, "text.jpg: expected a picture"),
        ({"net": "resnet14"}, "resnet8"),
        ({"options": ("--normalise", "imagnet")}, "did you mean imagenet"),
        ({"options": ("--normalise", "per-pixel-mean")}, "does not say which mean"),
        ({"options": ("--image-size", 2)}, "from 8 to 4096"),
        ({"weights": "none"}, "found nothing"),
    ],
)
def test_classify_refuses_bad_input_in_one_line(
    run_cli, file, scenes_folder, tmp_path, change, message
):
    (tmp_path / "text.jpg").write_text("no picture")
    picture = scenes_folder / "val/beach/beach-0009.jpg"
    picture = tmp_path / change["picture"] if "picture" in change else picture
    weights = tmp_path / change["weights"] if "weights" in change else file
    words = ("classify", change.get("net", "resnet8"), "--weights", weights, picture)
    code, _, err = run_cli(*words, *change.get("options", ()))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
