"""Studies of lessons 10 and 12: features, fine-tuning, effective receptive fields."""

import json
from pathlib import Path

import numpy as np
import pytest

from minires import InputError, resnet
from minires.data import scenes
from minires.lab.studies import features, receptive, transfer
from minires.layers.base import layer_outputs
from minires.layers.core import recompute_statistics
from minires.nets.audit import audit
from minires.nets.registry import by_name

LESSONS = Path(__file__).parents[1] / "lessons"


@pytest.fixture
def images(rng):
    return rng.standard_normal((12, 16, 16, 3)).astype(np.float32)


# --------------------------------------------------------------------------------------- features


def test_features_of_a_stage_are_its_map_averaged_over_pixels(images):
    net = resnet(8, rng=0)
    found = features.stage_features(net, images, batch_size=5)
    assert {name: a.shape for name, a in found.items()} == {
        "stage1": (12, 16),
        "stage2": (12, 32),
        "stage3": (12, 64),
    }
    outputs = layer_outputs(net, images)
    for name, a in found.items():
        # batches of 5 and of 12 images may add in different orders
        np.testing.assert_allclose(a, outputs[name].mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    logits = found["stage3"] @ net.parameters()["fc.w"] + net.parameters()["fc.b"]
    np.testing.assert_allclose(logits, net.forward(images), rtol=1e-4, atol=1e-5)


def test_a_network_without_stages_has_no_features(images):
    with pytest.raises(InputError, match=r"no stages .* give a plain or residual"):
        features.stage_features(by_name("alexnet-cifar", rng=0), images)


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_the_classifier_solves_the_equation_of_its_docstring(rng, penalty):
    x, labels = 3 + 2 * rng.standard_normal((30, 5)), rng.integers(0, 4, 30)
    probe = features.fit(x, labels, 4, penalty)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    target = np.eye(4)[labels]
    w = np.linalg.solve(z.T @ z + penalty * 30 * np.eye(5), z.T @ (target - target.mean(axis=0)))
    np.testing.assert_allclose(probe.w, w, rtol=1e-10, atol=1e-12)
    assert np.array_equal(probe(x), (z @ w + target.mean(axis=0)).argmax(axis=1))
    assert probe.error(x, labels) == (probe(x) != labels).mean()


def test_the_penalty_is_the_best_for_images_left_out(rng):
    z = rng.standard_normal((20, 6))
    labels = (z[:, :3] + rng.standard_normal((20, 3))).argmax(axis=1)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    target = np.eye(3)[labels]

    def left_out(penalty):
        """Squared error of N fits, each with an offset of its own and without one image."""
        total = 0.0
        for i in range(20):
            others = np.delete(np.hstack([np.ones((20, 1)), z]), i, axis=0)
            squares = others.T @ others + penalty * 20 * np.diag([0.0] + [1.0] * 6)
            w = np.linalg.solve(squares, others.T @ np.delete(target, i, axis=0))
            total += ((target[i] - np.hstack([1, z[i]]) @ w) ** 2).sum()
        return total

    best = min(features.PENALTIES, key=left_out)
    assert features.fit(z, labels, 3).penalty == best
    assert best not in (features.PENALTIES[0], features.PENALTIES[-1])


def test_a_constant_feature_does_no_harm(rng):
    x, labels = rng.standard_normal((30, 3)), np.arange(30) % 2
    with_constant = np.hstack([x, np.full((30, 1), 7.0)])
    a, b = (features.fit(z, labels, 2, 0.1) for z in (x, with_constant))
    np.testing.assert_allclose(b.w[:3], a.w, rtol=1e-10)
    assert not b.w[3].any()


def test_errors_fall_with_labels_and_repeat_with_the_seed(rng):
    x = rng.standard_normal((400, 8))
    labels = (x[:, :4].argmax(axis=1)).astype(np.int64)
    sets = (x[:300], labels[:300], x[300:], labels[300:])
    options = {"counts": (10, 300), "draws": 4, "classes": 4}
    errors = features.errors_by_labels(*sets, **options)
    assert errors.shape == (2, 4)
    assert errors[0].mean() > errors[1].mean()
    assert np.ptp(errors[1]) == 0  # all labels: every draw has the same images
    assert np.array_equal(errors, features.errors_by_labels(*sets, **options))


# ------------------------------------------------------------------------------------ fine-tuning


def test_landscapes_are_drawn_from_the_generator(rng):
    images, labels = transfer.landscapes(6, np.random.default_rng(1), size=16)
    again, _ = transfer.landscapes(6, np.random.default_rng(1), size=16)
    other, _ = transfer.landscapes(6, np.random.default_rng(2), size=16)
    assert (images.shape, images.dtype) == ((6, 16, 16, 3), np.uint8)
    assert set(labels) <= set(range(len(scenes.CLASSES)))
    assert np.array_equal(images, again)
    assert not np.array_equal(images, other)


def test_fine_tuning_leaves_frozen_parts_and_learns_with_the_rest(images):
    net, labels = resnet(8, rng=0), np.arange(12) % 3
    before = {name: a.copy() for name, a in net.state().items()}
    losses = transfer.fine_tune(
        net, images, labels, steps=12, lr=0.05, batch_size=6, frozen=("conv", "bn", "stage1")
    )
    assert losses[-3:].mean() < losses[:3].mean()
    changed = {name for name, a in net.state().items() if not np.array_equal(a, before[name])}
    assert changed == {n for n in before if not n.startswith(("conv.", "bn.", "stage1."))}


def test_an_earlier_task_is_tested_with_its_own_last_layer_and_statistics(images):
    net, labels = resnet(8, rng=0), np.arange(12) % 3
    transfer.with_statistics_of(net, images)
    head = {name: a.copy() for name, a in net.state().items()}
    labels = net.forward(images).argmax(axis=1)  # the earlier task is what the network says now
    net.load_state({**head, "fc.w": -head["fc.w"], "conv.w": 2 * head["conv.w"]})
    recompute_statistics(net, [images + 3])
    spoilt = {name: a.copy() for name, a in net.state().items()}
    assert transfer.error(net, images, labels) > 0.5
    # in front of batch norm the length of the filters does not count: nothing was forgotten
    assert transfer.error_with_head(net, head, images, labels, images) == 0
    assert all(np.array_equal(a, spoilt[name]) for name, a in net.state().items())


# ------------------------------------------------------------------------------- receptive fields


def test_no_pixel_outside_the_receptive_field_has_influence(rng):
    net = resnet(8, rng=0)
    window = next(row.window for row in reversed(audit(net)) if row.name.startswith("stage1"))
    x = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
    power = receptive.influence(net, "stage1", x, rng=0)
    rows = np.flatnonzero(power.sum(axis=1))
    assert (rows[-1] - rows[0] + 1, window[0]) == (7, 7)
    assert rows.mean() == 16  # about the unit in the middle
    assert np.isclose(power.sum(), 1)


def test_the_square_holds_the_share_and_the_next_smaller_one_does_not(rng):
    power = np.zeros((21, 21))
    power[10, 10], power[9, 10], power[11, 10], power[10, 5], power[10, 15] = 6, 1, 1, 1, 1
    assert [receptive.side_of(power, share) for share in (0.5, 0.7, 0.9)] == [1, 3, 11]


@pytest.mark.parametrize(("part", "words"), [("stage9", "no part"), ("fc", "no map")])
def test_a_part_without_a_map_is_refused(part, words, images):
    with pytest.raises(InputError, match=words):
        receptive.influence(resnet(8, rng=0), part, images[:2], rng=0)


# ----------------------------------------------------------------------------------------- record


def test_the_record_of_lesson_12_is_of_the_weights_that_lie_beside_it():
    import hashlib

    import record_transfer

    record = json.loads(record_transfer.RECORD.read_text(encoding="utf-8"))
    for name, file in record_transfer.SOURCES.items():
        assert record["weights"][name] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert set(record["copy"]) == set(record_transfer.OTHERS)
    ways = {"published", "as it is", "statistics recomputed", *record_transfer.WAYS}
    for name, row in record["copy"].items():
        skipped = () if name == "resnet20" else record_transfer.ONLY_RESNET20
        assert set(row) == ways - set(skipped)
    for sources in record["features"].values():
        assert set(sources) == {"shapes", "photographs", "nothing"}
        for stages in sources.values():
            for errors in stages.values():
                assert np.shape(errors) == (len(record_transfer.COUNTS), record_transfer.DRAWS)
