import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from minires import data
from minires.data import cifar10, cifar10_install
from minires.errors import InputError


def some_labels(i):
    return (np.arange(cifar10.RECORDS) * 7 + i) % 10


def some_pixels(i):
    """Nearly empty: a few marked values per file, so that the fixture is cheap."""
    pixels = np.zeros((cifar10.RECORDS, cifar10.PIXELS), np.uint8)
    pixels[:, i] = np.arange(cifar10.RECORDS) % 251
    pixels[17 * i, ::5] = 200 + i
    return pixels


def python_file(pixels, labels, head=b""):
    """A pickle as Python 2 wrote it: byte strings, protocol 2."""

    def text(value):
        return b"T" + len(value).to_bytes(4, "little") + value

    numbers = b"".join(b"J" + int(k).to_bytes(4, "little", signed=True) for k in labels)
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    dtype += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    )
    shape = b"".join(b"M" + n.to_bytes(2, "little") for n in pixels.shape) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    return (
        b"\x80\x02"
        + head
        + b"}("
        + text(b"data")
        + array
        + text(b"labels")
        + b"]("
        + numbers
        + b"eu."
    )


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder of each layout with the same content; tests read them and copy what they change."""
    root = tmp_path_factory.mktemp("cifar10")
    for name in (cifar10.BINARY, cifar10.PYTHON):
        (root / name).mkdir()
    for i, stem in enumerate(cifar10.STEMS):
        labels, pixels = some_labels(i), some_pixels(i)
        rows = np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1)
        rows.tofile(root / cifar10.BINARY / f"{stem}.bin")
        (root / cifar10.PYTHON / stem).write_bytes(python_file(pixels, labels))
    return root


@pytest.fixture
def binary(originals, tmp_path):
    return links(originals / cifar10.BINARY, tmp_path / "copy" / cifar10.BINARY)


def links(source, target):
    """A folder of hard links: a test that changes a file must replace it, not write into it."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, target / file.name)
    return target


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch, tmp_path):
    """Neither the machine's cache nor its environment reaches these tests."""
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")


def test_binary_layout_reads_labels_and_planes_into_nhwc(originals):
    read = cifar10.read(originals / cifar10.BINARY)
    assert read.train.images.shape == (50_000, 32, 32, 3)
    assert read.test.images.shape == (10_000, 32, 32, 3)
    assert read.train.labels.dtype == np.int64
    np.testing.assert_array_equal(read.test.labels, some_labels(5))
    i, record, (row, column, channel) = 3, 17 * 3, (9, 31, 2)
    pixel = read.train.images[i * 10_000 + record, row, column, channel]
    assert pixel == some_pixels(i)[record, channel * 1024 + row * 32 + column]
    np.testing.assert_array_equal(
        read.test.images[85].transpose(2, 0, 1).ravel(), some_pixels(5)[85]
    )
    assert read.classes[9] == "truck"
    assert read.source == str(originals / cifar10.BINARY)


def test_both_layouts_give_the_same_arrays(originals):
    binary, python = (
        cifar10.read(originals / cifar10.BINARY),
        cifar10.read(originals / cifar10.PYTHON, trust=True),
    )
    assert binary.sha256 == python.sha256
    assert binary.name == python.name == cifar10.UNKNOWN


def test_python_files_that_are_not_official_need_trust(originals):
    with pytest.raises(
        InputError, match=r"data_batch_1: expected MD5 c99cafc1\w+ of the official file.*--trust"
    ):
        cifar10.read(originals / cifar10.PYTHON)


def test_python_files_with_the_published_hash_need_no_trust(originals, monkeypatch):
    files = {stem: (originals / cifar10.PYTHON / stem).read_bytes() for stem in cifar10.STEMS}
    monkeypatch.setattr(
        cifar10, "PYTHON_MD5", {s: cifar10.hashlib.md5(f).hexdigest() for s, f in files.items()}
    )
    np.testing.assert_array_equal(
        cifar10.read(originals / cifar10.PYTHON).test.labels, some_labels(5)
    )


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def evil_pickles(mark):
    call = pickle.dumps(Touch(mark), protocol=2)
    posix = (
        b"cposix\nsystem\nX"
        + len(c := f"touch {mark}".encode()).to_bytes(4, "little")
        + c
        + b"\x85R0"
    )
    return {
        "a reduce": call,
        "a call before honest data": python_file(some_pixels(0), some_labels(0), head=posix),
        "eval": b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001+1\x85R.",
        "a protocol 4 name": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.__new\x93.",
    }


