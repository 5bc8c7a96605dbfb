"""Files of weights are read without PyTorch: whole, cut short, of others, and made to do harm."""

import io
import itertools
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from minires import InputError, resnet
from minires.exchange import names, pickles, torch_files, weights
from minires.exchange.blank import blank
from minires.exchange.guess import guess
from minires.nets import registry

STATE = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "b.bias": np.array([0.5, -1.5]),
    "count": np.array(7),
}


@pytest.fixture
def pth(tmp_path):
    """Write a zip file of PyTorch with this program as its data.pkl."""

    def write(program, parts=None, compression=zipfile.ZIP_STORED):
        path = tmp_path / "weights.pth"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", program)
            for name, content in (parts or {"archive/data/0": bytes(4)}).items():
                archive.writestr(name, content)
        return path

    return write


def refused(path, match="refused, and nothing in it was run"):
    with pytest.raises(InputError, match=match) as error:
        weights.read(path)
    return str(error.value)


# --------------------------------------------------------------------------------- whole files


def test_a_file_in_pytorchs_format_comes_back_bit_for_bit(tmp_path):
    path = tmp_path / "state.pth"
    path.write_bytes(torch_files.to_bytes(STATE, {"net": "resnet20"}))
    state, metadata, kind = torch_files.read(path)
    assert (metadata, kind) == ({"net": "resnet20"}, "torch zip")
    assert list(state) == list(STATE)
    for name, a in STATE.items():
        np.testing.assert_array_equal(state[name], a, strict=True)


def test_the_same_weights_give_the_same_bytes():
    assert torch_files.to_bytes(STATE, {}) == torch_files.to_bytes(STATE, {})


def text(words):
    return b"X" + struct.pack("<I", len(words)) + words.encode()


def storage(key="0", numel=1, kind="FloatStorage"):
    head = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    return head + b"J" + struct.pack("<i", numel) + b"tQ"


def tensor(of=None, offset=0, shape=(1,), strides=(1,)):
    numbers = [
        b"(" + b"".join(b"J" + struct.pack("<i", v) for v in t) + b"t" for t in (shape, strides)
    ]
    window = b"J" + struct.pack("<i", offset) + b"".join(numbers)
    return b"ctorch._utils\n_rebuild_tensor\n(" + (of or storage()) + window + b"tR"


def state(*items):
    return b"\x80\x02}(" + b"".join(items) + b"u."


def legacy(program, keys, contents):
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    head = pickle.dumps(torch_files.MAGIC, 2) + pickle.dumps(1001, 2) + system
    numbers = b"".join(struct.pack("<q", len(c) // 4) + c for c in contents)
    return head + program + pickle.dumps(keys, 2) + numbers


def test_a_file_of_before_pytorch_1_6_is_read_with_tensors_that_share_a_storage(tmp_path):
    whole = np.arange(6, dtype=np.float32)
    shared = storage("5", 6)
    program = state(
        text("x"), tensor(shared, 0, (2, 3), (3, 1)), text("y"), tensor(shared, 1, (3, 2), (1, 3))
    )
    path = tmp_path / "old.th"
    # the last element of y would lie outside: it begins one later
    path.write_bytes(legacy(program, ["5"], [whole.tobytes()]))
    refused(path, "does not fit into its 6 numbers")
    program = state(
        text("x"), tensor(shared, 0, (2, 3), (3, 1)), text("y"), tensor(shared, 0, (3, 2), (1, 3))
    )
    path.write_bytes(legacy(program, ["5"], [whole.tobytes()]))
    found = weights.read(path)
    assert found.kind == "torch legacy"
    np.testing.assert_array_equal(found.state["x"], whole.reshape(2, 3))
    np.testing.assert_array_equal(found.state["y"], whole.reshape(2, 3).T)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("BFloat16Storage", b"\xc0\x3f", 1.5),
        ("HalfStorage", b"\x00\x3e", 1.5),
        ("DoubleStorage", struct.pack("<d", 1.5), 1.5),
        ("LongStorage", struct.pack("<q", -3), -3),
        ("BoolStorage", b"\x01", True),
    ],
)
def test_every_type_of_storage_is_read(pth, kind, raw, value):
    path = pth(state(text("x"), tensor(storage(kind=kind))), {"archive/data/0": raw})
    assert weights.read(path).state["x"].tolist() == [value]


