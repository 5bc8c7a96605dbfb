"""The same logits as PyTorch and torchvision, for weights that were exchanged with them."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from minires import data
from minires.exchange import weights
from minires.nets import registry
from minires.nets.resnet import ZeroPadShortcut

if not all(map(importlib.util.find_spec, ("torch", "torchvision"))) and not os.environ.get("CI"):
    pytest.skip("optional peers are missing: pip install -e '.[peers]'", allow_module_level=True)

import torch

from minires.exchange import torch_twin

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def models():
    """torchvision's models; beside some builds of PyTorch they need two ops that are not there."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        from torchvision import models
    except RuntimeError:
        for op in ("nms", "qnms"):
            library.define(f"{op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        from torchvision import models
    return models


def randomised(make, seed):
    """A model of torchvision with random weights, scales, shifts, means and variances."""
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, t in model.state_dict().items():
        if t.ndim >= 2:
            t.normal_(0, (2 / t[0].numel()) ** 0.5, generator=generator)
        elif t.ndim == 0:
            t.fill_(3)
        elif name.endswith(("running_var", "weight")):
            t.uniform_(0.5, 1.0, generator=generator)
        else:
            t.normal_(0, 0.1, generator=generator)
    return model.eval()


def logits(model, x):
    """Logits of a PyTorch model for images (N, H, W, C)."""
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()


def relative(ours, theirs):
    """Largest difference, over the largest logit."""
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


NETWORKS = {
    **{f"resnet{n}": (f"imagenet-resnet{n}-torchvision", 64) for n in (18, 34, 50, 101, 152)},
    "alexnet": ("alexnet-torchvision", 224),
    "vgg16_bn": ("vgg16bn", 224),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchvisions_networks_give_our_logits_both_ways(models, tmp_path, name):
    ours, side = NETWORKS[name]
    model = randomised(getattr(models, name), seed=1)
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    net, about = weights.load_network(ours, path)
    assert (about["names"], about["kind"]) == ("torchvision", "torch zip")
    x = np.random.default_rng(0).standard_normal((1, side, side, 3))

    path.write_bytes(weights.to_bytes(net, "torchvision", "torch"))
    back = torch.load(path, weights_only=True)
    with torch.device("meta"):
        again = getattr(models, name)()
    again.to_empty(device="cpu").eval().load_state_dict(back, strict=True)
    for key, t in model.state_dict().items():
        if t.ndim:
            assert torch.equal(again.state_dict()[key], t), key

    assert relative(net.forward(x.astype("float32")), logits(model, x.astype("float32"))) < 1e-5
    assert relative(net.astype("float64").forward(x), logits(again.double(), x)) < 1e-10


# ------------------------------------------------------- networks that others trained for CIFAR-10


@pytest.fixture(scope="module")
def trained():
    """Folder of the weights that MINIRES_WEIGHTS names, or ../shared/data/weights.

    In CI their absence is a failure.
    """
    beside = Path(__file__).parents[2] / "shared/data/weights"
    folder = Path(os.environ.get("MINIRES_WEIGHTS", beside))
    if not folder.is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "set MINIRES_WEIGHTS to the folder of the trained weights of akamaster"
        )
    return folder


@pytest.fixture(scope="module")
def jpeg_copy(cifar10_folder):
    found = data.load("cifar10", cifar10_folder)
    if found.name != "CIFAR-10 (JPEG copy)":
        pytest.skip(f"the expected errors are those of the JPEG copy, this is {found.name}")
    return found.with_images(normalise="imagenet")


class BothSides(torch.nn.Module):
    """Option A as akamaster writes it: half of the zeros on each side of the channels."""

    def __init__(self, layer):
        super().__init__()
        self.K, self.stride = layer.K, layer.stride

    def forward(self, x):
        side = (self.K - x.shape[1]) // 2
        sampled = x[:, :, :: self.stride, :: self.stride]
        return torch.nn.functional.pad(sampled, (0, 0, 0, 0, side, side))


@pytest.fixture
def twin_with_zeros_on_both_sides(monkeypatch):
    monkeypatch.setitem(torch_twin.MODULES, ZeroPadShortcut, BothSides)

    def make(name, path):
        """The network in PyTorch, with the file's weights as PyTorch reads them."""
        twin = torch_twin.as_torch(registry.by_name(name))
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        with torch.no_grad():
            for ours, theirs in zip(twin.state_dict().values(), _in_order(state), strict=True):
                ours.copy_(theirs)
        return twin.eval()

    return make


def _in_order(state):
    """The file's tensors, with the counter of batches that today's batch norm has."""
    for name, t in state.items():
        yield t
        if name.endswith("running_var"):
            yield torch.tensor(0)


@pytest.mark.cifar10
@pytest.mark.parametrize(
    ("name", "file", "error"),
    [("resnet20", "resnet20-12fca82f.th", 0.1897), ("resnet32", "resnet32-d509ac18.th", 0.1744)],
)
def test_networks_that_others_trained_predict_what_they_do_in_pytorch(
    trained, jpeg_copy, twin_with_zeros_on_both_sides, name, file, error
):
    net, about = weights.load_network(name, trained / file)
    assert (about["names"], about["zeros"], about["kind"]) == ("akamaster", "both", "torch legacy")
    twin = twin_with_zeros_on_both_sides(name, trained / file)
    images, labels = jpeg_copy.test[:]
    net.use("numba" if importlib.util.find_spec("numba") else "numpy")
    ours, theirs = [], []
    for start in range(0, len(images), 500):
        x = jpeg_copy.prepare(images[start : start + 500], None)
        ours.append(net.forward(x).argmax(axis=1))
        theirs.append(logits(twin, x).argmax(axis=1))
    np.testing.assert_array_equal(np.concatenate(ours), np.concatenate(theirs))
    assert (np.concatenate(ours) != labels).mean() == error

    x = jpeg_copy.prepare(images[:64], None).astype("float64")
    exact = net.use("numpy").astype("float64").forward(x)
    assert relative(exact, logits(twin.double(), x)) < 1e-12
