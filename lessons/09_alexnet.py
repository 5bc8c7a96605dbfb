# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: jupytext,kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9. Which of AlexNet's six tricks did ResNet keep?
#
# Three years before ResNet, AlexNet (Krizhevsky, Sutskever and Hinton 2012) won the same contest. Its paper names six tricks: ReLU, two GPUs, local response normalisation, overlapping pooling, two kinds of data augmentation, and dropout. Some reviews of ResNet list them as if they belonged to it. We build each trick in its smallest form, measure what it does, and look up whether ResNet kept it.
#
# - **Time:** 60 minutes; the notebook runs for about one.
# - **You need:** [lesson 1](01_convolution.ipynb) for convolutions, [lesson 4](04_batch_norm.ipynb) for batch norm.
# - **Afterwards you can** say what each of the six tricks computes, in which unit its constants are given, and which of them a ResNet still has.

# %% jupyter={"source_hidden": true}
import tempfile
from pathlib import Path

import numpy as np
from style import claims, counting, say, source, table
from tricks import (
    colour_deviation,
    colour_strengths,
    competition,
    dependence,
    draw_ablations,
    draw_colours,
    draw_competition,
    draw_dropout,
    draw_islands,
    draw_live,
    draw_pooling,
    draw_race,
    race_in_words,
    reach,
    recorded_race,
    windows_of_a_pixel,
)

from minires import get_ops
from minires.data import ArraySplit, Dataset, shapes10
from minires.data.augment import COLOUR_STD, add_colour, colour_components
from minires.lab.race.arms import ARMS, Plan, racer
from minires.lab.race.results import ratio
from minires.layers import BatchNorm, Linear, MaxPool, ReLU
from minires.layers.alexnet import Dropout, LocalResponseNorm
from minires.nets.alexnet import alexnet
from minires.nets.registry import by_name
from minires.ops import default_backend, prepare
from minires.train.loop import train

prepare(default_backend())  # compile what is needed, once
ops = get_ops("numpy")
rng = np.random.default_rng(9)
data = shapes10.dataset(train=2000, test=500)  # 32x32 pixels, ten classes

# %% [markdown]
# ## The surprise
#
# Local response normalisation divides each activation by a power of the squares of its neighbours in other channels, so that "big activities" win against small ones. The paper gives four constants: $k = 2$, $n = 5$, $\alpha = 10^{-4}$, $\beta = 0.75$. It gives no unit for the activations. We draw activations of a given deviation and look at the factor by which the formula multiplies them.

# %%
draw_competition(np.geomspace(0.1, 1000, 25))

# %% jupyter={"source_hidden": true}
at_one, at_hundred = competition(1), competition(100)
say(f"""
    At deviation 1, every channel is multiplied by {at_one.mean():.4f}, with a spread of {at_one.std():.4f} between channels: a constant, $2^{{-0.75}} = {2**-0.75:.4f}$, and no competition. At deviation 100, the mean factor is {at_hundred.mean():.2f} and its spread {at_hundred.std():.2f}.
""")
assert abs(at_one.mean() - 2**-0.75) < 1e-3
assert at_hundred.std() > 100 * at_one.std()

# %% [markdown]
# So the same four numbers describe two different operations. AlexNet's inputs are pixels in 0 to 255 minus a mean, so its activations may be that large once it is trained. A network whose inputs are divided by 255, or which has batch norm, gets a multiplication by 0.595 instead. A trick with colours, further below, has the same trap.

# %% [markdown]
# ## By hand: three channels
#
# Take one pixel with three channels and windows of $n = 3$. With activations $(1, 2, 1)$, the sums of squares in the windows are $5, 6, 5$. Multiplied by $10^{-4}$ and added to 2 they are $s = 2.0005, 2.0006, 2.0005$. Nothing has happened. With $(100, 200, 100)$, the sums are 50,000, 60,000, 50,000, and $s$ is $7, 8, 7$: now the factor is $7^{-0.75} = 0.23$ at the sides and $8^{-0.75} = 0.21$ in the middle.

# %%
rows = []
for x in (np.array([1.0, 2.0, 1.0]), np.array([100.0, 200.0, 100.0])):
    y, (_, s, *_) = ops.local_response_norm_forward(x.reshape(1, 1, 1, 3), n=3)
    rows.append([x, s.ravel(), y.ravel() / x])
