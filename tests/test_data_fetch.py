import hashlib
import io
import os
import runpy
import signal
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from minires import data
from minires.data import cifar10, cifar10_install
from minires.errors import InputError

OFFICIAL = "cifar-10-binary.tar.gz"
SCRIPTS = Path(__file__).parents[1] / "data_scripts"


@pytest.fixture(autouse=True)
def small_and_alone(monkeypatch, tmp_path):
    """Make files short, and keep the machine's cache, environment and proxies out of the tests."""
    monkeypatch.setattr(cifar10, "RECORDS", 20)
    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")  # wins where both are set


def files():
    rows = np.random.default_rng(0).integers(0, 256, (6, 20, 3073), dtype=np.uint8)
    rows[:, :, 0] %= 10
    return {
        f"{cifar10.BINARY}/{name}": rows[i].tobytes()
        for i, name in enumerate(cifar10.FILES[cifar10.BINARY])
    }


def make_tar(members, extra=()):
    """Bytes of a gzipped tarball of `members` (name -> content) and ready-made TarInfos."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


@pytest.fixture
def tarball(tmp_path, monkeypatch):
    """A small tarball that stands for the official one."""
    path = tmp_path / "somewhere" / OFFICIAL
    path.parent.mkdir()
    folder = tarfile.TarInfo(cifar10.BINARY)
    folder.type = tarfile.DIRTYPE
    path.write_bytes(make_tar(files() | {f"{cifar10.BINARY}/readme.html": b"<p>"}, [folder]))
    monkeypatch.setitem(
        cifar10_install.SHA256, OFFICIAL, hashlib.sha256(path.read_bytes()).hexdigest()
    )
    return path


def only_the_data_set(folder):
    return [p.name for p in folder.iterdir()] == [cifar10.BINARY]


def check_installed(folder):
    assert only_the_data_set(folder.parent)
    for name, content in files().items():
        assert (folder.parent / name).read_bytes() == content


def test_official_tarball_is_installed_and_found(tarball, tmp_path):
    folder = cifar10_install.install(tarball)
    check_installed(folder)
    assert data.load().source == str(folder)
    assert data.load().name == "CIFAR-10"
    elsewhere = cifar10_install.install(tarball, into=tmp_path / "elsewhere")
    check_installed(elsewhere)


def test_installing_twice_replaces_the_folder(tarball):
    folder = cifar10_install.install(tarball)
    (folder / "test_batch.bin").write_bytes(b"damaged")
    check_installed(cifar10_install.install(tarball))


def test_a_folder_can_be_installed_onto_itself(tarball):
    folder = cifar10_install.install(tarball)
    check_installed(cifar10_install.install(folder))


def test_another_tarball_is_refused_unless_trusted(tarball, tmp_path):
    other = tmp_path / "classroom.tar.gz"
    other.write_bytes(make_tar(dict(reversed(files().items()))))
    sha256 = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(InputError, match=f"expected an official SHA-256.* found {sha256}.*--trust"):
        cifar10_install.install(other)
    assert not list((tmp_path / "cache").iterdir())
    check_installed(cifar10_install.install(other, trust=True))
    assert data.load().name == "CIFAR-10 (unverified copy)"


def test_the_command_installs_another_tarball_where_it_is_told_if_trusted(tmp_path, run_cli):
    other, into = tmp_path / "classroom.tar.gz", tmp_path / "x"
    other.write_bytes(make_tar(files()))
    words = ("data", "cifar10", "--from", other, "--into", into)
    code, _, err = run_cli(*words)
    assert (code, "--trust" in err, list(into.iterdir())) == (2, True, [])
    code, out, _ = run_cli(*words, "--trust")
    folder = into / cifar10.BINARY
    assert (code, out) == (
        0,
        f"CIFAR-10 (unverified copy) is in {folder}: 100 training and 20 test images\n",
    )
    check_installed(folder)


def special(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def large():
    info = tarfile.TarInfo(f"{cifar10.BINARY}/test_batch.bin")
    info.size = cifar10_install.LARGEST[cifar10.BINARY] + 1
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (special("../evil"), r"\.\./evil"),
        (special("{here}/evil"), "/evil"),  # an absolute path
        (special(f"{cifar10.BINARY}/../../evil"), "evil"),
        (special(f"{cifar10.BINARY}/run.py"), r"run\.py"),
        (special(f"{cifar10.BINARY}/test_batch.bin", tarfile.SYMTYPE, "/etc/passwd"), "test_batch"),
        (special(f"{cifar10.BINARY}/test_batch.bin", tarfile.LNKTYPE, "../evil"), "test_batch"),
        (special(f"{cifar10.BINARY}/test_batch.bin", tarfile.FIFOTYPE), "test_batch"),
        (special(cifar10.BINARY, tarfile.SYMTYPE, "/tmp"), "member 'cifar-10-batches-bin'"),
        (
            special(f"{cifar10.BINARY}/data_batch_1.bin"),
            "each once, found member .*data_batch_1",
        ),  # a second time
        (large(), "of at most 30730000 bytes, found 30730001"),
    ],
)
def test_a_tarball_with_a_foreign_member_is_refused_even_with_trust(tmp_path, member, message):
    members = files()
    del members[f"{cifar10.BINARY}/test_batch.bin"]
    member.name = member.name.format(here=tmp_path.as_posix())
    path = tmp_path / "evil.tar.gz"
    path.write_bytes(make_tar(members, [member]))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        cifar10_install.install(path, trust=True)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "cache"])


@pytest.mark.parametrize("cut", [0, 10, -2_000])
def test_a_cut_tarball_is_refused(tarball, tmp_path, cut):
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(tarball.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"cut\.tar\.gz: expected"):
        cifar10_install.install(path, trust=True)
    assert not list((tmp_path / "cache").iterdir())


def test_a_tarball_without_the_data_set_is_refused(tmp_path):
    path = tmp_path / "empty.tar.gz"
    path.write_bytes(make_tar({}))
    with pytest.raises(InputError, match="found none of them"):
        cifar10_install.install(path, trust=True)


def test_a_failed_replacement_leaves_the_old_folder(tarball, tmp_path, monkeypatch):
    folder = cifar10_install.install(tarball)
    rename = cifar10_install.os.rename

    def full_disk(source, target):
        if source.name == "new":
            raise OSError("disk full")
        rename(source, target)

    monkeypatch.setattr(cifar10_install.os, "rename", full_disk)
    with pytest.raises(InputError, match="disk full"):
        cifar10_install.install(tarball)
    check_installed(folder)


class Mirror(BaseHTTPRequestHandler):
    """Serves `server.answers`: path -> (status, body, bytes promised beyond the body)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, body, more = self.server.answers.get(self.path, (404, b"", 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + more))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirrors(tarball, monkeypatch):
    """A local web server for one test; tests fill its `answers` and name it in MIRRORS."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        good = tarball.read_bytes()
        server.asked = []
        server.answers = {
            f"/good/{OFFICIAL}": (200, good, 0),
            f"/wrong/{OFFICIAL}": (200, good + b"x", 0),
            f"/cut/{OFFICIAL}": (200, good[:1000], len(good) - 1000),
        }
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def use(*names):
            urls = tuple(
                f"http://127.0.0.1:{server.server_port}/{name}/{OFFICIAL}" for name in names
            )
            monkeypatch.setattr(cifar10_install, "MIRRORS", urls)
            return server

        yield use
        server.shutdown()
        thread.join()


def test_download_installs_and_removes_the_tarball(mirrors):
    mirrors("good")
    check_installed(cifar10_install.download(progress=False))


def test_download_shows_progress_on_stderr(mirrors, capsys):
    mirrors("good")
    cifar10_install.download()
    assert "100%" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["dead", "wrong", "cut"])
def test_download_goes_on_to_the_next_mirror(mirrors, first):
    server = mirrors(first, "good")
    check_installed(cifar10_install.download(progress=False))
    assert server.asked == [f"/{first}/{OFFICIAL}", f"/good/{OFFICIAL}"]


def test_when_every_mirror_fails_the_message_lists_them_and_the_way_out(mirrors, tmp_path):
    server = mirrors("dead", "wrong", "cut")
    with pytest.raises(InputError) as caught:
        cifar10_install.download(progress=False)
    message = str(caught.value)
    for url, error in zip(cifar10_install.MIRRORS, ("404", "hash", "IncompleteRead"), strict=True):
        assert url in message
        assert error in message.split(url)[1].split("http://")[0]
    assert "`minires data cifar10 --from FILE`" in message
    assert len(server.asked) == 6  # every mirror twice
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_that_cannot_be_written_is_said_before_any_download(mirrors, tmp_path):
    server = mirrors("good")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"expected a folder to write to.*--into"):
        cifar10_install.download(tmp_path / "file" / "cache")
    assert not server.asked


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(mirrors, tmp_path, monkeypatch):
    mirrors("good")
    with monkeypatch.context() as patch:
        patch.setattr(cifar10_install, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cifar10_install.download(progress=False)
    assert data.find_cifar10() is None
    check_installed(cifar10_install.download(progress=False))


def test_a_whole_data_set_is_kept_and_a_damaged_one_replaced(mirrors, tarball):
    server = mirrors("good")
    folder = cifar10_install.install(tarball)
    assert cifar10_install.download(progress=False) == folder
    assert server.asked == []
    seal = folder / cifar10.SEAL
    official = seal.read_text()
    seal.write_text("0" * 64)
    with pytest.raises(InputError, match="official bytes, or nothing"):
        cifar10_install.download(progress=False)  # a copy that somebody put there is not replaced
    assert server.asked == []
    seal.write_text(official)
    (folder / "data_batch_3.bin").unlink()
    check_installed(cifar10_install.download(progress=False))


def test_folders_that_killed_installs_left_behind_are_removed(tarball, tmp_path):
    cache = tmp_path / "cache"
    old, young, other = (
        cache / name for name in (f".cifar-10-{'0' * 16}", f".cifar-10-{'1' * 16}", ".cifar-10-x")
    )
    for folder in (old, young, other):
        folder.mkdir(parents=True)
        (folder / "large").write_bytes(b"x")
    two_days_ago = time.time() - 2 * 24 * 3600
    for folder in (old, other):
        os.utime(folder, (two_days_ago, two_days_ago))
    cifar10_install.install(tarball)
    assert sorted(p.name for p in cache.iterdir()) == sorted(
        [young.name, other.name, cifar10.BINARY]  # the young one may be in use
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there SIGTERM ends the process at once")
def test_sigterm_ends_an_install_as_ctrl_c_does(tarball, tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cifar10_install, "write", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        cifar10_install.install(tarball)
    assert not list((tmp_path / "cache").iterdir())
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_home_folder_is_expanded_in_an_install(tarball, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = cifar10_install.install(Path("~/somewhere") / OFFICIAL, Path("~/elsewhere"))
    assert folder == tmp_path / "elsewhere" / cifar10.BINARY
    check_installed(folder)


# ------------------------------------------------------------------------------------- the scripts


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run one of data_scripts; returns exit code, standard output, standard error."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
            code = 0
        except SystemExit as e:
            code = e.code
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("named", [True, False])
def test_what_is_packed_for_a_class_room_is_installed_as_the_same_images(
    named, tarball, tmp_path, run_script
):
    packed = tmp_path / "packed.tar.gz"
    folder = cifar10_install.install(tarball, tmp_path / "elsewhere" if named else None)
    code, out, _ = run_script("pack_cifar10.py", *([folder] if named else []), packed)
    assert (code, out) == (0, f"{hashlib.sha256(packed.read_bytes()).hexdigest()} {packed}\n")
    with tarfile.open(packed) as tar:
        assert tar.getnames() == list(files())
    check_installed(cifar10_install.install(packed, tmp_path / "student", trust=True))
    assert data.load("cifar10", tmp_path / "student").sha256 == cifar10.read(folder).sha256


def test_a_script_prints_where_it_downloaded_to(mirrors, tmp_path, run_script):
    mirrors("good")
    folder = tmp_path / "x" / cifar10.BINARY
    assert run_script("get_cifar10.py", tmp_path / "x")[:2] == (0, f"{folder}\n")
    check_installed(folder)


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("pack_cifar10.py", (), "give one or two paths"),
        ("pack_cifar10.py", ("--help",), "give one or two paths"),
        ("pack_cifar10.py", ("a", "b", "c"), "give one or two paths"),
        ("pack_cifar10.py", ("nowhere", "c.tar.gz"), "--data names nowhere"),
        ("get_cifar10.py", ("--help",), "expected the folder to put CIFAR-10 into"),
        ("get_cifar10.py", ("a", "b"), "expected the folder to put CIFAR-10 into"),
    ],
)
def test_a_wrong_call_of_a_script_is_refused(
    name, words, reason, tmp_path, monkeypatch, run_script
):
    monkeypatch.setattr(cifar10_install, "download", lambda *_: pytest.fail("downloads"))
    monkeypatch.chdir(tmp_path)
    code, out, err = run_script(name, *words)
    assert (code, out, reason in err, "Traceback" in err) == (2, "", True, False)
    assert not list(tmp_path.iterdir())
