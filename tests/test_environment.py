"""A missing or broken optional component never stops a command; one warning reports it."""

import errno
import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import numpy as np
import pooch
import pytest

from minires import InputError, ops
from minires.ops import availability
from minires.ops.compiled import jit, kernel_cache, kernel_files, processors, threads, warm_up

ROOT = Path(__file__).parents[1]
CALLED = ("load_overload", "save_overload", "_open_for_write", "_load_index", "_load_data")


def double(x):
    return 2 * x


def triple(x):
    return 3 * x


@pytest.fixture(autouse=True)
def new_process(monkeypatch, tmp_path):
    """Clear everything that is cached once per process, before and after a test."""
    once = (
        kernel_cache.cache_folder,
        kernel_cache.writable_folder,
        availability._problem,
        availability.warn_once,
    )
    for function in once:
        function.cache_clear()
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", str(tmp_path / "kernels"))
    yield
    for function in once:
        function.cache_clear()


def compiled(function=double):
    """A kernel as a new process would define it."""
    kernel = numba.njit(function)
    kernel_cache.keep_on_disk(kernel)
    return kernel


def loaded(kernel):
    return sum(kernel.stats.cache_hits.values())


def files(suffix, name="double"):
    return sorted(Path(kernel_cache.cache_folder()).rglob(f"*.{name}-*.{suffix}"))


def one_warning(seen):
    (warning,) = seen
    text = str(warning.message)
    assert kernel_cache.cache_folder() in text
    assert "NUMBA_CACHE_DIR" in text
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------ the kernels' cache


def test_a_kernel_is_loaded_from_disk_by_the_next_process():
    assert compiled()(3) == 6
    kernel = compiled()
    assert kernel(3) == 6
    assert loaded(kernel) == 1
    assert len(files("nbi")) == len(files("nbc")) == 1


DAMAGES = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "last byte lost": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "one bit": lambda content: flipped(content, len(content) // 2),
    "first bit": lambda content: flipped(content, 0),
    "checksum": lambda content: flipped(content, len(content) - 1),
    "text": lambda content: b"<html>404</html>",
}


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced_with_one_warning(damage, suffix):
    assert compiled()(3) == 6
    (file,) = files(suffix)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    kernel = compiled()
    with pytest.warns(UserWarning, match="was damaged") as seen:
        assert kernel(3) == 6
    one_warning(seen)
    assert loaded(kernel) == 0
    again = compiled()
    assert again(3) == 6
    assert loaded(again) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_folder_in_place_of_a_file_is_replaced(suffix):
    compiled()(3)
    (file,) = files(suffix)
    file.unlink()
    file.mkdir()
    (file / "inside").touch()
    with pytest.warns(UserWarning, match="was damaged"):
        assert compiled()(3) == 6
    again = compiled()
    assert again(3) == 6
    assert loaded(again) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_the_file_of_another_kernel_is_never_used(suffix):
    compiled()(3)
    compiled(triple)(3)
    (ours,), (theirs,) = files(suffix), files(suffix, "triple")
    ours.write_bytes(theirs.read_bytes())
    with pytest.warns(UserWarning, match="was damaged"):
        assert compiled()(3) == 6


def test_the_machine_code_of_another_type_is_never_used():
    compiled()(3)
    compiled()(0.5)
    one, other = files("nbc")
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.warns(UserWarning, match="was damaged"):
        assert compiled()(0.5) == 1.0


def test_several_damaged_kernels_cause_one_warning():
    for function in (double, triple):
        compiled(function)(3)
    for file in files("nbi") + files("nbi", "triple"):
        file.write_bytes(b"")
    with pytest.warns(UserWarning, match="was damaged") as seen:
        assert [compiled()(3), compiled(triple)(3)] == [6, 9]
    one_warning(seen)


def test_damaged_files_that_cannot_be_deleted_are_done_without(monkeypatch):
    compiled()(3)
    files("nbi")[0].write_bytes(b"")
    monkeypatch.setattr(kernel_files._Files, "delete", raising(PermissionError(errno.EACCES, "no")))
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert compiled()(3) == 6


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_folder_that_takes_no_file_is_done_without(monkeypatch, number):
    kernel, again = compiled(), compiled()
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr(kernel_files.IndexDataCacheFile, "_open_for_write", raising(error))
    with pytest.warns(UserWarning, match="cannot be kept") as seen:
        assert kernel(3) == again(3) == 6
    assert os.strerror(number) in one_warning(seen)