@pytest.mark.parametrize("key", torch_files.WRAPPERS)
def test_a_state_is_found_inside_a_checkpoint(pth, key):
    inside = text(key) + b"}" + text("module.x") + tensor() + b"s"
    program = state(text("best_prec1") + b"G" + struct.pack(">d", 91.7), inside)
    assert list(weights.read(pth(program)).state) == ["x"]


def with_average(first, second):
    """A checkpoint with two sets of weights, x = 1 and x = 2."""
    parts = [text(key) + b"}" + text("x") + tensor(storage(str(i))) + b"s"
             for i, key in enumerate((first, second))]  # fmt: skip
    return state(*parts), [np.float32([v]).tobytes() for v in (1.0, 2.0)]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("first", "second", "used"),
    [
        ("model", "model_ema", "model"),
        ("model_ema", "model", "model"),
        ("state_dict", "state_dict_ema", "state_dict"),
        ("generator", "model", "model"),
    ],
)
def test_a_checkpoint_with_several_sets_of_weights_says_which_one_is_used(
    pth, tmp_path, first, second, used, old
):
    program, numbers = with_average(first, second)
    path = pth(program, {f"archive/data/{i}": n for i, n in enumerate(numbers)})
    if old:
        path.write_bytes(legacy(program, ["0", "1"], numbers))
    other = second if used == first else first
    match = (
        f"weights.pth holds several sets of weights: {used} is used, and {other} is not.*torch.save"
    )
    with pytest.warns(UserWarning, match=match):
        found = weights.read(path)
    assert found.state["x"].tolist() == [1.0 + (used == second)]


def test_one_set_of_weights_is_found_under_any_key_and_several_unknown_ones_are_refused(pth):
    program = state(text("backbone") + b"}" + text("x") + tensor() + b"s")
    assert list(weights.read(pth(program)).state) == ["x"]
    program, numbers = with_average("generator", "critic")
    refused(
        pth(program, {f"archive/data/{i}": n for i, n in enumerate(numbers)}),
        "several dicts of tensors: generator, critic",
    )


def test_storages_of_an_optimizer_are_skipped_in_an_old_file(tmp_path):
    inside = text("state_dict") + b"}" + text("x") + tensor(storage("2")) + b"s"
    program = state(text("momentum"), tensor(storage("1")), inside)
    path = tmp_path / "old.pth"
    numbers = [np.float32([v]).tobytes() for v in (1.0, 2.0)]
    path.write_bytes(legacy(program, ["1", "2"], numbers))
    assert weights.read(path).state["x"].tolist() == [2.0]


# ------------------------------------------------------------------------------ cut short, damaged


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, kind, share):
    path = tmp_path / "cut"
    content = weights.to_bytes(resnet(8), "torchvision", kind)
    path.write_bytes(content[: int(share * len(content))])
    refused(path, r"cannot be read|cut short|not a file of weights")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_an_old_file_that_is_cut_short_is_refused(tmp_path, share):
    program = state(text("x"), tensor(storage("0", 1000), 0, (1000,)))
    content = legacy(program, ["0"], [bytes(4000)])
    path = tmp_path / "cut.pth"
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "cut short|cannot be read")


def test_a_changed_byte_in_the_numbers_is_found(tmp_path):
    content = bytearray(torch_files.to_bytes({"x": np.ones(1000, np.float32)}, {}))
    content[content.index(np.ones(1000, np.float32).tobytes()) + 5] ^= 1
    path = tmp_path / "changed.pth"
    path.write_bytes(content)
    refused(path, "CRC")