@pytest.mark.parametrize("kind", evil_pickles(Path("mark")))
def test_a_malicious_pickle_is_refused_and_not_executed_even_with_trust(originals, tmp_path, kind):
    folder = links(originals / cifar10.PYTHON, tmp_path / cifar10.PYTHON)
    mark = tmp_path / "mark"
    replace(folder / "data_batch_1", evil_pickles(mark)[kind])
    with pytest.raises(
        InputError, match=r"data_batch_1: expected a pickle of NumPy arrays only, found .* anything"
    ):
        cifar10.read(folder, trust=True)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "EOFError"),
        (b"\x80\x02}.", "KeyError"),
        (b"\x80\x02K\x01.", "TypeError"),
        (b"not a pickle", "UnpicklingError"),
        (
            python_file(np.zeros((3, cifar10.PIXELS), np.uint8), [0, 1, 2]),
            r"found uint8 \(3, 3072\)",
        ),
        (
            python_file(some_pixels(0), [-1] * cifar10.RECORDS),
            r"expected a label in 0..9 in record 0, found -1",
        ),
    ],
    ids=["empty", "no data", "no dict", "no pickle", "three records", "a label"],
)
def test_a_damaged_python_file_is_named(originals, tmp_path, content, message):
    folder = links(originals / cifar10.PYTHON, tmp_path / cifar10.PYTHON)
    replace(folder / "data_batch_1", content)
    with pytest.raises(InputError, match=f"data_batch_1.*{message}"):
        cifar10.read(folder, trust=True)


def test_a_missing_file_is_named(binary):
    (binary / "data_batch_4.bin").unlink()
    with pytest.raises(
        InputError, match=r"data_batch_4.bin: expected the files .* found this one missing"
    ):
        data.load("cifar10", binary)


@pytest.mark.parametrize(
    ("extra", "where"), [(-1, "it ends in record 9999"), (5, "it goes on after that")]
)
def test_a_short_or_long_file_is_named_with_its_sizes(binary, extra, where):
    content = (binary / "test_batch.bin").read_bytes()
    replace(binary / "test_batch.bin", content[:extra] if extra < 0 else content + bytes(extra))
    with pytest.raises(
        InputError,
        match=rf"test_batch.bin: .* = 30730000 bytes, found {30_730_000 + extra}: {where}",
    ):
        data.load("auto", binary)


def test_a_label_out_of_range_is_named_with_its_record(binary):
    content = bytearray((binary / "data_batch_2.bin").read_bytes())
    content[123 * 3073] = 10
    replace(binary / "data_batch_2.bin", content)
    with pytest.raises(
        InputError, match=r"data_batch_2.bin: expected a label in 0..9 in record 123, found 10"
    ):
        cifar10.read(binary)


def test_search_goes_from_argument_to_environment_to_cache(originals, tmp_path, monkeypatch):
    assert data.find_cifar10() is None
    cached = links(originals / cifar10.BINARY, tmp_path / "cache" / cifar10.BINARY)
    assert data.find_cifar10() == cached
    named = links(originals / cifar10.BINARY, tmp_path / "environment" / cifar10.BINARY)
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "environment"))
    assert data.find_cifar10() == named
    given = links(originals / cifar10.PYTHON, tmp_path / "argument" / cifar10.PYTHON)
    assert data.find_cifar10(tmp_path / "argument") == given
    assert data.find_cifar10(str(given)) == given