def test_a_full_disk_leaves_the_files_of_other_types(monkeypatch):
    compiled()(3)
    with monkeypatch.context() as full:
        error = OSError(errno.ENOSPC, "full")
        full.setattr(kernel_files.IndexDataCacheFile, "_open_for_write", raising(error))
        with pytest.warns(UserWarning, match="cannot be kept"):
            assert compiled()(0.5) == 1.0
    kernel = compiled()
    assert kernel(3) == 6
    assert loaded(kernel) == 1


def test_a_folder_that_cannot_be_made_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="cannot be kept") as seen:
        assert [compiled()(3), compiled(triple)(3)] == [6, 9]
    one_warning(seen)


def test_without_a_home_folder_kernels_are_compiled_each_time(monkeypatch):
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "")
    monkeypatch.setattr(pooch, "os_cache", raising(RuntimeError("no home directory")))
    with pytest.warns(UserWarning, match=r"no home directory.*NUMBA_CACHE_DIR") as seen:
        assert [compiled()(3), compiled(triple)(3)] == [6, 9]
    assert len(seen) == 1


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ValueError("I/O operation on closed file")]
)
def test_a_warning_that_cannot_be_printed_stops_nothing(monkeypatch, error):
    monkeypatch.setattr(pooch, "os_cache", raising(RuntimeError("no home directory")))
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "")
    monkeypatch.setattr(warnings, "warn", raising(error))
    assert compiled()(3) == 6
    monkeypatch.setattr(availability, "_problem", lambda: "it is broken")
    assert ops.default_backend() == "numpy"


def test_a_tilde_in_the_name_of_the_folder_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache.config, "CACHE_DIR", "~/kernels")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert Path(kernel_cache.cache_folder()).parent == tmp_path / "kernels"


@pytest.mark.parametrize(
    ("variable", "value", "same"),
    [
        ("NUMBA_OPT", "0", False),
        ("NUMBA_BOUNDSCHECK", "1", False),
        ("NUMBA_CPU_FEATURES", "+sse2", False),
        ("NUMBA_NUM_THREADS", "1", True),
        ("NUMBA_THREADING_LAYER", "workqueue", True),
    ],
)
def test_settings_that_change_machine_code_have_a_folder_of_their_own(
    monkeypatch, variable, value, same
):
    monkeypatch.delenv(variable, raising=False)
    usual = kernel_cache.cache_folder.__wrapped__()
    monkeypatch.setenv(variable, value)
    assert (kernel_cache.cache_folder.__wrapped__() == usual) is same


def test_numba_calls_the_private_names_that_the_cache_relies_on(monkeypatch):
    called = set()

    def spy(name, real):
        def function(*args):
            called.add(name)
            return real(*args)

        return function

    for owner in (kernel_files.KernelCache, kernel_files._Files):
        for name in set(CALLED) & set(vars(owner)):
            monkeypatch.setattr(owner, name, spy(name, vars(owner)[name]))
    compiled()(3)
    assert compiled()(3) == 6
    assert called == set(CALLED)


def test_every_kernel_of_the_package_has_the_checked_cache():
    assert jit.KERNELS
    for kernel in jit.KERNELS:
        assert isinstance(kernel._cache, kernel_files.KernelCache)
        assert isinstance(kernel._cache._cache_file, kernel_files._Files)


RENAMED = [(owner, name) for owner, names in kernel_files.NAMES.items() for name in names]


@pytest.mark.parametrize(("owner", "name"), RENAMED)
def test_a_numba_that_renames_its_cache_is_used_without_it(monkeypatch, owner, name):
    for holder in owner.__mro__:
        if name in vars(holder):
            monkeypatch.delattr(holder, name)
    with pytest.warns(UserWarning, match=f"cannot be kept.*{name}"):
        assert compiled()(3) == 6


# ----------------------------------------------------------------------------- Numba that is broken