@pytest.mark.parametrize("content", [b"", b"text", b"cos\nsystem\n(S'true'\ntR.", bytes(100)])
def test_other_files_are_refused_with_what_was_expected(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    refused(path, "expected safetensors")
    refused(tmp_path, "found a folder")
    refused(tmp_path / "nothing", "found nothing")


# -------------------------------------------------------------------------------- made to do harm


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def name(module, attribute):
    """STACK_GLOBAL, which may name what is inside an object."""
    return text(module) + text(attribute) + b"\x93"


TOUCH = b"X\x0c\x00\x00\x00touch harmed"
RUN = b"\x85R."
FUNCTION = b"ctorch._utils\n_rebuild_tensor_v2\n"
HARMFUL = {
    "reduce": pickle.dumps(Payload(os.system, "touch harmed"), 2),
    "protocol 0": pickle.dumps(Payload(os.system, "touch harmed"), 0),
    "protocol 4": pickle.dumps(Payload(os.system, "touch harmed"), 4),
    "eval": pickle.dumps(Payload(eval, "open('harmed', 'w')"), 2),
    "open": pickle.dumps(Payload(open, "harmed", "w"), 2),
    "runpy": b"\x80\x02crunpy\n_run_code\n" + TOUCH + RUN,
    "hub": b"\x80\x02ctorch.hub\nload\n" + TOUCH + RUN,
    "load": b"\x80\x02ctorch\nload\n" + TOUCH + RUN,
    "getattr": b"\x80\x02cbuiltins\ngetattr\n" + TOUCH + RUN,
    "pip": b"\x80\x02cpip\nmain\n" + TOUCH + RUN,
    "inside a function": b"\x80\x04" + name("torch._utils", "_rebuild_tensor.__globals__") + b".",
    "inside a class": b"\x80\x04" + name("collections", "OrderedDict.__init__.__globals__") + b".",
    "module in a name": b"\x80\x04" + name("torch._utils._rebuild_tensor_v2", "__class__") + b".",
    "inst": b"\x80\x02(" + TOUCH + b"ios\nsystem\n.",
    "obj": b"\x80\x02(cos\nsystem\n" + TOUCH + b"o.",
    "newobj": b"\x80\x02" + FUNCTION + b")\x81.",
    "newobj ex": b"\x80\x04" + FUNCTION + b")}\x92.",
    "extension": b"\x80\x02\x82\x01.",
    "state of a function": b"\x80\x02" + FUNCTION + b"}" + text("__code__") + text("x") + b"sb.",
    "slots of a function": b"\x80\x02" + FUNCTION + b"N}" + text("__defaults__") + b")s\x86b.",
    "call of a text": b"\x80\x02" + TOUCH + b")R.",
    "call of a type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "then broken": b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85R\xff\xff\xff",
    "after a state": state(text("x"), tensor())[:-1] + b"0cos\nsystem\n" + TOUCH + RUN,
    "persistent module": b"\x80\x02(" + text("module") + text("os") + b"tQ.",
    "persistent name": b"\x80\x02" + text("storage") + b"Q.",
    "buffer": b"\x80\x05\x97.",
}


@pytest.mark.parametrize("trick", HARMFUL)
@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_would_run_code_is_refused_and_nothing_runs(
    pth, tmp_path, monkeypatch, trick, old
):
    monkeypatch.chdir(tmp_path)
    program = HARMFUL[trick]
    path = pth(program)
    if old:
        path.write_bytes(legacy(program, [], []))
    before = {f: (f.__code__, f.__defaults__, dict(vars(f))) for f in pickles.CALLS.values()}
    refused(path)
    assert not (tmp_path / "harmed").exists()
    assert before == {
        f: (f.__code__, f.__defaults__, dict(vars(f))) for f in pickles.CALLS.values()
    }


@pytest.mark.parametrize(
    ("trick", "named"),
    [("eval", "__builtin__.eval"), ("hub", "torch.hub.load"), ("runpy", "runpy._run_code"),
     ("inside a function", "torch._utils._rebuild_tensor.__globals__"), ("inst", "INST"),
     ("newobj", "NEWOBJ"), ("extension", "EXT1"), ("state of a function", "not a dict"),
     ("call of a type", "not a function"), ("persistent module", "a storage")],
)  # fmt: skip
def test_the_refusal_names_what_the_file_asks_for(pth, trick, named):
    assert named in refused(pth(HARMFUL[trick]))


def test_keys_that_nest_are_refused_before_they_are_hashed(pth):
    assert "an item of a dict with a tuple" in refused(pth(HUGE["nested key"]))


def test_a_program_in_front_of_an_old_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "old.pth"
    path.write_bytes(HARMFUL["reduce"] + legacy(state(text("x"), tensor()), ["0"], [bytes(4)]))
    refused(path)
    assert not (tmp_path / "harmed").exists()


HUGE = {
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "shape": state(text("x"), tensor(shape=(2**30, 2**30), strides=(0, 0))),
    "strides": state(text("x"), tensor(shape=(2,), strides=(2**30,))),
    "offset": state(text("x"), tensor(offset=2**30)),
    "negative": state(text("x"), tensor(storage(numel=9), 8, (9,), (-1,))),
    "storage": state(text("x"), tensor(storage(numel=2**31 - 1))),
    "nested key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "copies": b"\x80\x02]q\x00("
    + b"N" * 2000
    + b"e"
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 900
    + b".",
}


@pytest.mark.parametrize("trick", HUGE)
def test_sizes_are_checked_before_memory_is_allocated(pth, trick):
    import tracemalloc

    path = pth(HUGE[trick])
    tracemalloc.start()
    try:
        refused(path, "refused|cannot be read")
        assert tracemalloc.get_traced_memory()[1] < 30e6
    finally:
        tracemalloc.stop()


def test_an_old_file_with_less_than_its_storage_says_is_refused(tmp_path):
    path = tmp_path / "old.pth"
    program = state(text("x"), tensor(storage(numel=2**31 - 1)))
    path.write_bytes(legacy(program, ["0"], [bytes(8)]))
    refused(path, "cut short")


@pytest.mark.parametrize("key", ["../../secret", "/etc/passwd", "..\\secret", "1"])
def test_a_key_names_a_part_of_the_archive_and_no_path(pth, tmp_path, key):
    (tmp_path / "secret").write_bytes(bytes(4))
    refused(pth(state(text("x"), tensor(storage(key)))), "no part")


def test_compressed_parts_are_refused(pth):
    path = pth(state(text("x"), tensor()), compression=zipfile.ZIP_DEFLATED)
    refused(path, "compressed")


def test_two_programs_in_one_archive_are_refused(pth):
    parts = {"archive/data/0": bytes(4), "other/data.pkl": HARMFUL["reduce"]}
    refused(pth(state(text("x"), tensor()), parts), "2 parts")


def test_files_without_tensors_are_refused(pth):
    refused(pth(b"\x80\x02}" + text("epoch") + b"K\x05s."), "no dict of tensors")
    refused(pth(b"\x80\x02K\x05."), "no dict of tensors")


# -------------------------------------------------------------------------- names and networks


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
@pytest.mark.parametrize("style", names.STYLES)
@pytest.mark.parametrize("name", ["resnet8", "resnet8B", "plain8"])
def test_weights_come_back_bit_for_bit_under_every_name(tmp_path, name, style, kind):
    net = registry.by_name(name, rng=3)
    path = tmp_path / "file"
    path.write_bytes(weights.to_bytes(net, style, kind, {"image_size": 32}))
    found, about = weights.load_network(name, path)
    assert about["kind"] in (kind, f"{kind} zip")
    assert about["names"] == {"timm": "torchvision"}.get(style, style)
    assert (about["net"], about["image_size"], about["normalise"]) == (name, 32, None)
    for key, a in net.state().items():
        np.testing.assert_array_equal(found.state()[key], a, strict=True)


SPELLED = {
    "torchvision": ("conv1.weight", "layer2.0.downsample.0.weight", "layer2.0.bn2.bias"),
    "huggingface": (
        "resnet.embedder.embedder.convolution.weight",
        "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
        "resnet.encoder.stages.1.layers.0.layer.1.normalization.bias",
    ),
    "akamaster": ("conv1.weight", "layer2.0.shortcut.0.weight", "layer2.0.bn2.bias"),
}


@pytest.mark.parametrize("style", SPELLED)
def test_names_are_spelled_as_other_libraries_spell_them(style):
    entries = names.entries(resnet(8, "B"), style)
    ours = ("conv.w", "stage2.block1.shortcut.conv.w", "stage2.block1.body.bn2.beta")
    assert tuple(entries[name].name for name in ours) == SPELLED[style]
    last = {"torchvision": "fc", "huggingface": "classifier.1", "akamaster": "linear"}[style]
    assert entries["fc.w"].name == f"{last}.weight"
    assert entries["fc.w"].theirs == (10, 64)
    assert entries["stage2.block1.shortcut.conv.w"].theirs == (32, 16, 1, 1)


@pytest.mark.parametrize("style", ["timm", "huggingface"])
def test_the_arrays_of_resnet50_are_those_that_other_libraries_list(style):
    """names_of_others.json was written once from the libraries; counters of batches left out."""
    listed = json.loads((Path(__file__).parent / "names_of_others.json").read_text("utf-8"))[style]
    net = blank(registry.facts("imagenet-resnet50-torchvision"))
    ours = {e.name: list(e.theirs) for e in names.entries(net, style).values()}
    assert ours == listed["arrays"]
    assert len(ours) == 267


def test_alexnet_and_vgg_are_named_by_position_and_their_first_matrix_is_permuted():
    net = blank(registry.fit(registry.facts("vgg16bn"), (64, 96, 3), 10))
    torchvision, timm = (names.entries(net, style) for style in ("torchvision", "timm"))
    assert torchvision["conv1_2.b"].name == timm["conv1_2.b"].name == "features.3.bias"
    assert torchvision["bn5_3.running_var"].name == "features.41.running_var"
    linear = [(torchvision[f"fc{i}.w"].name, torchvision[f"fc{i}.w"].theirs) for i in (14, 15, 16)]
    assert linear == [
        ("classifier.0.weight", (4096, 512 * 2 * 3)),
        ("classifier.3.weight", (4096, 4096)),
        ("classifier.6.weight", (10, 4096)),
    ]
    convolved = [(timm[f"fc{i}.w"].name, timm[f"fc{i}.w"].theirs) for i in (14, 15, 16)]
    assert convolved == [
        ("pre_logits.fc1.weight", (4096, 512, 2, 3)),
        ("pre_logits.fc2.weight", (4096, 4096, 1, 1)),
        ("head.fc.weight", (10, 4096)),
    ]
    ours = np.zeros((2, 3, 512, 4096), np.float32)
    ours[1, 2, 5, 7] = 1  # row 1, column 2, channel 5, output 7
    ours = ours.reshape(-1, 4096)
    assert torchvision["fc14.w"].export(ours)[7, 5 * 6 + 1 * 3 + 2] == 1
    assert timm["fc14.w"].export(ours)[7, 5, 1, 2] == 1
    for entry in (torchvision["fc14.w"], timm["fc14.w"]):
        np.testing.assert_array_equal(entry.load(entry.export(ours)), ours)


def test_a_library_without_such_a_network_has_no_names_for_it():
    facts = registry.fit(registry.facts("alexnet-torchvision"), (67, 67, 3), 10)
    for style in ("timm", "huggingface"):
        with pytest.raises(InputError, match=f"{style} has no network like alexnet-torchvision"):
            weights.to_bytes(blank(facts), style)


def test_prefixes_of_wrappers_and_counters_are_dropped():
    found = names.without_prefix(
        {"module._orig_mod.x": 1, "module._orig_mod.bn.num_batches_tracked": 2}
    )
    assert found == {"x": 1}
    assert list(names.without_prefix({"module.x": 1, "y": 2})) == ["module.x", "y"]


@pytest.fixture
def saved(tmp_path):
    """Write a network's weights under torchvision's names; returns the path."""

    def write(net, pictures=None, style="torchvision"):
        path = tmp_path / "file.pth"
        path.write_bytes(torch_files.to_bytes(names.exported(net, style), pictures or {}))
        return path

    return write


def test_weights_of_another_network_are_refused_with_its_name_and_the_first_differences(saved):
    with pytest.raises(InputError) as error:
        weights.load_network("resnet14", saved(resnet(20, "B")))
    message = str(error.value)
    assert "seems to be of resnet20B" in message
    assert "['layer1.2.conv1.weight'" in message
    assert "give resnet20B" in message
    with pytest.raises(InputError, match=r"plain8 or resnet8.*missing.*layer2.0.downsample"):
        weights.load_network("resnet8B", saved(resnet(8)))
    with pytest.raises(InputError, match=r"another shape, such as conv1.weight \(16, 3, 3, 3\)"):
        weights.load_network("imagenet-resnet18", saved(resnet(20)))


def test_strides_are_told_by_the_file_or_chosen_by_the_name(tmp_path):
    path = tmp_path / "file"
    net = registry.by_name("resnet8")
    path.write_bytes(weights.to_bytes(net))
    with pytest.raises(InputError, match=r"weights of resnet8, as it says itself.*give resnet8"):
        weights.load_network("plain8", path)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_a_head_has_the_classes_of_the_file_or_is_new(saved, classes):
    facts = registry.fit(registry.facts("resnet8"), (32, 32, 3), classes)
    net = registry.make(facts, rng=4)
    found, about = weights.load_network("resnet8", saved(net))
    assert (found.facts.classes, about["new_head"]) == (classes, False)
    np.testing.assert_array_equal(found.state()["fc.w"], net.state()["fc.w"])
    found, about = weights.load_network("resnet8", saved(net), classes=7, rng=5)
    again, _ = weights.load_network("resnet8", saved(net), classes=7, rng=5)
    assert (found.facts.classes, about["new_head"]) == (7, True)
    assert found.state()["fc.w"].any()
    np.testing.assert_array_equal(found.state()["fc.w"], again.state()["fc.w"])
    for name, a in net.state().items():
        if not name.startswith("fc"):
            np.testing.assert_array_equal(found.state()[name], a)


def spoilt(value, style="torchvision", dtype=np.float32):
    """Change the first number of every array to `value`, one array after the other."""
    state = names.exported(resnet(8), style)
    for name in state:
        if not name.endswith(names.COUNTER):
            a = state[name].astype(dtype)
            a.flat[0] = value
            yield name, {**state, name: a}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_array_with_a_number_that_is_not_finite_is_refused_by_name(tmp_path, value):
    path = tmp_path / "file.pth"
    for name, state in spoilt(value):
        path.write_bytes(torch_files.to_bytes(state, {}))
        with pytest.raises(InputError, match=rf"{name} holds 1 of \d+ numbers that are NaN or inf"):
            weights.load_network("resnet8", path)


def test_a_negative_variance_is_refused_and_a_variance_of_0_is_not(tmp_path):
    path = tmp_path / "file.pth"
    for value in (-1e-3, 0.0):
        for name, state in spoilt(value):
            path.write_bytes(torch_files.to_bytes(state, {}))
            if value and name.endswith("running_var"):
                with pytest.raises(InputError, match=f"{name} holds the variance -0.001, which is"):
                    weights.load_network("resnet8", path)
            else:
                weights.load_network("resnet8", path)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.bool_])
