import numpy as np
import pytest

from minires import data


@pytest.mark.cifar10
def test_real_cifar10_is_balanced(cifar10_folder):
    real = data.load("cifar10", cifar10_folder)
    assert (np.bincount(real.train.labels) == 5_000).all()
    assert (np.bincount(real.test.labels) == 1_000).all()
    published = [0.4914, 0.4822, 0.4465]  # channel means
    np.testing.assert_allclose(real.train.images.mean((0, 1, 2)) / 255, published, atol=0.002)
