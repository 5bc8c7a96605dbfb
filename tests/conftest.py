import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

shared = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("laptop", max_examples=50, **shared)
settings.register_profile("ci", max_examples=50, derandomize=True, **shared)
settings.register_profile("thorough", max_examples=1000, **shared)
settings.load_profile(os.environ.get("MINIRES_HYPOTHESIS", "ci" if os.environ.get("CI") else "laptop"))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def cifar10_folder():
    """Folder of CIFAR-10 that MINIRES_DATA names; in CI its absence is a failure."""
    folder = os.environ.get("MINIRES_DATA")
    if not folder:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("set MINIRES_DATA to a folder that holds CIFAR-10")
    return Path(folder)
