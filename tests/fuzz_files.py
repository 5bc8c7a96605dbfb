"""Damage the files of runs and of CIFAR-10 at random, and read them: run this by hand.

    python tests/fuzz_files.py --cases 10000 --seed 0

Each case takes one whole file, changes it in one of several ways, and reads it as the
commands do. It fails on an exception other than `InputError`, a message of several lines or with
control characters, a hang, more than 1 GB of memory, a file written outside the case's folder, and
changed weights or images that are read without a message. The last lines are a table of counts. The
exit code is 1 if a case failed; `--only KIND:WAY:NUMBER` repeats one.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import ClassVar

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from minires import InputError
from minires.data import cifar10, shapes10
from minires.lab import claims, commands, plots, recorded, report, tables, verdicts
from minires.lab.verdicts import Verdict
from minires.runs import checkpoint
from minires.runs.config import Config
from minires.runs.record import read_record
from minires.runs.run_folder import RunFolder
from minires.train.loop import initial_net, train
from minires.train.state import TrainingRun

SECONDS = 20  # after which a case hangs
LARGEST = 1e9  # bytes
DRAWN = 100  # each way draws one case in 100, which takes a second
STRANGE = ["", "\x1b]0;title\x07", "a\n(i)  held", "\u202eright to left", "\ud800", "../../evil"]
FOREIGN = [None, True, -1, 2.5, float("nan"), "text", [], {}, [[1]], {"a": 1}, *STRANGE]
HUGE = [10**30, -(10**30), 2**63, 2**63 - 1, 10**400, 1e308, float("inf"), 10**4200]


# ------------------------------------------------------------------------------- changed values


def places(value, here=()):
    """Paths to every entry of nested dicts and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*here, key)
        if isinstance(entry, (dict, list)):
            yield from places(entry, (*here, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def with_entry(value, path, new):
    """A copy with another entry at a path."""
    value = pickle.loads(pickle.dumps(value))
    at(value, path[:-1])[path[-1]] = new
    return value


def any_place(value, rng):
    found = [*places(value)]
    return found[rng.integers(len(found))]


def swapped(value, rng):
    """Exchange two entries."""
    a, b = any_place(value, rng), any_place(value, rng)
    if a[: len(b)] == b or b[: len(a)] == a:  # one holds the other
        return with_entry(value, a, "swapped")
    first, second = at(value, a), at(value, b)
    return with_entry(with_entry(value, a, second), b, first)


def nested(value, rng):
    """Wrap an entry into many lists or dicts."""
    path = any_place(value, rng)
    wrapped = at(value, path)
    for _ in range(rng.choice([1, 15, 300])):
        wrapped = {"x": wrapped} if rng.random() < 0.5 else [wrapped]
    return with_entry(value, path, wrapped)


def missing(value, rng):
    """Take an entry out."""
    value = pickle.loads(pickle.dumps(value))
    path = any_place(value, rng)
    del at(value, path[:-1])[path[-1]]
    return value


def duplicated(value, rng):
    """Copy an entry under another name, or a line a second time."""
    path = any_place(value, rng)
    value = pickle.loads(pickle.dumps(value))
    holder = at(value, path[:-1])
    if isinstance(holder, list):
        holder.insert(path[-1], holder[path[-1]])
    else:
        holder[f"{path[-1]}2"] = holder[path[-1]]
    return value


def chosen(choices):
    return lambda value, rng: with_entry(
        value, any_place(value, rng), choices[rng.integers(len(choices))]
    )


VALUES = {
    "swapped fields": swapped,
    "nesting": nested,
    "missing": missing,
    "duplicated": duplicated,
    "huge numbers": chosen(HUGE),
    "foreign type": chosen(FOREIGN),
    "control characters": chosen(STRANGE),
}


# -------------------------------------------------------------------------------- changed bytes


def cut(content, rng):
    return content[: rng.integers(len(content) + 1)]


def flipped(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 8])):
        # half of them at the beginning, where headers are
        end = len(content) if rng.random() < 0.5 else min(len(content), 400)
        content[rng.integers(end)] ^= 1 << rng.integers(8)
    return bytes(content)


def re_encoded(content, rng):
    way = rng.integers(4)
    if way == 0:
        return b"\xef\xbb\xbf" + content
    if way == 1:
        return content.decode("latin1").encode("utf-16")
    if way == 2:
        return content.replace(b"\n", b"\r\n")
    i = rng.integers(len(content))
    return content[:i] + b"\xff\xfe\x80" + content[i:]


