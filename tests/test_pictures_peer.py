"""A picture is prepared as torchvision prepares it for its weights."""

import importlib.util
import os

import numpy as np
import pytest
from PIL import Image

from minires.data import pictures
from minires.data.normalisation import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    imagenet_normalisation,
)

if importlib.util.find_spec("torchvision") is None and not os.environ.get("CI"):
    pytest.skip("torchvision is an optional peer", allow_module_level=True)

import torch

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def transforms():
    """torchvision's transforms; beside a PyTorch without its kernels, two ops must be declared."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:  # they are there already
            break
    from torchvision import transforms

    yield transforms
    del library  # until here: it takes its ops with it


@pytest.mark.parametrize("shape", [(300, 400), (411, 333), (256, 256), (100, 90)])
def test_resize_crop_and_normalisation_are_torchvisions(transforms, shape, tmp_path):
    H, W = shape
    noise = np.random.default_rng(0).integers(0, 256, (H // 5, W // 5, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(noise).resize((W, H), Image.Resampling.BICUBIC).save(path)
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION),
        ]
    )
    with Image.open(path) as picture:
        expected = theirs(picture.convert("RGB")).numpy().transpose(1, 2, 0)
    square = pictures.centre_crop(pictures.resize(pictures.read(path), 256), 224)
    found = imagenet_normalisation()(square[None])[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
