import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # each core has a worker; more threads of NumPy would only spin
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # nor should those of OpenMP

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

from minires import cli, ops
from minires.data import shapes10
from minires.runs.config import Config

shared = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile("laptop", max_examples=50, **shared)
settings.register_profile("ci", max_examples=50, derandomize=True, **shared)
settings.register_profile("thorough", max_examples=1000, **shared)
unshrunk = (Phase.explicit, Phase.generate)  # whether a test fails is all that counts
settings.register_profile(
    "mutants", max_examples=20, derandomize=True, phases=unshrunk, print_blob=False, **shared
)
settings.load_profile(
    os.environ.get("MINIRES_HYPOTHESIS", "ci" if os.environ.get("CI") else "laptop")
)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C

COMPILE = """
from minires.ops.compiled.warm_up import compile_from_both_ends, warm_up
for dtype in "float32", "float64":
    again = "from minires.ops.compiled.warm_up import warm_up; warm_up({!r}, backwards=True)"
    with compile_from_both_ends(again.format(dtype)):
        warm_up(dtype)
"""


def pytest_configure(config):
    """Before a run of all tests, compile the kernels once; else each worker compiles them."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and getattr(config.option, "numprocesses", None) and not ops.why_not_numba():
        subprocess.run([sys.executable, "-c", COMPILE], check=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def cifar10_folder():
    """Folder of CIFAR-10 that MINIRES_DATA names; in CI its absence is a failure."""
    folder = os.environ.get("MINIRES_DATA")
    if not folder:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "set MINIRES_DATA to a folder that holds CIFAR-10"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def shapes():
    """A data set small enough to train on in a test."""
    return shapes10.dataset(seed=0, train=96, test=32)


@pytest.fixture(scope="module")
def speck():
    """The network of specks.py by its name, and what toys.py brings."""
    import specks

    specks.register()
    yield
    specks.unregister()


@pytest.fixture(scope="module")
def bars():
    """The data set of toys.py."""
    import toys

    return toys.bars()


@pytest.fixture
def tiny():
    """A recipe that takes a second."""
    return Config(
        net="resnet8",
        dataset="shapes10",
        iterations=6,
        batch_size=4,
        eval_every=3,
        eval_images=16,
        bn_images=16,
    )


@pytest.fixture
def run_cli(monkeypatch, capsys):
    """Type a command; returns exit code, standard output, standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["minires", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run
