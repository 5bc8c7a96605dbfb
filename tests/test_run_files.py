"""Files of a run without any training: lines of metrics, whole files, JSON, metrics of tasks."""

import errno
import json
import os
import stat
import sys
import warnings
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from safetensors.numpy import save as to_safetensors

from minires import InputError
from minires.nets import registry
from minires.runs import checkpoint, files, lease, run_folder
from minires.runs import metrics_file as measured
from minires.runs.config import Config
from minires.runs.metric import ERROR, Metric, is_number
from minires.runs.record import Record, read_record
from minires.runs.run import has_ended, read_run, run_folders, trained_folders
from minires.runs.run_folder import NoFolder, RunFolder
from minires.text import shown

TRAIN = {"kind": "train", "iteration": 3, "error": 0.5, "lr": 0.1, "seconds": 1.5}
EVAL = {"kind": "eval", "iteration": 3, "train_error": 0.5, "test_error": 0.6, "seconds": 2}
LAYERS = {
    "kind": "layers",
    "iteration": 3,
    "gradient_norm": {"conv": 1.0, "head": 2.0},
    "weight_norm": {"conv": 3.0, "head": 4.0},
    "response_std": {"conv": 5.0},
}
LOSS = Metric("loss")


def write(folder, *lines, end="\n"):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / measured.NAME).write_text("\n".join(texts) + end, encoding="utf-8")


# ---------------------------------------------------------------------------------- metrics.jsonl


@pytest.mark.parametrize("line", [TRAIN, EVAL, LAYERS], ids=lambda line: line["kind"])
def test_a_line_needs_each_of_its_numbers(line, tmp_path):
    write(tmp_path, line)
    assert measured.read(tmp_path) == [line]
    for key in line:
        write(tmp_path, {k: v for k, v in line.items() if k != key})
        assert measured.read(tmp_path) == [], key
        for wrong in ("1", None, [1], True, {"conv": "1"}):
            write(tmp_path, line | {key: wrong})
            assert measured.read(tmp_path) == [], (key, wrong)


def test_a_line_may_have_more_than_it_needs(tmp_path):
    write(tmp_path, TRAIN | {"waited": None})
    assert measured.read(tmp_path) == [TRAIN | {"waited": None}]


@pytest.mark.parametrize(("iteration", "kept"), [(0, 0), (1, 1), (5, 1), (6, 0), (3.0, 0)])
def test_iterations_count_from_1_to_the_last_of_the_run(iteration, kept, tmp_path):
    write(tmp_path, TRAIN | {"iteration": iteration})
    assert len(measured.read(tmp_path, last=5)) == kept


def test_an_iteration_fits_64_bits_and_earlier_ones_are_kept(tmp_path):
    lines = [TRAIN | {"iteration": i} for i in (2, 3, 2**63 - 1, 2**63)]
    write(tmp_path, *lines)
    assert measured.read(tmp_path) == lines[:3]
    measured.truncate(tmp_path, 3, ERROR, keep_copy=False)
    assert measured.read(tmp_path) == lines[:2]


def test_the_numbers_of_a_line_have_the_names_of_the_tasks_metric(tmp_path):
    write(tmp_path, TRAIN, EVAL)
    assert measured.read(tmp_path, LOSS) == []
    lines = [{**TRAIN, "loss": 1.0}, {**EVAL, "train_loss": 1.0, "test_loss": 2.0}]
    write(tmp_path, *lines)
    assert measured.read(tmp_path, LOSS) == lines


def test_lines_are_read_in_the_order_of_their_iterations(tmp_path):
    write(tmp_path, *(TRAIN | {"iteration": i} for i in (4, 1, 3)))
    assert [line["iteration"] for line in measured.read(tmp_path)] == [1, 3, 4]


def test_a_line_by_layer_has_the_layers_of_most_lines(tmp_path):
    other = LAYERS | {"gradient_norm": {"a": 1.0}, "weight_norm": {"a": 1.0}}
    narrow = LAYERS | {"response_std": {"head": 1.0}}
    write(tmp_path, other, LAYERS, TRAIN, LAYERS, narrow)
    assert measured.read(tmp_path) == [LAYERS, TRAIN, LAYERS]
    write(tmp_path, LAYERS | {"weight_norm": {"conv": 3.0}})
    assert measured.read(tmp_path) == []