table(["x", "s", "factor"], [[", ".join(f"{v:.5g}" for v in a) for a in row] for row in rows])
assert np.allclose(rows[1][1], [7, 8, 7])

# %% [markdown]
# ## The equation: one line for each trick
#
# The letters: $x_c$ is the activation of channel $c$ at one pixel, $y$ the output, $C$ the number of channels.
#
# 1. **ReLU**: $y = \max(x, 0)$ instead of $y = \tanh(x)$. The slope of tanh is $1 - y^2$, which vanishes for large $|x|$: it *saturates*.
# 2. **Two groups** (two GPUs): the first half of the filters sees the first half of the channels, the second half the others. A filter of $5 \times 5$ on 48 channels has half of the weights of one on 96.
# 3. **Local response normalisation**: $y_c = x_c \, / \, \bigl(k + \alpha \sum_{|d - c| \le n/2} x_d^2\bigr)^{\beta}$, with the sum over channels $d$ that exist.
# 4. **Overlapping pooling**: windows of $z \times z$ pixels, $s$ pixels apart, with $s < z$. The paper has $z = 3$, $s = 2$.
# 5. **Augmentation**: random crops of $224 \times 224$ from $256 \times 256$ and reflections; and a shift of the colour of a whole image by $\sum_i \alpha_i \lambda_i p_i$. The vectors $p_i$ and numbers $\lambda_i$ are the eigenvectors and eigenvalues of the covariance of red, green and blue over the training pixels; $\alpha_i \sim N(0, 0.1^2)$ is drawn once for each image.
# 6. **Dropout**: $y = m x$, where $m$ is 0 with probability $r$ and $1 / (1 - r)$ otherwise; $y = x$ at test time. The paper does it the other way round, with $m \in \{0, 1\}$ in training and a factor of $1 - r = 0.5$ at test time. Both have the same means.

# %%
x = rng.standard_normal((2, 3, 3, 8)) * 50
squares = np.array(
    [(x[..., max(0, c - 2) : c + 3] ** 2).sum(axis=-1) for c in range(8)]
)  # (8, 2, 3, 3)
by_formula = x / (2 + 1e-4 * np.moveaxis(squares, 0, -1)) ** 0.75
assert np.allclose(ops.local_response_norm_forward(x)[0], by_formula)

images = data.train.images[:4].astype(np.float64)
values, vectors = colour_components(data.train.images)
alpha = COLOUR_STD * rng.standard_normal((4, 3))
shift = np.array([sum(a[i] * values[i] * vectors[:, i] for i in range(3)) for a in alpha])
assert np.allclose(add_colour(images, alpha, values, vectors) - images, shift[:, None, None])

# %% [markdown]
# ## The code
#
# The whole of local response normalisation, and the mask of dropout:

# %%
source(ops.local_response_norm_forward, ops.local_response_norm_backward, Dropout.mask)

# %% [markdown]
# Two traps are in these few lines. PyTorch and Caffe divide $\alpha$ by $n$, so the same arguments mean a five times weaker normalisation there. And the backward pass has two paths: a channel changes its own numerator *and* the denominators of its neighbours.

# %% [markdown]
# ## The experiment: ReLU races tanh
#
# Figure 1 of the paper: a network of four layers reaches a training error of 25 % on CIFAR-10 *six times faster* with ReLU than with tanh. The learning rate was chosen for each activation, and nothing was regularised. The paper does not publish that network, so ours (`alexnet-cifar`, three convolutions and a linear layer) cannot repeat its number. It can repeat the question, and add one: does the advantage survive batch norm?
#
# One pair runs here: both with batch norm, on half-size pictures of shapes10, at one rate and with one seed. It shows how a run of such a race ends: at the first measurement at or below the target. To be quick, the target is 50 %.

# %%
half = Dataset(
    "shapes10, half size",
    ArraySplit(data.train.images[:, ::2, ::2], data.train.labels),
    ArraySplit(data.test.images[:, ::2, ::2], data.test.labels),
    data.classes,
    data.source,
)
plan = Plan(
    ("relu-bn", "tanh-bn"),
    iterations=200,
    target=0.5,
    eval_every=20,
    images=500,
    batch_size=32,
    backend=default_backend(),
)
folder, live = Path(tempfile.mkdtemp()), {}
progress = iter(counting(2 * plan.iterations, "iterations, at most"))
for arm in plan.racing:
    entry = racer(plan, half, arm, lr=ARMS[arm].rates[2], seed=0)
    live[ARMS[arm].title] = train(entry.config, folder / arm, half, lambda p: next(progress))