def test_integers_in_place_of_weights_are_refused_and_counters_are_not(tmp_path, dtype):
    path = tmp_path / "file.safetensors"
    for name, state in itertools.islice(spoilt(1, dtype=dtype), 3):
        path.write_bytes(safetensors.numpy.save(state))
        with pytest.raises(InputError, match=f"{name} holds {np.dtype(dtype)} numbers, expected"):
            weights.load_network("resnet8", path)
        assert weights.read(path).state[name].dtype == dtype  # it can be looked at


def test_weights_in_float64_make_a_network_in_float64(saved):
    net = resnet(8, rng=2).astype("float64")
    found, _ = weights.load_network("resnet8", saved(net))
    assert found.state()["fc.w"].dtype == np.float64


def with_zeros_on_both_sides(net, state):
    """The state of the same function, for a network whose option A pads on both sides."""
    places = {2: np.r_[8:24, 0:8, 24:32]}
    places[3] = np.r_[16 + places[2], np.setdiff1d(np.arange(64), 16 + places[2])]
    found = {}
    for name, a in state.items():
        a = a.copy()
        stage = int(name[5]) if name.startswith("stage") else 4
        before, after = places.get(stage - 1), places.get(stage)
        first_block = ".block1." in name
        source = a.copy()
        if name.endswith("conv1.w") and stage > 1:
            p = before if first_block else after
            if p is not None:
                a[:, :, p] = source
        elif ("conv2" in name or "bn2" in name) and after is not None:
            a[..., after] = source
        elif name == "fc.w":
            a[places[3]] = source
        found[name] = a
    return found