@pytest.mark.parametrize(
    ("damaged", "end", "words"),
    [
        (0, "\n", None),
        (0, "\nnot a whole li", None),
        (1, "\n", "1 damaged line passed over"),
        (1, "\nnot a whole li", "1 damaged line passed over"),
        (2, "\n", "2 damaged lines passed over"),
    ],
)
def test_the_note_counts_damaged_lines_but_not_a_cut_last_one(damaged, end, words, tmp_path):
    write(tmp_path, TRAIN, *["rubbish"] * damaged, TRAIN, end=end)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        assert measured.read(tmp_path, note=True) == [TRAIN, TRAIN]
        assert [str(note.message).split(": ")[-1] for note in notes] == [words] * bool(words)
        measured.read(tmp_path)
    assert len(notes) == bool(words)  # only if asked for


def test_without_a_file_there_are_no_lines_and_a_folder_in_its_place_is_one_message(tmp_path):
    assert measured.read(tmp_path) == []
    measured.truncate(tmp_path, 3, ERROR, keep_copy=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / measured.NAME).mkdir()
    with pytest.raises(InputError, match=r"cannot be read: .*; it should be the file of a run's"):
        measured.read(tmp_path)


@pytest.mark.parametrize(
    ("lines", "end", "keep_copy", "kept"),
    [
        ([TRAIN], "\n", False, False),
        ([TRAIN], "\n", True, True),
        ([TRAIN], "\ncut", False, False),
        ([TRAIN, "rubbish"], "\n", False, False),  # as if it were cut
        (["rubbish", TRAIN, "rubbish"], "\n", False, True),
        ([""], "", True, False),  # nothing to keep
    ],
)
def test_dropped_lines_are_kept_beside_the_others_if_more_than_the_last_is_damaged_or_on_request(
    lines, end, keep_copy, kept, tmp_path
):
    write(tmp_path, *lines, TRAIN | {"iteration": 4}, end=end)
    if lines == [""]:
        (tmp_path / measured.NAME).write_bytes(b"")
    before = (tmp_path / measured.NAME).read_bytes()
    measured.truncate(tmp_path, 3, ERROR, keep_copy)
    assert (tmp_path / measured.NAME).read_text() == (
        json.dumps(TRAIN) + "\n" if TRAIN in lines else ""
    )
    copies = [p for p in tmp_path.iterdir() if p.name != measured.NAME]
    assert [(p.name, p.read_bytes()) for p in copies] == [("metrics.previous.jsonl", before)] * kept


def test_no_copy_of_metrics_replaces_another(tmp_path):
    for iteration in (1, 2, 3):
        write(tmp_path, TRAIN | {"iteration": iteration})
        measured.truncate(tmp_path, 0, ERROR, keep_copy=True)
    names = ("metrics.previous.jsonl", "metrics.previous1.jsonl", "metrics.previous2.jsonl")
    copies = [json.loads((tmp_path / name).read_text()) for name in names]
    assert [line["iteration"] for line in copies] == [1, 2, 3]


def test_appended_lines_are_read_as_they_were_and_forced_onto_the_disk(tmp_path, monkeypatch):
    for line in (TRAIN, EVAL):
        measured.append(tmp_path, line)
    assert measured.read(tmp_path) == [TRAIN, EVAL]
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(os.fstat(handle).st_ino))
    measured.sync(tmp_path)
    assert seen == [(tmp_path / measured.NAME).stat().st_ino]


# ------------------------------------------------------------------------------------- whole files


def test_a_file_has_the_old_content_or_the_new_and_no_part_of_it_is_left(tmp_path):
    path, seen = tmp_path / "a.txt", []
    files.write_whole(path, b"old")
    files.write_whole(path, b"new", before=lambda: seen.append(path.read_bytes()))
    assert (seen, path.read_bytes()) == ([b"old"], b"new")

    def full():
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(InputError, match=r"full\. Everything .* make room, .* command again"):
        files.write_whole(path, b"newer", before=full)
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "raise the limit of open files"),
        (errno.ENFILE, "raise the limit of open files"),
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "choose a folder that can be read and written"),
        (errno.ENOENT, "choose a folder that can be read and written"),
    ],
)
def test_the_advice_on_an_error_fits_its_cause(number, advice):
    error = OSError(number, os.strerror(number))
    assert files.advice(error).startswith(advice)
    assert files.cause(error) == os.strerror(number)
    assert files.cause(OSError("no number")) == "no number"


