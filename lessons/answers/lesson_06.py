"""Lesson 6, for the weekend: a shortcut multiplied by 0.5, as a layer.

`Half` is the model answer, and `halved` puts it into a network. `WrongHalf` is the usual wrong one.
"""

from minires.layers import Layer
from minires.layers.describe import Description
from minires.nets.resnet import ResidualBlock


class Half(Layer):
    """The original shortcut, times 0.5."""

    def __init__(self, shortcut):
        super().__init__()
        self.shortcut = shortcut
        self.children = {"shortcut": shortcut}

    def forward(self, x, train=False):
        """Halve y."""
        return 0.5 * self.shortcut.forward(x, train)

    def backward(self, dy):
        """Halve dx: y is linear in what the shortcut returns."""
        return self.shortcut.backward(0.5 * dy)

    def describe(self, x_shape):
        """As the shortcut, with one more multiplication that is not counted."""
        original = self.shortcut.describe(x_shape)
        return Description("half", original.y_shape, original.macs)


class WrongHalf(Half):
    """The backward pass forgets the factor: the gradient check fails, and training would not tell."""

    def backward(self, dy):
        """Pass dy on."""
        return self.shortcut.backward(dy)


def halved(net, kind=Half):
    """Put the layer around every shortcut of a residual network, in place."""
    for _, layer in list(net.named_layers()):
        if isinstance(layer, ResidualBlock):
            layer.shortcut = kind(layer.shortcut)
            layer.children["shortcut"] = layer.shortcut
    return net