list(progress)  # those that were not needed
draw_live(live)

# %% jupyter={"source_hidden": true}
lanes, ablations = recorded_race()
say(race_in_words(lanes, ablations))
draw_race(lanes)

# %% [markdown]
# What differs between the two? On the way forward tanh is bounded, and its outputs have both signs. On the way back it is the slope that a gradient is multiplied with. The slope of tanh is below 1 everywhere but at 0.

# %%
at = np.array([0.0, 0.5, 1.0, 2.0, 3.0])
slope = ops.tanh_backward(np.ones(5), ops.tanh_forward(at)[1])
table(["x", *at], [["slope of tanh", *slope.round(3)], ["slope of ReLU", 0, *np.ones(4)]])
assert np.allclose(slope, 1 - np.tanh(at) ** 2)

# %% jupyter={"source_hidden": true}
draw_ablations(ablations)

# %% [markdown]
# ## The experiment: channels, not positions
#
# Which inputs change one output of local response normalisation? We send a 1 back from the middle of an image of 5x5 pixels with 9 channels of deviation 100.

# %% jupyter={"source_hidden": true}
x = 100 * rng.standard_normal((1, 5, 5, 9))
g = dependence(LocalResponseNorm(), x)  # (5, 5, 9)
pixels, channels = np.argwhere(g.any(axis=2)), np.flatnonzero(g[2, 2])
say(
    f"Pixels: {len(pixels)}, the same one. Channels: {', '.join(map(str, channels))}, around channel 4."
)
assert len(pixels) == 1
assert channels.tolist() == [2, 3, 4, 5, 6]

# %% [markdown]
# ## The experiment: a picture moves by one pixel
#
# Does overlapping pooling lose less? We move 200 pictures sideways, pool them, and measure how far the pooled pictures move, as a share of the distance between two different pictures.

# %%
sample = data.test.images[:200].astype(np.float64)
changes = draw_pooling(sample, (0, 1, 2, 3, 4))
spread = {size: windows_of_a_pixel(size, pad) for size, pad in ((2, 0), (3, 1))}

# %% jupyter={"source_hidden": true}
say(f"""
    With windows of 2x2, a pixel belongs to one window: a bright pixel is the maximum of {spread[2]} window. With 3x3 it is the maximum of up to {spread[3]}, so that some of them still see it after a small move. The sizes of the outputs are equal: {ops.max_pool_forward(sample, 2, 2)[0].shape[1:3]} and {ops.max_pool_forward(sample, 3, 2, 1)[0].shape[1:3]}.
""")
assert spread == {2: 1, 3: 4}

# %% [markdown]
# ## The experiment: two islands
#
# AlexNet was too large for the memory of one GPU, so each held half of the channels. Convolutions 2, 4 and 5 see the channels of their own GPU only; convolution 3 sees all. We send a 1 back into one channel of the last convolution and watch which channels it reaches. ReLUs are left open, so only the connections decide.