def test_a_file_is_on_the_disk_before_it_replaces_another_and_its_folder_after(
    tmp_path, monkeypatch
):
    seen, handles = [], []

    def synced(handle):
        handles.append(handle)
        status = os.fstat(handle)
        seen.append("folder" if stat.S_ISDIR(status.st_mode) else status.st_size)

    monkeypatch.setattr(os, "fsync", synced)
    files.write_whole(tmp_path / "a.txt", b"five!", before=lambda: seen.append("before"))
    assert seen == [5, "before", "folder"][: 2 if sys.platform == "win32" else 3]
    for handle in handles:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(handle)


@pytest.mark.parametrize(("platform", "tries"), [("win32", 5), ("linux", 1)])
def test_a_file_that_windows_holds_for_a_moment_is_replaced_after_it(
    platform, tries, tmp_path, monkeypatch
):
    pauses, failures = [], []

    def held(source, target):
        failures.append(target)
        if len(failures) < free:
            raise PermissionError(errno.EACCES, "held")

    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    monkeypatch.setattr(os, "replace", held)
    free = tries
    files.move(tmp_path / "a", tmp_path / "b")
    assert (len(failures), pauses) == (tries, [0.02, 0.1, 0.5, 2.0][: tries - 1])
    failures.clear()
    free = tries + 1
    with pytest.raises(PermissionError):
        files.move(tmp_path / "a", tmp_path / "b")
    assert len(failures) == tries
    failures.clear()
    free = 1
    files.move(tmp_path / "a", tmp_path / "b")
    assert len(failures) == 1


def test_a_deleted_working_folder_is_the_cause_of_a_missing_one(monkeypatch):
    def deleted():
        raise FileNotFoundError

    missing, forbidden = OSError(errno.ENOENT, "missing"), OSError(errno.EPERM, "forbidden")
    assert files.cause(missing) == "missing"
    monkeypatch.setattr(os, "getcwd", deleted)
    assert files.cause(missing) == "the working folder was deleted"
    assert files.advice(missing) == "change to a folder that exists (cd)"
    assert files.cause(forbidden) == "forbidden"
    assert files.advice(forbidden) == "choose a folder that can be read and written"


def test_a_folder_is_made_with_its_parents_and_may_exist(tmp_path):
    for _ in range(2):
        files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("open_", ["[", '{"a": '])
def test_json_of_12_levels_is_read_and_of_more_is_refused(open_):
    close = "]" if open_ == "[" else "}"
    levels = 11  # and the number inside
    assert files.parse_json(open_ * levels + "1" + close * levels)
    for more in (levels + 1, 100_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            files.parse_json(open_ * more + "1" + close * more)


def test_every_text_of_a_json_value_is_made_safe_to_print():
    value = {"a\n": ["\x1b", 1, None, {"b\r": True}], "c": 0.5}
    assert files.escaped(value) == {"a\\n": ["\\x1b", 1, None, {"b\\r": True}], "c": 0.5}


# ----------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, True), (0.5, True), (float("nan"), True), (float("inf"), True), (True, False),
     ("1", False), (None, False), ([1], False), (2**63 - 1, True), (1 - 2**63, True),
     (2**63, False), (-(2**63), False), (2**64, False)],
)  # fmt: skip
def test_a_number_is_one_that_float64_holds(value, number):
    assert is_number(value) is number


def test_a_metric_is_a_plain_number_to_be_lowered_unless_told_otherwise():
    values = {"unit": "", "scale": 1.0, "lower_is_better": True, "fraction": False}
    assert LOSS.to_json() == {"name": "loss"} | values
    assert (ERROR.name, ERROR.unit, ERROR.scale) == ("error", "%", 100.0)
    assert ERROR.lower_is_better
    assert ERROR.fraction
    assert Metric.from_json(ERROR.to_json()) == ERROR
    with pytest.raises(FrozenInstanceError):
        ERROR.name = "loss"


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": 1}, {"unit": 1}, {"scale": 0}, {"scale": -1}, {"scale": float("inf")},
     {"scale": float("nan")}, {"scale": "1"}, {"lower_is_better": 1}, {"fraction": 0}, {"x": 1}],
)  # fmt: skip
def test_what_is_no_metric_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        Metric.from_json(LOSS.to_json() | wrong)