@pytest.mark.parametrize(
    "error",
    [
        ImportError("Numba needs NumPy 2.3 or less.\nGot NumPy 2.4."),
        ModuleNotFoundError("No module named 'llvmlite'"),
        OSError("libLLVM.so: cannot open shared object file"),
        SystemError("initialization failed"),
        RuntimeError("\x1b]0;title\x07"),
        KeyError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("module", ["numba.core.config", "minires.ops.compiled.warm_up"])
def test_a_numba_that_cannot_be_imported_leaves_the_numpy_backend(monkeypatch, error, module):
    real = importlib.import_module

    def import_module(name):
        if name == module:
            raise error
        return real(name)

    monkeypatch.setattr(availability.importlib, "import_module", import_module)
    ops.get_ops.cache_clear()
    with pytest.warns(UserWarning, match=type(error).__name__) as seen:
        assert [ops.default_backend(), ops.default_backend()] == ["numpy", "numpy"]
    assert len(seen) == 1
    assert str(seen[0].message).isprintable()
    assert ops.usable_backends() == ("numpy",)
    for call in (ops.get_ops, ops.threads_to_share, lambda b: ops.prepare(b, print)):
        with pytest.raises(InputError, match=type(error).__name__) as refused:
            call("numba")
        assert "numpy backend" in str(refused.value)
        assert str(refused.value).isprintable()
    assert ops.get_ops("numpy").relu_forward(np.ones(3))[0].sum() == 3


def minires(*words, **environment):
    settings = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-m", "minires", *words]
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


def test_the_command_line_says_in_one_line_why_numba_is_not_used(tmp_path):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text("raise ImportError('needs another NumPy')")
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    told = minires("info", PYTHONPATH=path)
    assert told.returncode == 0
    assert "the default is numpy" in told.stdout
    assert told.stderr.count("\n") == told.stderr.count("needs another NumPy") == 1
    train = ("train", "resnet8", "--dataset", "shapes10", "--iterations", "1")
    asked = minires(*train, "--backend", "numba", "--out", str(tmp_path / "run"), PYTHONPATH=path)
    assert asked.returncode == 2
    assert asked.stderr.startswith("error: ")
    assert asked.stderr.count("\n") == asked.stderr.count("needs another NumPy") == 1


@pytest.mark.parametrize("threads_asked", ["0", "-1", "1025", "9" * 30])
def test_a_number_of_threads_that_cannot_be_is_named(monkeypatch, threads_asked):
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads_asked)
    with pytest.raises(InputError, match=r"NUMBA_NUM_THREADS.*numpy backend"):
        ops.threads_to_share("numba")


def test_a_numba_that_may_not_compile_is_named(monkeypatch):
    monkeypatch.setattr(kernel_cache.config, "DISABLE_JIT", 1)
    with pytest.raises(InputError, match=r"NUMBA_DISABLE_JIT.*numpy backend"):
        ops.threads_to_share("numba")


@pytest.mark.parametrize(
    ("setting", "variable"),
    [("CPU_NAME", "NUMBA_CPU_NAME"), ("CPU_FEATURES", "NUMBA_CPU_FEATURES")],
)
def test_a_processor_that_llvm_does_not_know_is_named(monkeypatch, setting, variable):
    monkeypatch.setattr(kernel_cache.config, setting, "+nonsense")
    with pytest.raises(InputError, match=f"{variable}.*nonsense.*numpy backend"):
        ops.threads_to_share("numba")


@pytest.mark.parametrize(
    ("name", "value"), [("NUMBA_THREADING_LAYER", "unknown"), ("NUMBA_NUM_THREADS", "x")]
)
def test_a_variable_that_numba_cannot_use_is_named_in_one_line(name, value):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from minires import ops; ops.default_backend()"],
        env=os.environ | {"PYTHONPATH": str(ROOT), name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert re.fullmatch(rf"UserWarning: the numpy backend is used, .* because .*{name}.*", last)


def test_a_kernel_that_cannot_be_compiled_is_one_line_that_names_the_variables(monkeypatch):
    monkeypatch.setenv("NUMBA_SOMETHING", "odd")
    monkeypatch.setattr(warm_up, "prepare", raising(TypeError("no\nmatching\ndefinition")))
    with pytest.raises(InputError, match=r"no matching definition.*NUMBA_SOMETHING=odd.*numpy"):
        ops.prepare("numba", print)


def test_settings_are_the_variables_that_may_change_results(monkeypatch):
    for name in availability.settings():
        monkeypatch.delenv(name)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "here")
    assert availability.settings() == {}
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "workqueue")
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert availability.settings() == {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_THREADING_LAYER": "workqueue",
    }


# --------------------------------------------------------------------------------- other processes

