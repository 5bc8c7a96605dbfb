"""Trained weights on test images: errors, errors by class, confusion; and what a user types."""

import json

import numpy as np
import pytest
from PIL import Image

from minires import InputError, data, resnet
from minires.cli import normalising
from minires.data import ArraySplit
from minires.exchange import names, torch_files, weights
from minires.lab import evaluation, plots
from minires.nets import registry

CLASSES = tuple("abcdefg")

CONVERT = ("weights", "convert", "net", "--net", "resnet8", "--out")


def split_of(labels):
    labels = np.array(labels)
    return ArraySplit(np.arange(len(labels))[:, None], labels)


def scores_by_hand(*rows):
    """A `predict` that returns row i for image i."""
    scores = np.array(rows, float)
    return lambda images: scores[images[:, 0]]


SCORES = (
    (9, 1, 0, 0, 0, 0, 0),  # a: right
    (7, 6, 5, 4, 3, 2, 1),  # b: second
    (6, 6, 6, 6, 6, 5, 0),  # f: sixth
    (7, 6, 5, 4, 3, 2, 1),  # e: fifth
    (0, 0, 1, 0, 0, 0, 0),  # c: right
)
LABELS = (0, 1, 5, 4, 2)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_errors_are_those_counted_by_hand(batch_size):
    seen = []
    found = evaluation.evaluate(
        scores_by_hand(*SCORES), split_of(LABELS), CLASSES, batch_size, seen.append
    )
    assert sum(seen) == found.images == 5
    assert found.top1_error == pytest.approx(3 / 5)
    assert found.top5_error == pytest.approx(1 / 5)
    assert found.error_by_class == {
        **dict.fromkeys("ac", 0), **dict.fromkeys("bef", 1), **dict.fromkeys("dg"),
    }  # fmt: skip
    expected = np.zeros((7, 7), int)
    for true, predicted in ((0, 0), (1, 0), (5, 0), (4, 0), (2, 2)):
        expected[true, predicted] += 1
    np.testing.assert_array_equal(found.confusion, expected)
    assert found.to_json()["confusion"] == expected.tolist()


def test_five_classes_or_fewer_have_no_top_5_error():
    scores = scores_by_hand(*[row[:5] for row in SCORES])
    found = evaluation.evaluate(scores, split_of((0, 1, 4, 4, 2)), CLASSES[:5])
    assert found.top5_error is None
    assert "top-5" not in evaluation.table(found)


def test_the_table_begins_with_the_largest_error_and_ends_with_the_totals():
    found = evaluation.evaluate(scores_by_hand(*SCORES), split_of(LABELS), CLASSES)
    lines = evaluation.table(found).splitlines()
    assert lines[1].split() == ["b", "100.00"]
    assert lines[-1] == "5 images: top-1 error 60.00 %, top-5 error 20.00 %"


def test_other_classes_and_no_images_are_refused():
    with pytest.raises(InputError, match="tells 7 classes apart, and the data have 3"):
        evaluation.evaluate(scores_by_hand(*SCORES), split_of([0]), CLASSES[:3])
    with pytest.raises(InputError, match="got none"):
        evaluation.evaluate(scores_by_hand(*SCORES), split_of([]), CLASSES)


@pytest.mark.parametrize("classes", [2, 10, 60])
def test_the_figure_names_the_commonest_mistake_and_is_legible(tmp_path, classes):
    confusion = np.diag(np.full(classes, 6))
    confusion[1, 0] = 4
    named = tuple(f"class {k}" for k in range(classes))
    figure = evaluation.confusion_figure(
        evaluation.Evaluation(named, confusion, 0), "resnet8", "shapes10"
    )
    assert "resnet8 mistakes class 1 for class 0 most often: 40 %" in " ".join(
        figure.get_suptitle().split()
    )
    texts = [t.get_fontsize() for axes in figure.axes for t in axes.texts]
    assert min(texts, default=10) >= 10
    assert len(texts) == (classes**2 if classes <= evaluation.MOST_NUMBERS else 0)
    plots.save(figure, tmp_path / "confusion.png")