# --------------------------------------------------------------------------------- records of runs

CONFIG = Config("resnet8", "shapes10", 6, batch_size=4)
FACTS = registry.facts("resnet8")
DATA = {"name": "shapes10", "source": "made", "sha256": "ab" * 32}


def written(folder, measured_in=(ERROR,), evaluated=None, **changes):
    """Write the record of a run that was evaluated at an iteration, without training it."""
    folder.mkdir(parents=True)
    values = Record(CONFIG, FACTS, measured_in, DATA, {"commit": "a"}, []).to_json() | changes
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    if evaluated:
        write(folder, EVAL | {"iteration": evaluated})
    return folder


def test_a_record_is_read_as_it_was_written(tmp_path):
    later = [{"iteration": i, "provenance": {"plugins": ["toys.py"]}} for i in (0, 5, 2**63 - 1)]
    metrics = (ERROR, LOSS)
    expected = Record(CONFIG, FACTS, metrics, DATA, {"commit": "a"}, later)
    assert read_record(written(tmp_path / "run", metrics, continued=later)) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": 5}, "expected an object with a config"),
        ({"metrics": []}, "it names no metric"),
        ({"metrics": [5]}, "expected an object, got 5"),
        ({"data": {"name": "", "sha256": "ab"}}, "name of the data is ''"),
        ({"data": {"name": "shapes10", "sha256": 5}}, "sha256 of the data is 5"),
        ({"data": {"name": "shapes10"}}, "'sha256' is missing"),
        ({"provenance": {"plugins": "toys.py"}}, "the plugins are 'toys.py'"),
        ({"provenance": {"plugins": [5]}}, "the plugins are [5]"),
        ({"network": FACTS.to_json() | {"name": "resnet14"}}, "net is resnet8"),
        ({"network": FACTS.to_json() | {"depth": 14}}, "facts are not those of resnet8"),
        ({"network": FACTS.to_json() | {"family": "plain"}}, "facts are not those of resnet8"),
        ({"network": FACTS.to_json() | {"input_shape": [32, 32]}}, "facts are not those of"),
        ({"continued": [{"iteration": -1, "provenance": {}}]}, "continued at iteration -1"),
        ({"continued": [{"iteration": 2**63, "provenance": {}}]}, "continued at iteration 922"),
        ({"continued": [{"iteration": True, "provenance": {}}]}, "continued at iteration True"),
    ],
)
def test_a_damaged_record_names_what_is_wrong_and_how_to_go_on(tmp_path, changes, words):
    with pytest.raises(InputError) as e:
        read_record(written(tmp_path / "run", **changes))
    assert "config.json is damaged (" in str(e.value)
    assert words in str(e.value)
    assert "run to train this run again" in str(e.value)


def test_a_folder_without_a_record_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(InputError, match=r"is not a run folder: it has no config\.json") as e:
            read_record(path)
        assert str(e.value).startswith(shown(path))


def test_a_record_that_cannot_be_read_is_one_message(tmp_path):
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match=r"config\.json cannot be read: .*; "):
        read_record(tmp_path)


def test_the_first_metric_of_a_record_is_the_one_that_runs_are_read_by(tmp_path):
    run = read_run(written(tmp_path / "run", (ERROR, LOSS), evaluated=6))
    assert run.metric == ERROR
    assert [line["iteration"] for line in run.evals] == [6]
    assert (run.train, run.layers) == ([], [])


def test_a_run_has_the_facts_of_its_network(tmp_path):
    run = read_run(written(tmp_path / "run"))
    assert (run.net, run.family, run.kind, run.depth) == ("resnet8", "resnet", "resnet", 8)
    assert run.facts == FACTS


def test_a_reader_is_told_of_damaged_lines_unless_it_asks_for_silence(tmp_path, recwarn):
    folder = written(tmp_path / "run", evaluated=6)
    write(folder, "rubbish", EVAL)
    read_run(folder, note=False)
    assert has_ended(folder) is False
    assert not recwarn
    with pytest.warns(UserWarning, match="1 damaged line passed over"):
        read_run(folder)