# %%
reached = reach("conv5", channel=20)
draw_islands(reached, ["conv5", "conv4", "conv3", "conv2"])
halves = {name: (c[: len(c) // 2].any(), c[len(c) // 2 :].any()) for name, c in reached.items()}
assert halves["conv5"] == halves["conv4"] == (True, False)
assert halves["conv3"] == (True, True)

# %% [markdown]
# That is what the paper draws in its figure 2. The islands have a second, hidden bridge. Start at convolution 2, in the last channels of the first half:

# %%
reached = reach("conv2", channel=127)
behind = {name: np.flatnonzero(c[48:]) + 48 for name, c in reached.items() if len(c) == 96}
table(
    ["into the layer", "channels of the second GPU that get a gradient"],
    [[name, ", ".join(map(str, found)) or "none"] for name, found in behind.items()],
    others=":--",
)
assert len(behind["conv2"]) == 0
assert behind["lrn1"].tolist() == [48, 49]

# %% [markdown]
# Local response normalisation joins neighbouring channels, and the last two channels of one GPU are neighbours of the first two of the other. The paper does not say whether its windows stopped at that border; ours do not. Look for such bridges before you trust a drawing.

# %% jupyter={"source_hidden": true}
w = alexnet(67).children["conv2"].params["w"]
say(f"""
    The filters of convolution 2 have the shape {w.shape}: {w.size:,} weights, where full connections would need {2 * w.size:,}. Groups halve weights and multiplications. ResNet does not have them; its successor ResNeXt does, for the weights and not for the memory.
""")

# %% [markdown]
# ## The experiment: dropout, mean and variance
#
# One linear unit with 256 inputs, 5,000 masks of rate 0.5, always the same input:

# %%
x = np.maximum(rng.standard_normal((1, 256)), 0)
w = rng.standard_normal((256, 1)) / 16
layer = Dropout(0.5)
masks = [
    layer.reseed(np.random.SeedSequence(i)).mask(x.shape, np.dtype(float)) for i in range(5000)
]
training = np.array([(x * m @ w).item() for m in masks])
draw_dropout(training, (x @ w).item())

# %% jupyter={"source_hidden": true}
predicted = np.sqrt((x**2 * w.T**2).sum())  # rate / (1 - rate) = 1
rectified = np.maximum(training, 0).mean(), max((x @ w).item(), 0)
say(f"""
    The mean over the masks is {training.mean():.3f}, the value at test time {(x @ w).item():.3f}. The deviation is {training.std():.3f}; the formula $\\sqrt{{\\sum_i w_i^2 x_i^2 \\, r / (1 - r)}}$ says {predicted:.3f}. Behind a ReLU even the means differ: {rectified[0]:.3f} in training, {rectified[1]:.3f} at test time.
""")
error = 5 * predicted / np.sqrt(len(training))
assert abs(training.mean() - (x @ w).item()) < error
assert abs(training.std() / predicted - 1) < 5 / np.sqrt(2 * len(training))

# %% [markdown]
# Batch norm divides by a variance. Behind dropout, the variance in training is larger than the one at test time, and the running statistics fit only one of the two (Li and others 2018). ResNet has batch norm everywhere and no dropout. The paper says that it leaves dropout out on purpose.

# %% [markdown]
# ## The experiment: colours on a contact sheet
#
# The colour trick multiplies by *eigenvalues*. An eigenvalue of a covariance has the unit of a variance: grey levels squared. So the result depends on whether pixels are counted from 0 to 255 or from 0 to 1. A third reading takes the square roots, which have the unit of a pixel.

# %%
draw_colours(data.test.images[:6], data.train.images)
table(
    ["reading", "deviation of the shift, grey levels"],
    [
        [name, f"{colour_deviation(data.train.images, strengths):.1f}"]
        for name, strengths in colour_strengths(data.train.images).items()
    ],
)

# %% [markdown]
# Taken literally, on pixels in 0 to 255, the formula leaves little of the pictures: some turn black, others lose all contrast. In the other two readings the shift is hardly visible. On CIFAR-10, whose colours vary more, it is worse. Programs for ImageNet use eigenvalues of pixels in 0 to 1, and `minires train --pca-colour` does the same. ResNet kept this trick on ImageNet ("the standard color augmentation in [21] is used", section 3.4), and did without it on CIFAR-10.

# %% [markdown]
# ## Claims put to the test
#
# First the six tricks. The middle column counts layers in `imagenet-resnet50`, the network of the paper's table 1.

# %%
net = by_name("imagenet-resnet50")
layers = [layer for _, layer in net.named_layers()]


def count(kind):
    """How many layers of the ResNet are of this kind."""
    return sum(isinstance(layer, kind) for layer in layers)


pools = [layer for layer in layers if isinstance(layer, MaxPool)]
groups = {layer.groups for layer in layers if hasattr(layer, "groups")}

# %%
table(
    ["trick", "in ResNet-50", "kept?"],
    [
        ["ReLU", f"{count(ReLU)} ReLU layers", "kept"],
        ["two groups (GPUs)", f"groups: {', '.join(map(str, groups))}", "dropped; back in ResNeXt"],
        [
            "local response norm",
            f"{count(LocalResponseNorm)}; batch norm: {count(BatchNorm)}",
            "replaced by batch norm",
        ],
        [
            "overlapping pooling",
            f"{len(pools)} max pool, {pools[0].size} wide, stride {pools[0].stride}",
            "kept, once",
        ],
        ["augmentation", "section 3.4: crops, reflections, colour", "kept; no colour on CIFAR-10"],
        ["dropout", f"{count(Dropout)} layers; {count(Linear)} linear layer", "dropped"],
    ],
    others=":--",
)
assert count(LocalResponseNorm) == count(Dropout) == 0
assert pools[0].size > pools[0].stride

# %% [markdown]
# And statements that stand in reviews of ResNet on the web. "Argument" marks what was not measured here.

# %% jupyter={"source_hidden": true}
tanh_ratio = ratio(lanes, "tanh")
speed = (
    f"recorded race: tanh needs {tanh_ratio}"
    if tanh_ratio
    else "argument: section 3.1 of AlexNet, and the slopes above"
)
shape = ops.max_pool_forward(sample, 3, 2, 1)[0].shape
positions = (256 - 224 + 1) ** 2  # the first row of a crop is row 0, 1, ... or 32
claims(
    [
        [
            "ResNet uses local response norm, dropout and two GPUs",
            f"{count(LocalResponseNorm)} and {count(Dropout)} layers in ResNet-50",
            "wrong: that is AlexNet",
        ],
        [
            "ResNet's error rate is 3.57 %",
            "argument: table 5 says top-5, test set, six networks together",
            "incomplete: one ResNet-152 has 4.49 % (validation)",
        ],
        [
            "The feature map that pooling makes is z x z",
            f"z = 3 makes {shape[1]} x {shape[2]} of 32 x 32",
            "wrong: z x z is the window",
        ],
        [
            "Overlapping pooling brings the error to 0.4 % and 0.3 %",
            "argument: section 3.4 of AlexNet compares two networks",
            "wrong: by 0.4 and 0.3 points (top-1, top-5)",
        ],
        [
            "Local response norm divides by neighbours in the map",
            f"reached: {len(pixels)} pixel, {len(channels)} channels",
            "wrong: neighbouring channels, same position",
        ],
        [
            "Reflections are the random crops",
            f"33 x 33 positions x 2 reflections = {2 * positions:,} views; the paper counts 32 x 32 x 2 = 2048",
            "wrong: there are two parts",
        ],
        [
            "AlexNet takes ReLU to prevent vanishing gradients",
            speed,
            "the paper argues with speed: saturation is slow",
        ],
    ]
)
assert positions == 33 * 33

# %% [markdown]
# ## What this does not show
#
# - Whether ReLU is six times faster *in AlexNet*. The paper measured a network of four layers that it does not describe, and says that the size of the effect varies with the architecture.
# - What each trick is worth on ImageNet. The paper's 1.4 and 1.2 points for local response normalisation, or 0.4 and 0.3 for overlapping pooling, come from one run each, with pictures and a network that no lesson can train.
# - That the live pair is fair. It has one rate for both activations and one seed. `minires race` chooses a rate for each, from five, and runs three seeds.
# - That batch norm made dropout useless. ResNet left it out; wide residual networks put it back between convolutions (Zagoruyko and Komodakis 2016).

# %% [markdown]
# ## Exercises
#
# **Now.** Draw windows of 5x5 with stride 2 too: `draw_pooling(sample, (0, 1, 2, 3, 4), wide=True)`. Does the change at one pixel fall further? What is lost?
#
# **To think about.** Write local response normalisation for activations that are divided by 255. Which constants give the same function?
#
# **For the weekend.** Run `minires race --arms relu,tanh --dataset shapes10`. Is the ratio that of CIFAR-10? Then let `tanh` start with other weights (`minires train alexnet-cifar-tanh --init normal`) and compare.

# %% [markdown]
# ## Where to read on
#
# - Krizhevsky, Sutskever, Hinton: *ImageNet Classification with Deep Convolutional Neural Networks*, NIPS 2012. Section 3 has four of the tricks, section 4 the other two.
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.3 and 3.4, 2015. What ResNet does instead.
# - Srivastava and others: *Dropout*, Journal of Machine Learning Research 15, 2014.
# - Li and others: *Understanding the Disharmony between Dropout and Batch Normalization*, [arXiv 1801.05134](https://arxiv.org/abs/1801.05134), 2018.
# - Zhang: *Making Convolutional Networks Shift-Invariant Again*, [arXiv 1904.11486](https://arxiv.org/abs/1904.11486), 2019. Pooling and moving pictures.
# - Zagoruyko, Komodakis: *Wide Residual Networks*, [arXiv 1605.07146](https://arxiv.org/abs/1605.07146), 2016.