def test_a_network_without_a_mistake_is_said_to_make_none():
    whole = evaluation.Evaluation(("a", "b"), np.diag([2, 3]), 0)
    title = evaluation.confusion_figure(whole, "resnet8", "shapes10").get_suptitle()
    assert title == "resnet8 makes no mistake"


# ------------------------------------------------------------------------------- what users type


@pytest.fixture
def typed(run_cli, shapes, monkeypatch, tmp_path):
    """Commands on a small shapes10, with a file of weights of a ResNet-8."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setattr(data.shapes10, "dataset", lambda *a, **k: shapes)
    (tmp_path / "net").write_bytes(weights.to_bytes(resnet(8, rng=4)))
    return lambda *words: run_cli(*words)


def test_the_command_prints_what_the_library_counts(typed, shapes, tmp_path):
    words = ("evaluate", "resnet8", "--weights", "net", "--dataset", "shapes10", "--quiet")
    code, out, _ = typed(*words, "--out", "confusion.png", "--json")
    printed = json.loads(out)
    net = resnet(8, rng=4)
    expected = evaluation.evaluate(
        evaluation.single_view(net, shapes.prepare), shapes.test, shapes.classes
    )
    assert code == 0
    assert printed["confusion"] == expected.confusion.tolist()
    assert (printed["net"], printed["normalise"]) == ("resnet8", "per-pixel-mean")
    with Image.open("confusion.png") as image:
        assert min(image.size) > 1000
    code, out, _ = typed(*words)
    assert f"top-1 error {100 * expected.top1_error:.2f} %" in out


def test_the_normalisation_is_that_of_the_file_unless_one_is_typed(typed, shapes):
    convert = (*CONVERT, "file.pt")
    assert typed(*convert, "--normalise", "imagenet")[0] == 0
    words = ("evaluate", "resnet8", "--dataset", "shapes10", "--quiet", "--json", "--weights")
    told = json.loads(typed(*words, "file.pt")[1])
    asked = json.loads(typed(*words, "net", "--normalise", "imagenet")[1])
    other = json.loads(typed(*words, "file.pt", "--normalise", "per-pixel-mean")[1])
    assert told["normalise"] == asked["normalise"] == "imagenet"
    assert told["confusion"] == asked["confusion"] != other["confusion"]


def test_a_mean_and_a_deviation_in_the_file_are_used_unless_another_one_is_typed(
    typed, shapes, tmp_path
):
    own = {"mean": [0.9, 0.1, 0.5], "deviation": [0.05, 0.6, 2.0]}
    (tmp_path / "own").write_bytes(weights.to_bytes(resnet(8, rng=4), pictures=own))
    words = ("evaluate", "resnet8", "--dataset", "shapes10", "--quiet", "--json", "--weights")
    told = json.loads(typed(*words, "own")[1])

    def written_out(images, rng):
        return ((images / 255 - own["mean"]) / own["deviation"]).astype(np.float32)

    expected = evaluation.evaluate(
        evaluation.single_view(resnet(8, rng=4), written_out), shapes.test, shapes.classes
    )
    assert told["normalise"] == "file"
    assert told["confusion"] == expected.confusion.tolist()
    asked = json.loads(typed(*words, "own", "--normalise", "per-pixel-mean")[1])
    usual = json.loads(typed(*words, "net")[1])
    assert asked["confusion"] == usual["confusion"] != told["confusion"]
    assert asked["normalise"] == "per-pixel-mean"


# what a file says, the names in it, its network, what is typed -> how pictures are normalised
RULE = [
    ({}, "torchvision", "imagenet-resnet18", None, "imagenet"),
    ({}, "timm", "vgg16", None, "imagenet"),
    ({}, "torchvision", "resnet20", None, None),  # torchvision has no such network
    ({}, "akamaster", "resnet20", None, None),
    ({}, "akamaster", "resnet20", "per-channel-mean", "per-channel-mean"),
    ({}, "minires", "resnet20", None, "per-pixel-mean"),  # a run's
    ({"normalise": "unknown"}, "minires", "resnet20", None, None),
    ({"normalise": "unknown"}, "minires", "resnet20", "imagenet", "imagenet"),
    ({"normalise": "per-channel-mean"}, "timm", "vgg16", None, "per-channel-mean"),
    ({"normalise": "imagenet"}, "akamaster", "resnet20", "per-pixel-mean", "per-pixel-mean"),
    ({"mean": [0.5, 0.5, 0.5]}, "akamaster", "resnet20", None, "file"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "style", "net", "asked", "expected"), RULE)
def test_a_normalisation_is_typed_or_said_by_the_file_or_known_of_its_library_or_asked_for(
    said, style, net, asked, expected, tmp_path
):
    about = {"names": style, "net": net, **said}
    if expected:
        assert normalising.chosen(about, asked, tmp_path) == expected
        return
    with pytest.raises(InputError, match=r"does not say how .* give --normalise per-pixel-mean"):
        normalising.chosen(about, asked, tmp_path)


def test_numbers_without_training_images_are_those_of_the_file_or_of_imagenet(tmp_path):
    about = {"names": "torchvision", "net": "imagenet-resnet18"}
    found = normalising.numbers(about, None, tmp_path)
    np.testing.assert_allclose(found.mean / 255, (0.485, 0.456, 0.406), rtol=1e-6)
    with pytest.raises(InputError, match="does not say which mean"):
        normalising.numbers(about, "per-pixel-mean", tmp_path)


@pytest.fixture
def foreign(typed, tmp_path):
    """A file of another program, under names of no library, that says nothing of its pictures."""
    state = names.exported(resnet(8, rng=4), "akamaster")
    (tmp_path / "foreign.pth").write_bytes(torch_files.to_bytes(state, {}))


@pytest.mark.usefixtures("foreign")
def test_every_command_refuses_weights_whose_normalisation_nobody_says(typed, tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "grey.png")
    for words in (
        ("evaluate", "resnet8", "--dataset", "shapes10"),
        ("classify", "resnet8", "grey.png"),
        ("train", "resnet8", "--dataset", "shapes10", "--head", "new", "--iterations", 2),
    ):
        code, _, err = typed(*words, "--weights", "foreign.pth")
        assert code == 2
        assert "foreign.pth does not say how its pictures are normalised" in err
        assert "--normalise" in err
        assert len(err.strip().splitlines()) == 1
    code, out, _ = typed(
        "evaluate", "resnet8", "--dataset", "shapes10", "--weights", "foreign.pth",
        "--normalise", "imagenet",
    )  # fmt: skip
    assert code == 0
    assert out.splitlines()[-1] == "normalised by: imagenet"


@pytest.mark.usefixtures("foreign")
def test_a_converted_file_says_what_was_typed_or_that_nobody_knows(typed):
    convert = ("weights", "convert", "foreign.pth", "--net", "resnet8", "--out", "a.safetensors")
    code, out, _ = typed(*convert)
    assert code == 0
    assert "store it with --normalise" in out
    evaluate = ("evaluate", "resnet8", "--dataset", "shapes10", "--weights", "a.safetensors")
    code, _, err = typed(*evaluate)
    assert (code, "does not say how" in err) == (2, True)
    code, out, _ = typed(*convert, "--normalise", "per-channel-mean")
    assert (code, "note:" in out) == (0, False)
    assert json.loads(typed(*evaluate, "--json")[1])["normalise"] == "per-channel-mean"


def test_names_of_a_library_do_not_make_our_weights_those_of_the_library(typed):
    typed(
        "weights", "convert", "net", "--net", "resnet8", "--names", "torchvision", "--out", "a.pth",
        "--to", "torch",
    )  # fmt: skip
    assert weights.read("a.pth").metadata["normalise"] == "per-pixel-mean"


@pytest.mark.parametrize("typed_mean", [None, "imagenet", "none"])
def test_an_exported_run_says_how_it_was_trained(typed, shapes, tmp_path, typed_mean):
    words = ("train", "resnet8", "--dataset", "shapes10", "--iterations", 1, "--eval-images", 8)
    words += ("--batch-size", 4, "--backend", "numpy", "--out", "run", "--quiet")
    mean = {None: (), "none": ("--no-mean",)}.get(typed_mean, ("--normalise", typed_mean))
    assert typed(*words, *mean)[0] == 0
    assert typed("export", "run")[0] == 0
    path = "run/weights.safetensors"
    words = ("evaluate", "resnet8", "--dataset", "shapes10", "--weights", path, "--json")
    code, out, err = typed(*words, "--quiet")
    assert code == 0, err
    net, _ = weights.load_network("resnet8", path)
    prepare = shapes.without_mean().prepare if typed_mean == "none" else shapes.prepare
    if typed_mean == "imagenet":
        prepare = shapes.with_images(None, "imagenet").prepare
    expected = evaluation.evaluate(
        evaluation.single_view(net, prepare), shapes.test, shapes.classes
    )
    assert json.loads(out)["confusion"] == expected.confusion.tolist()
    words = {None: "per-pixel-mean", "none": "file"}
    assert json.loads(out)["normalise"] == words.get(typed_mean, typed_mean)


def test_a_file_can_be_looked_at(typed):
    code, out, _ = typed("weights", "inspect", "net")
    assert code == 0
    assert "bn.beta" in out
    assert "network: resnet8" in out
    code, out, _ = typed("weights", "inspect", "net", "--json")
    found = json.loads(out)
    assert (found["nets"], found["kind"]) == (["resnet8"], "safetensors")
    assert found["arrays"]["fc.w"] == {"shape": [64, 10], "dtype": "float32"}


def test_labels_are_stored_and_must_match(typed, tmp_path):
    convert = (*CONVERT, "file.pt", "--labels", "list")
    (tmp_path / "list").write_text("\n".join(f"n{k} class {k}" for k in range(10)))
    assert typed(*convert)[0] == 0
    assert weights.read("file.pt").metadata["labels"][9] == "class 9"
    (tmp_path / "list").write_text("n0 cat\nn1 dog\n")
    code, _, err = typed(*convert)
    assert (code, "names 2 classes, expected 10" in err) == (2, True)


@pytest.mark.parametrize(
    ("out", "options", "kind"),
    [
        ("a.safetensors", (), "safetensors"),
        ("a.pth", (), "torch zip"),
        ("a.PT", (), "torch zip"),
        ("a", ("--to", "torch"), "torch zip"),
        ("a.weights", ("--to", "safetensors"), "safetensors"),
        ("a.th", ("--to", "torch"), "torch zip"),
    ],
)
def test_what_is_written_follows_the_end_of_the_name(typed, out, options, kind):
    convert = (*CONVERT, out, *options)
    assert typed(*convert)[0] == 0
    assert weights.read(out).kind == kind


WRONG = {
    ("evaluate", "resnet8", "--weights", "nothing"): "found nothing",
    ("evaluate", "resnet14", "--weights", "net"): "give resnet8",
    ("evaluate", "resnet9", "--weights", "net"): "6n + 2",
    ("evaluate", "resnet8", "--weights", "net", "--normalise", "imagnet"): "did you mean imagenet",
    ("evaluate", "resnet8", "--weights", "net", "--zeros", "left"): "zeros must be one of end",
    ("evaluate", "resnet8", "--weights", "net", "--out", "x.gif"): "must end in .png",
    ("weights", "inspect", "text"): "not a file of weights",
    (*CONVERT, "net"): "choose another file",
    (*CONVERT, "y"): "expected a name that ends in",
    (*CONVERT, "y.bak"): "with --to safetensors",
    (
        *CONVERT,
        "y.onnx",
        "--to",
        "safetensors",
    ): "y.onnx is a name of onnx, and --to asks for safetensors",
    (*CONVERT, "y", "--to", "keras"): "--to must be",
    (*CONVERT, "y.pth", "--names", "x"): "names must be",
    (*CONVERT, "y.pth", "--labels", "no"): "--labels no cannot be read",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(typed, tmp_path, words):
    (tmp_path / "text").write_text("not weights")
    code, _, err = typed(*words, *(["--dataset", "shapes10"] if words[0] == "evaluate" else []))
    assert code == 2
    assert WRONG[words] in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("y*"))


def test_weights_for_other_classes_are_refused(typed, tmp_path):
    facts = registry.fit(registry.facts("resnet8"), (32, 32, 3), 3)
    (tmp_path / "three").write_bytes(weights.to_bytes(registry.make(facts)))
    words = ("evaluate", "resnet8", "--weights", "three", "--dataset", "shapes10")
    code, _, err = typed(*words)
    assert (code, "--head new" in err) == (2, True)