def test_a_run_has_ended_once_its_last_iteration_was_evaluated(tmp_path):
    assert has_ended(written(tmp_path / "whole", evaluated=6))
    assert not has_ended(written(tmp_path / "half", evaluated=3))
    assert not has_ended(written(tmp_path / "begun"))
    assert has_ended(tmp_path / "none") is False
    assert has_ended(written(tmp_path / "damaged", evaluated=6, data=[])) is False


def test_runs_are_found_by_their_own_folder_or_the_one_above_and_each_once(tmp_path):
    a, b, c = (written(tmp_path / name) for name in ("exp/b", "exp/a", "alone"))
    (tmp_path / "exp/notes").mkdir()
    assert run_folders([c, tmp_path / "exp"]) == [c, b, a]
    assert run_folders([a, tmp_path / "exp", c, a]) == [a, b, c]
    assert run_folders([tmp_path / "exp/notes"]) == []
    with pytest.raises(InputError, match=r"none: expected folders with config\.json and metrics"):
        run_folders([c, tmp_path / "none"])


def test_runs_with_weights_are_taken_before_those_without(tmp_path):
    a, b, c = (written(tmp_path / name) for name in "abc")
    assert trained_folders([tmp_path]) == [a, b, c]
    (b / checkpoint.WEIGHTS).write_bytes(b"")
    state = c / "generation-1"
    state.mkdir()
    (c / "lease-1.json").write_text("{}")
    (state / checkpoint.NAME).write_bytes(b"")
    assert trained_folders([tmp_path]) == [b, c]
    (a / "notes").mkdir()
    with pytest.raises(InputError, match=r"notes: expected folders with config\.json and metrics"):
        trained_folders([a / "notes"])


# ------------------------------------------------------------------------------------ run folders


def test_a_folder_that_cannot_be_locked_is_one_message_with_advice(tmp_path, monkeypatch):
    def fail(error):
        def acquire(lock):
            raise error

        monkeypatch.setattr(run_folder.FileLock, "acquire", acquire)

    folder = RunFolder(tmp_path / "run")
    advice = r"run cannot be locked \(.*an --out on a local disk"
    for error in (OSError(errno.ENOLCK, "no locks"), NotImplementedError("no locks")):
        fail(error)
        with pytest.raises(InputError, match=advice), folder.locked():
            pytest.fail("it is locked")


def test_a_run_that_a_sweep_holds_is_refused_and_one_given_back_is_moved_to_its_folder(tmp_path):
    path = tmp_path / "run"
    taken = lease.Leases(90.0, lambda: 0.0).take(path)
    leased = r"is leased to .* \(process \d+\) of a sweep; let it"
    with pytest.raises(InputError, match=leased), RunFolder(path).locked():
        pytest.fail("it is locked")
    state = path / "generation-1"
    state.mkdir(exist_ok=True)
    checkpoint.save(state, {}, {"iteration": 3})
    taken.release()
    with RunFolder(path).locked():
        assert checkpoint.position(path) == 3
        assert not state.exists()


def test_a_record_is_kept_for_the_same_run_and_replaced_if_nothing_of_another_is_left(tmp_path):
    folder = RunFolder(written(tmp_path / "run"))
    before = (folder.path / "config.json").read_bytes()
    assert folder.acquire(CONFIG, FACTS, (ERROR,), DATA) == CONFIG
    assert (folder.path / "config.json").read_bytes() == before
    other = replace(CONFIG, lr=0.2)
    assert folder.acquire(other, FACTS, (ERROR,), DATA) == other
    assert read_record(folder.path).config == other
    write(folder.path, EVAL)
    with pytest.raises(InputError, match=r"another run: lr 0\.2 there, 0\.1 asked for\. Choose"):
        folder.acquire(CONFIG, FACTS, (ERROR,), DATA)


def test_a_folder_of_other_data_is_refused_by_the_two_digests(tmp_path):
    folder = RunFolder(written(tmp_path / "run", evaluated=3))
    other = DATA | {"sha256": "0123456789abcdef" * 4}
    with pytest.raises(InputError, match="SHA-256 abababababab, now 0123456789ab; give the data"):
        folder.acquire(CONFIG, FACTS, (ERROR,), other)