FORK = """
import os, subprocess, sys
import numpy as np
from minires import InputError
from minires.ops import get_ops

def relu():
    return get_ops("numba").relu_forward(np.ones((1, 2, 2, 3), np.float32))[0].sum()

assert relu() == 12
child = os.fork()
if child == 0:
    try:
        relu()
    except InputError as e:
        os._exit(3 if "spawn" in str(e) and "numpy backend" in str(e) else 4)
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
assert subprocess.run([sys.executable, "-c", "pass"]).returncode == 0
assert relu() == 12
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP is used on Linux")
def test_a_kernel_in_a_forked_process_raises_instead_of_hanging():
    ops.get_ops("numba")
    if numba.threading_layer() != "omp":
        pytest.skip("other threading layers survive a fork")
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_kernels_that_are_forbidden_raise_with_and_without_machine_code(monkeypatch):
    known, new = compiled(), compiled(triple)
    known(3)
    monkeypatch.setattr(jit, "KERNELS", [known, new])
    jit.forbid_kernels(threads.FORKED)
    for kernel in (known, new):
        with pytest.raises(InputError, match="spawn"):
            kernel(3)


def test_without_a_helper_process_kernels_are_still_compiled(monkeypatch):
    started = []

    def refuse(*words, **_):
        started.append(words)
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(warm_up.subprocess, "Popen", refuse)
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(jit, "KERNELS", [compiled()])
    with warm_up.compile_from_both_ends("pass"):
        assert jit.KERNELS[0](3) == 6
    assert len(started) == 1


def test_no_helper_is_started_where_kernels_are_not_kept(monkeypatch):
    monkeypatch.setattr(warm_up.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    monkeypatch.setattr(jit, "KERNELS", [numba.njit(triple)])
    with warm_up.compile_from_both_ends("pass"):
        assert jit.KERNELS[0](3) == 9


def test_after_preparing_as_many_kernels_are_ready_as_the_bar_promised():
    warm_up = importlib.import_module("minires.ops.compiled.warm_up")
    code = (
        "from minires.ops import prepare; prepare('numba'); "
        "from minires.ops.compiled import jit, warm_up; "
        "print(sum(len(kernel.signatures) for kernel in jit.KERNELS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == warm_up.NEEDED


# ------------------------------------------------------------------------------ cores and threads


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def siblings(pairs):
    """The files of a machine whose processors `pairs` share a core two by two."""
    return {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": f"{a},{b}\n"
        for a, b in pairs
        for number in (a, b)
    }


EIGHT = siblings([(0, 4), (1, 5), (2, 6), (3, 7)])
V2 = {"proc/self/cgroup": "0::/pods/mine\n"}
V1 = {"proc/self/cgroup": "12:pids:/pods\n4:cpu,cpuacct:/pods/mine\n0::/\n"}
INSIDE = {"proc/self/cgroup": "0::/../../pods/mine\n"}  # a path outside of the container


@pytest.mark.parametrize(
    ("files", "allowed", "cores", "why"),
    [
        ({}, range(8), 8, "cores"),
        (EIGHT, range(8), 4, "physical cores"),
        (EIGHT, {0, 4}, 1, "physical cores"),
        (EIGHT, {0, 1, 4}, 2, "physical cores"),
        (EIGHT | V2 | {"sys/fs/cgroup/pods/mine/cpu.max": "max 100000"}, range(8), 4, "physical"),
        (EIGHT | V2 | {"sys/fs/cgroup/pods/mine/cpu.max": "200000 100000"}, range(8), 2, "2 cores"),
        (EIGHT | V2 | {"sys/fs/cgroup/pods/cpu.max": "150000 100000"}, range(8), 2, "1.5 cores"),
        (EIGHT | V2 | {"sys/fs/cgroup/pods/mine/cpu.max": "20000 100000"}, range(8), 1, "0.2"),
        (EIGHT | INSIDE | {"sys/fs/cgroup/cpu.max": "300000 100000"}, range(8), 3, "3 cores"),
        (V2 | {"sys/fs/cgroup/unified/cpu.max": "300000 100000"}, range(8), 3, "3 cores"),
        (
            EIGHT
            | V1
            | {
                "sys/fs/cgroup/cpu,cpuacct/pods/mine/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/pods/mine/cpu.cfs_period_us": "100000",
            },
            range(8),
            3,
            "2.5 cores",
        ),
        (
            V1
            | {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            range(8),
            8,
            "cores",
        ),
        (V2 | {"sys/fs/cgroup/pods/mine/cpu.max": "many of them"}, range(8), 8, "cores"),
    ],
)
def test_threads_are_as_many_as_the_cores_that_the_process_may_use(
    tmp_path, files, allowed, cores, why
):
    found = processors.usable_cores(tree(tmp_path, files), set(allowed))
    assert found[0] == cores
    assert why in found[1]


def test_numba_num_threads_wins_over_the_number_of_cores(monkeypatch):
    monkeypatch.setattr(threads, "usable_cores", lambda: (1, "cores"))
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    threads._choose_number()
    assert numba.config.NUMBA_NUM_THREADS == 2
    assert "NUMBA_NUM_THREADS" in threads.describe()
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    threads._choose_number()
    assert numba.config.NUMBA_NUM_THREADS == 1


def test_a_slow_threading_layer_is_named_with_a_better_one(monkeypatch):
    monkeypatch.setattr(numba, "threading_layer", lambda: "workqueue")
    assert "libomp" in threads.describe()
    monkeypatch.setattr(numba, "threading_layer", lambda: "omp")
    assert "libomp" not in threads.describe()