def test_option_a_with_zeros_on_both_sides_is_permuted_to_ours(saved, rng):
    net = resnet(14, rng=6)
    theirs = registry.by_name("resnet14").load_state(with_zeros_on_both_sides(net, net.state()))
    for style, zeros in (("akamaster", None), ("torchvision", "both")):
        found, about = weights.load_network("resnet14", saved(theirs, style=style), zeros=zeros)
        assert about["zeros"] == "both"
        for name, a in net.state().items():
            np.testing.assert_array_equal(found.state()[name], a)
    found, _ = weights.load_network("resnet14", saved(theirs, style="akamaster"), zeros="end")
    np.testing.assert_array_equal(found.state()["fc.w"], theirs.state()["fc.w"])
    with pytest.raises(InputError, match="zeros must be one of end, both"):
        weights.load_network("resnet14", saved(theirs), zeros="left")


PICTURES = {
    "normalise": "imagenet",
    "mean": [0.4, 0.5, 0.6],
    "deviation": [0.2, 0.2, 0.3],
    "image_size": 48,
    "labels": list("abcdefghij"),
}


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_what_a_network_needs_of_its_pictures_is_stored_in_the_file(tmp_path, kind):
    path = tmp_path / "file"
    path.write_bytes(weights.to_bytes(resnet(8), kind=kind, pictures=PICTURES))
    net, about = weights.load_network("resnet8", path)
    assert {key: about[key] for key in PICTURES} == PICTURES
    assert net.facts.input_shape == (48, 48, 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mean", [1.0]), ("deviation", "x"), ("image_size", 0), ("image_size", 10**6), ("labels", [1]),
     ("normalise", 3), ("net", ["x"])],
)  # fmt: skip
def test_metadata_of_another_form_are_refused(saved, key, value):
    with pytest.raises(InputError, match=f"its metadata says {key}"):
        weights.load_network("resnet8", saved(resnet(8), {key: value}))