def test_a_named_folder_without_cifar10_is_an_error_and_no_silent_fall_back(
    originals, tmp_path, monkeypatch
):
    links(originals / cifar10.BINARY, tmp_path / "cache" / cifar10.BINARY)
    with pytest.raises(InputError, match=r"--data names .*nowhere"):
        data.load("auto", tmp_path / "nowhere")
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path))
    with pytest.raises(InputError, match="MINIRES_DATA names"):
        data.load("cifar10")


def test_without_cifar10_auto_draws_shapes10_and_cifar10_says_how_to_get_it(monkeypatch):
    drawn = data.shapes10.dataset(train=20, test=10)
    monkeypatch.setattr(data.shapes10, "dataset", lambda **_: drawn)
    assert data.load("auto") is drawn
    assert data.load("shapes10") is drawn
    with pytest.raises(InputError) as caught:
        data.load("cifar10")
    for way in ("`minires data cifar10`", "--from", "--data", "MINIRES_DATA"):
        assert way in str(caught.value)


def test_an_unknown_name_and_a_folder_for_shapes10_are_refused(tmp_path):
    with pytest.raises(InputError, match="'cifar100'"):
        data.load("cifar100")
    with pytest.raises(InputError, match="drop --data"):
        data.load("shapes10", tmp_path)


def test_install_refuses_a_folder_without_cifar10_and_a_path_without_anything(tmp_path):
    with pytest.raises(InputError, match="found neither"):
        cifar10_install.install(tmp_path)
    with pytest.raises(InputError, match="check the path"):
        cifar10_install.install(tmp_path / "nothing")


def test_install_from_a_folder_writes_the_binary_layout_and_leaves_nothing_else(
    originals, tmp_path
):
    parent = tmp_path / "parent"
    links(originals / cifar10.PYTHON, parent / cifar10.PYTHON)
    with pytest.raises(InputError, match="--trust"):
        cifar10_install.install(parent)
    assert list((tmp_path / "cache").iterdir()) == []
    folder = cifar10_install.install(parent, trust=True)
    assert folder == tmp_path / "cache" / cifar10.BINARY
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [cifar10.BINARY]
    assert data.load().sha256 == cifar10.read(originals / cifar10.BINARY).sha256


def test_only_bytes_known_to_be_official_are_called_cifar10(originals, tmp_path, monkeypatch):
    unknown = cifar10.read(originals / cifar10.BINARY)
    assert unknown.name == "CIFAR-10 (unverified copy)"
    files = {stem: (originals / cifar10.PYTHON / stem).read_bytes() for stem in cifar10.STEMS}
    monkeypatch.setattr(
        cifar10, "PYTHON_MD5", {s: cifar10.hashlib.md5(f).hexdigest() for s, f in files.items()}
    )
    assert cifar10.read(originals / cifar10.PYTHON).name == "CIFAR-10"
    installed = cifar10_install.install(originals / cifar10.PYTHON, tmp_path / "cache")
    assert cifar10.read(installed).name == "CIFAR-10"
    replace(installed / "test_batch.bin", (installed / "data_batch_1.bin").read_bytes())
    assert cifar10.read(installed).name == "CIFAR-10 (unverified copy)"
    monkeypatch.setattr(cifar10, "COPIES", {unknown.sha256: "CIFAR-10 (JPEG copy)"})
    assert cifar10.read(originals / cifar10.BINARY).name == "CIFAR-10 (JPEG copy)"


@pytest.mark.parametrize("name", [cifar10.OFFICIAL, cifar10.UNKNOWN, *cifar10.COPIES.values()])
def test_every_copy_of_cifar10_is_loaded_by_one_name(name):
    assert data.key(name) == "cifar10"


@pytest.mark.parametrize("name", ["shapes10", "shapes10-fresh"])
def test_another_data_set_is_loaded_by_its_own_name(name):
    assert data.key(name) == name


# ----------------------------------------------------------------------------- files of other kinds


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("text_keys", [False, True])
def test_honest_pickles_of_python_3_and_numpy_2_are_read(protocol, text_keys, originals, tmp_path):
    folder = links(originals / cifar10.PYTHON, tmp_path / cifar10.PYTHON)
    batch = {b"data": some_pixels(0), b"labels": [int(k) for k in some_labels(0)]}
    if text_keys:
        batch = {key.decode(): value for key, value in batch.items()}
    replace(folder / "data_batch_1", pickle.dumps(batch, protocol=protocol))
    pixels, labels = cifar10._python_file(folder / "data_batch_1", trust=True)
    np.testing.assert_array_equal(pixels, some_pixels(0))
    np.testing.assert_array_equal(labels, some_labels(0))