@pytest.mark.parametrize(
    ("evaluated", "saved", "until", "position", "left"),
    [
        (None, None, None, 0, 6),
        (3, None, None, 0, 6),
        (6, None, None, 6, 0),
        (3, 4, None, 4, 2),
        (3, 6, None, 5, 1),  # the last evaluation is missing
        (6, 6, None, 6, 0),
        (3, None, 0.5, 3, 0),
        (3, 3, 0.5, 3, 0),
        (3, 3, 0.4, 3, 3),
    ],
)
def test_what_is_left_of_a_run_depends_on_its_checkpoint_and_its_evaluations(
    evaluated, saved, until, position, left, tmp_path
):
    config = replace(CONFIG, until=until).to_json()
    folder = RunFolder(written(tmp_path / "run", evaluated=evaluated, config=config))
    if saved:
        checkpoint.save(folder.path, {}, {"iteration": saved})
    assert (folder.position(), folder.left()) == (position, left)


def test_a_record_lists_who_trained_from_which_iteration_on(tmp_path, monkeypatch):
    folder = RunFolder(written(tmp_path / "run"))

    def told(commit, iteration):
        monkeypatch.setattr(run_folder, "provenance", lambda: {"commit": commit})
        folder.note_who_trains(iteration)
        record = read_record(folder.path)
        parts = [(part["iteration"], part["provenance"]["commit"]) for part in record.continued]
        return record.provenance["commit"], parts

    assert told("a", 2) == ("a", [])
    assert told("b", 3) == ("a", [(3, "b")])
    assert told("b", 4) == ("a", [(3, "b")])
    assert told("c", 5) == ("a", [(3, "b"), (5, "c")])
    assert told("a", 4) == ("a", [(3, "b"), (4, "a")])  # what c did is gone
    assert told("d", 0) == ("d", [])


def test_a_rank_that_keeps_nothing_has_no_checkpoint_and_writes_nothing(tmp_path):
    folder = NoFolder(tmp_path)
    with folder.locked():
        assert folder.acquire(CONFIG, FACTS, (ERROR,), DATA) == CONFIG
        folder.note_who_trains(3)
        folder.append(TRAIN)
        folder.save({}, {"iteration": 3})
    assert folder.load() is None
    assert folder.has_checkpoint() is False
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------ checkpoints


def test_a_flipped_bit_of_a_weight_is_noticed(tmp_path):
    checkpoint.save(tmp_path, {"w": np.arange(3.0)}, {"iteration": 1})
    path = tmp_path / checkpoint.NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged: its content has another SHA-256"):
        checkpoint.read(path)


@pytest.mark.parametrize("rubbish", [b"", b"x" * 1000, bytes(8), b"\xff" * 100])
def test_a_file_that_is_no_safetensors_file_is_no_checkpoint(tmp_path, rubbish):
    (tmp_path / checkpoint.NAME).write_bytes(rubbish)
    for ask in (checkpoint.load, checkpoint.position):
        with pytest.raises(InputError, match=r"is not a whole checkpoint .* away to start again"):
            ask(tmp_path)


def test_a_disk_that_fails_while_a_checkpoint_is_read_is_one_message(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, {"w": np.arange(3.0)}, {"iteration": 1})

    def fail(*args, **options):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(checkpoint, "safe_open", fail)
    with pytest.raises(InputError, match="Input/output error"):
        checkpoint.load(tmp_path)


def test_weights_alone_are_no_checkpoint_to_go_on_from(tmp_path):
    checkpoint.save(tmp_path, {"net/w": np.arange(3.0)}, {"iteration": 1})
    weights = checkpoint.export_weights(tmp_path, {"net": "resnet8", "source": "a lesson"})
    with checkpoint.safe_open(weights, framework="numpy") as f:
        about = f.metadata()
    assert (about["net"], about["source"]) == ("resnet8", "a lesson")
    weights.rename(tmp_path / checkpoint.NAME)
    with pytest.raises(InputError, match=r"is not a whole checkpoint \(KeyError: 'iteration'\)"):
        checkpoint.load(tmp_path)


def test_a_checkpoint_without_a_checksum_is_not_whole(tmp_path):
    content = to_safetensors({"w": np.arange(3.0)}, {"meta": '{"iteration": 1}'})
    (tmp_path / checkpoint.NAME).write_bytes(content)
    with pytest.raises(InputError, match=r"is not a whole checkpoint \(KeyError: 'sha256'\)"):
        checkpoint.load(tmp_path)