def doubled(content, rng):
    return content + content


def rubbish(content, rng):
    return rng.bytes(rng.integers(1, 2000))


def deep(content, rng):
    i = rng.integers(len(content)) if rng.random() < 0.5 else 0
    return content[:i] + rng.choice([b"[", b'{"a":', b"("]) * int(rng.choice([50, 100_000]))


BYTES = {
    "cut": cut,
    "bit flip": flipped,
    "encoding": re_encoded,
    "empty": lambda content, rng: b"",
    "doubled": doubled,
    "rubbish": rubbish,
    "deep brackets": deep,
}


# ------------------------------------------------------------------------------ kinds of files


class Json:
    """config.json and claims.json."""

    load = staticmethod(json.loads)

    @staticmethod
    def dump(value):
        return json.dumps(value).encode()

    own: ClassVar = {}


class Lines(Json):
    """metrics.jsonl."""

    @staticmethod
    def load(content):
        return [*map(json.loads, content.splitlines())]

    @staticmethod
    def dump(value):
        return "".join(json.dumps(line) + "\n" for line in value).encode()


class Safetensors(Json):
    """Checkpoints and weights: the values are those of the header."""

    @staticmethod
    def load(content):
        (size,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + size])
        return {"header": header, "body": content[8 + size :].decode("latin1")}

    @staticmethod
    def dump(value):
        header = json.dumps(value.get("header")).encode()
        body = value.get("body")
        body = body.encode("latin1", "replace") if isinstance(body, str) else b""
        return struct.pack("<Q", len(header)) + header + body

    @staticmethod
    def dtype(content, rng):
        value = Safetensors.load(content)
        names = [name for name in value["header"] if name != "__metadata__"]
        for name in names if rng.random() < 0.5 else [rng.choice(names)]:
            kinds = ["I32", "U32", "F16", "BF16", "F8_E4M3", "F64", "BOOL", "C64", "X"]
            value["header"][name]["dtype"] = str(rng.choice(kinds))
        if rng.random() < 0.5:  # as files of the first version, which had no checksum
            value["header"].pop("__metadata__")
        return Safetensors.dump(value)

    @staticmethod
    def shape(content, rng):
        value = Safetensors.load(content)
        names = [name for name in value["header"] if name != "__metadata__"]
        entry = value["header"][rng.choice(names)]
        entry["shape"] = [
            entry["shape"][::-1],
            [int(np.prod(entry["shape"]))],
            [2**40, 2**40],
            [-1],
            entry["shape"] + [1],
        ][rng.integers(5)]
        return Safetensors.dump(value)

    @staticmethod
    def offsets(content, rng):
        value = Safetensors.load(content)
        names = [name for name in value["header"] if name != "__metadata__"]
        a, b = (value["header"][name] for name in rng.choice(names, 2, replace=False))
        a["data_offsets"], b["data_offsets"] = b["data_offsets"], a["data_offsets"]
        return Safetensors.dump(value)

    own: ClassVar = {"header dtype": dtype, "header shape": shape, "swapped arrays": offsets}


class Pickle(Json):
    """A file of CIFAR-10's python layout."""

    @staticmethod
    def load(content):
        value = pickle.loads(content, encoding="bytes")
        return {key.decode(): v for key, v in value.items()}

    @staticmethod
    def dump(value):
        coded = {k.encode("utf-8", "replace"): v for k, v in value.items()}
        return pickle.dumps(coded, protocol=2 + len(repr(value)) % 4)

    @staticmethod
    def dtype(content, rng):
        value = Pickle.load(content)
        dtype = rng.choice(["f8", "O", "i8", "U5", "M8[s]", "c16", "u1", ">u2"])
        return Pickle.dump(value | {"data": value["data"].astype(dtype)})

    @staticmethod
    def shape(content, rng):
        value = Pickle.load(content)
        data = value["data"]
        shapes = [data.T, data[:5], data.ravel(), data[None], np.zeros((0, 3072), np.uint8)]
        return Pickle.dump(value | {"data": shapes[rng.integers(5)]})

    own: ClassVar = {"header dtype": dtype, "header shape": shape}