def test_labels_that_do_not_match_the_classes_are_refused(saved):
    with pytest.raises(InputError, match="2 labels for 10 classes"):
        weights.load_network("resnet8", saved(resnet(8), {"labels": ["cat", "dog"]}))


def test_only_numbers_of_known_types_are_read_from_safetensors(tmp_path):
    header = json.dumps({"x": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    refused(
        path, "x holds numbers of type F8_E4M3, expected BF16, F16.* save the weights as float32"
    )


def test_bfloat16_is_read_as_the_same_numbers_in_float32(tmp_path):
    values = np.array([[1.5, -2.0, 0.0078125], [3.0, 1e30, -0.0]], np.float32)
    half = (values.view(np.uint32) >> 16).astype("<u2")
    upper = half.astype(np.uint32) << 16
    one = np.float32([7.0]).tobytes()
    entries = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
    }
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", len(header)) + header + one + half.tobytes())
    found = weights.read(path).state
    assert found["a"].tolist() == [7.0]
    np.testing.assert_array_equal(found["b"], upper.view(np.float32), strict=True)


def test_an_old_file_that_is_cut_short_says_how_many_bytes_it_has(tmp_path):
    path = tmp_path / "old.pth"
    whole = legacy(
        state(text("x"), tensor(storage("94020259468064"))), ["94020259468064"], [bytes(4)]
    )
    path.write_bytes(whole[:-2])
    refused(
        path, f"cut short: it has {len(whole) - 2:,} of {len(whole):,} bytes; get the file again"
    )


def test_a_network_is_guessed_once():
    for name in ("resnet8", "imagenet-resnet50", "imagenet-resnet34", "resnet20B"):
        net = blank(registry.facts(name))
        found = guess(names.without_prefix(names.exported(net, "torchvision")))
        assert len(found) == len(set(found)), name
        assert name in found


def test_unknown_names_and_kinds_are_refused():
    with pytest.raises(InputError, match="names must be one of minires, torchvision"):
        weights.to_bytes(resnet(8), "keras")
    with pytest.raises(InputError, match="--to must be one of safetensors"):
        weights.to_bytes(resnet(8), kind="pickle")


def test_a_pickle_is_read_up_to_its_end_and_no_further():
    stream = io.BytesIO(pickle.dumps([1, 2], 2) + b"rest")
    assert pickles.load(stream) == ([1, 2], {})
    assert stream.read() == b"rest"