def test_pixels_in_the_memory_order_of_fortran_are_read(originals, tmp_path):
    for protocol in (2, 5):
        path = tmp_path / "data_batch_1"
        batch = {b"data": np.asfortranarray(some_pixels(1)), b"labels": some_labels(1)}
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
        np.testing.assert_array_equal(cifar10._python_file(path, trust=True)[0], some_pixels(1))


EVIL = "evil\n(i) held \x1b]0;title\x07" + "x" * 5000


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": EVIL, b"labels": [1]},
        {b"data": np.zeros((2, 2)), b"labels": [[1], [2, 3]]},
        {b"data": np.zeros((2, 2)), b"labels": EVIL},
        {b"data": np.array([EVIL]), b"labels": [1]},
        {b"data": np.array([None], object), b"labels": [1]},
        [EVIL],
        EVIL,
    ],
    ids=range(7),
)
def test_a_pickle_of_other_things_is_one_line(batch, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(batch))
    with pytest.raises(InputError) as e:
        cifar10._python_file(path, trust=True)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < 600


def test_the_name_of_an_unknown_class_is_one_line(tmp_path):
    path = tmp_path / "data_batch_1"
    name = b"a\x1b]0;title\x07"
    path.write_bytes(
        b"\x80\x04\x8c" + bytes([len(name)]) + name + b"\x8c" + bytes([len(name)]) + name + b"\x93."
    )
    with pytest.raises(InputError, match="unknown to this reader") as e:
        cifar10._python_file(path, trust=True)
    assert str(e.value).isprintable()


def test_nested_lists_of_labels_that_would_fill_the_memory_are_refused(tmp_path):
    labels = [1]
    for _ in range(40):
        labels = [labels] * 10  # 10^40 labels in a pickle of a few hundred bytes
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 2), np.uint8), b"labels": labels}))
    with pytest.raises(InputError, match="labels that are integers"):
        cifar10._python_file(path, trust=True)


# ------------------------------------------------------------------------------- names and paths


def test_a_home_folder_is_expanded_in_option_and_variable(originals, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    there = links(originals / cifar10.BINARY, tmp_path / "x" / cifar10.BINARY)
    assert data.find_cifar10("~/x") == there
    monkeypatch.setenv("MINIRES_DATA", "~/x")
    assert data.find_cifar10() == there
    assert data.find_cifar10(Path("~/x")) == there


def test_an_unknown_home_folder_is_one_line():
    with pytest.raises(InputError, match="no such home folder"):
        data.find_cifar10("~nobody-of-that-name/x")


@pytest.mark.parametrize("file", ["cifar-10-python.tar.gz", "data_batch_1", "test_batch.bin"])
def test_a_file_in_the_place_of_a_folder_is_told_how_to_install_it(file, tmp_path):
    path = tmp_path / file
    path.write_bytes(b"")
    with pytest.raises(InputError) as e:
        data.load("cifar10", path)
    source = path if file.endswith("gz") else tmp_path
    assert "got a file" in str(e.value)
    assert f"`minires data cifar10 --from {source}`" in str(e.value)


@pytest.mark.parametrize("below", [(), ("deeper",)])
def test_a_folder_that_holds_the_folder_twice_names_the_inner_one(below, originals, tmp_path):
    outer = tmp_path / cifar10.BINARY
    there = links(originals / cifar10.BINARY, outer.joinpath(*below, cifar10.BINARY))
    if below:
        with pytest.raises(InputError, match=f"deeper in it; name {there} instead"):
            data.find_cifar10(outer)
    else:
        assert data.find_cifar10(outer) == there
        with pytest.raises(InputError, match=f"deeper in it; name {there} instead"):
            data.find_cifar10(tmp_path)