class Raw(Json):
    """A file of CIFAR-10's binary layout: it has no fields, so bytes are changed in blocks."""

    @staticmethod
    def block(content, rng):
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3073).copy()
        i, j = rng.integers(len(rows), size=2)
        way = rng.integers(4)
        if way == 0:
            rows[[i, j]] = rows[[j, i]]
        elif way == 1:
            rows[i, 0] = rng.integers(256)
        elif way == 2:
            rows[i] = rng.integers(0, 256, 3073)
        else:
            rows = rows[:-1]
        return rows.tobytes()

    own: ClassVar = {"blocks": block}


def ways(form):
    """Every way of changing a file of this form, by its name: bytes to bytes."""

    def of_values(change):
        return lambda content, rng: form.dump(change(form.load(content), rng))

    structured = {} if form is Raw else {n: of_values(change) for n, change in VALUES.items()}
    own: ClassVar = {name: getattr(way, "__func__", way) for name, way in form.own.items()}
    return BYTES | structured | own


# ---------------------------------------------------------------------------------- whole files

FILES = {
    "checkpoint": (Safetensors, checkpoint.NAME),
    "config": (Json, "config.json"),
    "metrics": (Lines, "metrics.jsonl"),
    "claims": (Json, verdicts.FILE),
    "weights": (Safetensors, checkpoint.WEIGHTS),
    "CIFAR pickle": (Pickle, "data_batch_1"),
    "CIFAR binary": (Raw, "data_batch_1.bin"),
}


class Whole:
    """Whole files of a short run and of a small CIFAR-10, and what they hold."""

    def __init__(self, folder):
        self.folder = folder
        self.data = shapes10.dataset(train=96, test=32)
        self.config = Config("plain8", "shapes10", 3, 4, eval_every=3, eval_images=8, bn_images=8)
        train(self.config, folder / "run", self.data)
        checkpoint.export_weights(folder / "run")
        held = {"i": Verdict(True, "5 %"), "ii": Verdict(None, "not now")}
        verdicts.write_verdicts(folder / "run", {"shapes10, quick": held})
        run = checkpoint.load(folder / "run")
        checkpoint.save(folder / "run", *run)  # now there is a previous one
        cifar10.RECORDS = 20
        rng = np.random.default_rng(1)
        for name in (cifar10.BINARY, cifar10.PYTHON):
            (folder / name).mkdir()
        for stem in cifar10.STEMS:
            rows = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
            rows[:, 0] %= 10
            (folder / cifar10.BINARY / f"{stem}.bin").write_bytes(rows.tobytes())
            batch = {b"data": rows[:, 1:].copy(), b"labels": [int(k) for k in rows[:, 0]]}
            (folder / cifar10.PYTHON / stem).write_bytes(pickle.dumps(batch, protocol=2))
        self.images = cifar10.read(folder / cifar10.BINARY).sha256
        (folder / cifar10.BINARY / cifar10.SEAL).write_text(self.images)
        self.weights = self.bits(checkpoint.load_weights(folder / "run"))
        self.run = TrainingRun(
            self.config, RunFolder(folder / "case"), self.data, initial_net(self.config)
        )

    @staticmethod
    def bits(state):
        return {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in state.items()}

    def source(self, kind):
        form, name = FILES[kind]
        folders = {Pickle: cifar10.PYTHON, Raw: cifar10.BINARY}
        return self.folder / folders.get(form, "run") / name


# ------------------------------------------------------------------------------------- readings


def read_checkpoint(whole, folder, draw):
    with contextlib.suppress(InputError):
        checkpoint.position(folder)
    whole.run.restore()
    assert whole.bits(whole.run.net.state()) == whole.weights, "other weights"
    assert whole.run.iteration == 3, "another position"


def read_weights(whole, folder, draw):
    for path in folder.glob("checkpoint*"):
        path.unlink()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        state = checkpoint.load_weights(folder)
    whole.run.net.load_state(state)
    if whole.bits(whole.run.net.state()) != whole.weights:
        assert notes, "other weights without a message"


def read_config(whole, folder, draw):
    record = read_record(folder)
    read_runs(whole, folder, draw)
    source = {"name": whole.data.name, "source": "", "sha256": whole.data.sha256}
    RunFolder(folder).acquire(whole.config, record.facts, whole.run.task.metrics, source)


def read_runs(whole, folder, draw):
    """Everything that commands print of a run."""
    runs = recorded.find_runs([folder])
    words = [tables.table(runs), tables.message(runs), tables.caption(runs)]
    words += [tables.evaluation_note(runs), *commands.commands(runs)]
    judged = claims.judge(runs)
    words.append(claims.text(judged))
    for text in words:
        assert text.replace("\n", "").isprintable(), f"control characters in {text!r}"
    if draw:
        report.page(runs, judged).encode()
        for kind in ("errors", "layers"):
            with contextlib.suppress(InputError):
                plots.render(plots.FIGURES[kind](runs), ".svg")


