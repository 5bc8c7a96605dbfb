import os
from pathlib import Path

import pytest


@pytest.fixture
def cifar10_folder() -> Path:
    folder = os.environ.get("MINIRES_DATA")
    if not folder and os.environ.get("CI"):
        pytest.fail("CI must run the tests on CIFAR-10: set MINIRES_DATA to a folder that holds it")
    if not folder:
        pytest.skip("needs CIFAR-10: set MINIRES_DATA to a folder that holds cifar-10-batches-bin")
    return Path(folder)