def read_claims(whole, folder, draw):
    found = verdicts.read_verdicts(folder)
    for title, rows in found.items():
        words = [title, *(f"{key} {verdict} {verdict.numbers}" for key, verdict in rows.items())]
        assert all(map(str.isprintable, words)), f"control characters in {words}"


def read_cifar(whole, folder, draw):
    found = cifar10.read(folder, trust=True)
    assert len(found.train) == 100
    assert found.name != cifar10.OFFICIAL or found.sha256 == whole.images, "forged"


READ = {
    "checkpoint": read_checkpoint,
    "config": read_config,
    "metrics": read_runs,
    "claims": read_claims,
    "weights": read_weights,
    "CIFAR pickle": read_cifar,
    "CIFAR binary": read_cifar,
}


# ---------------------------------------------------------------------------------------- cases


class Watch:
    """Notes files that are written outside the case's folder."""

    def __init__(self):
        self.allowed = None
        self.outside = []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.allowed is None:
            return
        if event == "open":
            path, _, flags = arguments
            written = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path = arguments[0] if arguments else None
            written = event in ("os.mkdir", "os.rename", "os.remove", "os.system", "os.exec")
        if not written or isinstance(path, int) or str(path) == os.devnull:
            return
        if self.allowed not in Path(os.path.abspath(os.fsdecode(path))).parents:
            self.outside.append(f"{event} {path}")


def hang(*_):
    raise TimeoutError(f"more than {SECONDS} seconds")


def one(whole, watch, kind, way, number, seed):
    """Run one case; returns "read", "refused", or "FAILED: reason"."""
    rng = np.random.default_rng([seed, *kind.encode(), *way.encode(), number])
    source = whole.source(kind)
    content = ways(FILES[kind][0])[way](source.read_bytes(), rng)
    case = whole.folder / "case"
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(source.parent, case)
    (case / source.name).write_bytes(content)
    watch.allowed = case
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore", UserWarning)  # our notes; others are errors
            READ[kind](whole, case, draw=number % DRAWN == 0)
        result = "read"
    except InputError as e:
        fine = str(e).isprintable() and len(str(e)) < 2000
        result = "refused" if fine else f"FAILED: message {str(e)[:300]!r}"
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        result = f"FAILED: {type(e).__name__}: {str(e)[:300]} ({where})"
    finally:
        signal.alarm(0)
        watch.allowed = None
    if watch.outside:
        result = f"FAILED: wrote {watch.outside.pop()}"
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > LARGEST:
        result = f"FAILED: more than {LARGEST:.0e} bytes of memory"
    return result


def cases(count, only):
    """Kind, way and number of each case; every kind has every way about as often."""
    if only:
        kind, way, number = only.split(":")
        return [(kind, way, int(number))]
    pairs = [(kind, way) for kind, (form, _) in FILES.items() for way in ways(form)]
    return [(*pairs[i % len(pairs)], i // len(pairs)) for i in range(count)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="KIND:WAY:NUMBER")
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, hang)
    warnings.simplefilter("error")
    counts, failures = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        whole, watch = Whole(Path(folder)), Watch()
        for kind, way, number in cases(asked.first + asked.cases, asked.only)[asked.first :]:
            result = one(whole, watch, kind, way, number, asked.seed)
            word, _, reason = result.partition(":")
            counts[kind, way, word] += 1
            if reason:
                failures[kind, reason.strip()[:160]] += 1
                if failures[kind, reason.strip()[:160]] == 1:
                    print(f"{kind}:{way}:{number} {reason}", flush=True)
    for kind, way in dict.fromkeys(key[:2] for key in sorted(counts)):
        row = [counts[kind, way, word] for word in ("read", "refused", "FAILED")]
        print(f"{kind:13} {way:20}" + "".join(f"{n:7}" for n in row))
    totals = [sum(n for key, n in counts.items() if key[2] == w) for w in ("read", "refused")]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(
        f"seed {asked.seed}, cases {asked.first} to {asked.first + sum(counts.values())}: "
        f"{totals[0]} read, {totals[1]} refused, {sum(failures.values())} FAILED; "
        f"{memory:.0f} MB at most"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
