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
# # 10. Why does a 152-layer net cost less than VGG-19?
#
# In 2014 VGG's networks had 16 and 19 layers, and they were slow. A year later one had 152 layers and needed fewer multiplications for a picture. Deeper and cheaper at once: where did the cost go? And if multiplications are what counts, does the deeper net also take less time?
#
# - **Time:** 60 minutes; the notebook runs for one to two.
# - **You need:** [lesson 1](01_convolution.ipynb); [lesson 6](06_residual_learning.ipynb) for the shortcut. [Lesson 8](08_the_machines_limit.ipynb) explains the roofline, which this one uses.
# - **Afterwards you can** find the expensive layers of any network, say what a bottleneck saves and what it does not, tell the field that a unit *can* see from the one it uses, and read "3.57 %" with its conditions.

# %% jupyter={"source_hidden": true}
import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # one thread: the roofline below is that of a core

import draw_imagenet
import numpy as np
import time_blocks
from style import claims, counting, say, show, source, table

from minires import get_ops
from minires.data import (
    batch_indices,
    crop_and_flip,
    normalise,
    per_pixel_mean,
    pictures,
    shapes10,
    stream,
)
from minires.exchange.blank import blank
from minires.lab.studies.receptive import influence, side_of
from minires.lab.studies.transfer import with_statistics_of
from minires.layers import Conv2d
from minires.layers.describe import see_through
from minires.nets import registry
from minires.nets.audit import audit
from minires.nets.resnet import basic_body, bottleneck_body, make_shortcut
from minires.ops import default_backend, prepare
from minires.optim import SGD
from minires.train import testing
from minires.train.step import train_step

prepare(default_backend())  # compile what is needed, once
rng = np.random.default_rng(10)

# %% [markdown]
# ## The surprise
#
# An *audit* describes each layer of a network without running it: output shape, parameters, multiply-adds (one multiplication and one addition, for one picture, forward). The array of rows, columns and channels that a layer writes is its *map*. We add up the multiply-adds by the size of the map that a layer writes.

# %%
names = ["vgg16", "vgg19", *(f"imagenet-resnet{depth}" for depth in (18, 34, 50, 101, 152))]
audits = {name: audit(blank(registry.facts(name))) for name in names}  # blank: no weights are drawn
title = {
    name: registry.facts(name)
    .name.removeprefix("imagenet-")
    .replace("resnet", "ResNet-")
    .replace("vgg", "VGG-")
    for name in names
}
by_map, depths = {}, {}
for name, rows in audits.items():
    cost = by_map[title[name]] = {}
    depths[title[name]] = sum(row.weighted for row in rows)
    for row in rows:
        size = row.shape[0] if len(row.shape) == 3 else 1
        cost[size] = cost.get(size, 0) + row.macs
total = {name: sum(cost.values()) for name, cost in by_map.items()}
show(
    draw_imagenet.costs(by_map, depths),
    f"Multiply-adds of seven networks as bars, split by map size. VGG-19: {total['VGG-19'] / 1e9:.1f} billion, more than half of it on maps of 224 to 56 rows. "
    f"ResNet-152: {total['ResNet-152'] / 1e9:.1f} billion, most of it on maps of 14 rows.",
)

# %% jupyter={"source_hidden": true}
second = next(row for row in audits["vgg19"][1:] if row.macs)
large = {
    name: sum(cost.get(size, 0) for size in (224, 112, 56)) / total[name]
    for name, cost in by_map.items()
}
say(f"""
    ResNet-152 has {depths["ResNet-152"] / depths["VGG-19"]:.0f} times the layers of VGG-19 and {total["ResNet-152"] / total["VGG-19"]:.1%} of its multiply-adds.
    VGG-19 spends {large["VGG-19"]:.1%} on maps with 56 rows or more, ResNet-152 {large["ResNet-152"]:.1%}. VGG's *second layer alone* costs {second.macs / 1e9:.2f}·10⁹, and all of ResNet-18 costs {total["ResNet-18"] / 1e9:.2f}·10⁹.
    A ResNet comes down to 56 rows with one convolution and one pooling. {by_map["ResNet-152"][14] / total["ResNet-152"]:.0%} of ResNet-152 is on maps with 14 rows.
    (The paper prints 15.3·10⁹ for VGG-16 and 3.8·10⁹ for ResNet-50. The audit counts the linear layers too; without them VGG-16 has {(total["VGG-16"] - by_map["VGG-16"][1]) / 1e9:.2f}·10⁹. ResNet-50 has {total["ResNet-50"] / 1e9:.2f}·10⁹.)
""")
assert total["ResNet-152"] < total["VGG-19"]
assert second.macs > total["ResNet-18"]

# %% [markdown]
# So half of the answer is the *stem*: it shrinks the picture early. The other half is how 152 layers fit into what is left.

# %% [markdown]
# ## By hand
#
# Two ways to build a residual block, for a map of 56x56 (figure 5 of the paper):
#
# - **basic**, on 64 channels: two convolutions of 3x3. Weights: $2\cdot 9\cdot 64\cdot 64$.
# - **bottleneck**, on 256 channels: a 1x1 down to 64 channels, a 3x3 on these 64, a 1x1 up to 256. Weights: $256\cdot 64 + 9\cdot 64\cdot 64 + 64\cdot 256$.
#
# The second one has a layer more, and its input and output have four times as many channels. Which has more weights?


# %%
def weights(body):
    """Weights of the convolutions of a block."""
    return sum(
        layer.params["w"].size for layer in body.children.values() if isinstance(layer, Conv2d)
    )


basic, bottleneck = basic_body(64, 64, 1, rng), bottleneck_body(256, 256, 1, rng)
wide = basic_body(256, 256, 1, rng)
assert weights(basic) == 2 * 9 * 64 * 64
assert weights(bottleneck) == 256 * 64 + 9 * 64 * 64 + 64 * 256
table(
    ["block", "layers", "channels in and out", "weights", "multiply-adds at 56x56"],
    [
        [name, n, C, f"{weights(body):,}", f"{body.describe((56, 56, C)).macs:,}"]
        for name, n, C, body in (
            ("basic", 2, 64, basic),
            ("bottleneck", 3, 256, bottleneck),
            ("basic on 256 channels", 2, 256, wide),
        )
    ],
)
assert weights(bottleneck) < weights(basic)

# %% [markdown]
# Three layers on 256 channels have *fewer* weights than two on 64. On the blackboard, in units of $64\cdot 64$: $4 + 9 + 4 = 17$ against $9 + 9 = 18$. A basic block on 256 channels has $16\cdot 18 = 288$, 17 times the bottleneck.

# %% [markdown]
# ## The equation
#
# A convolution with $K$ filters of $K_H\times K_W$ on $C$ channels, that writes a map of $O_H\times O_W$, has
#
# $$\text{weights} = K_H K_W\, C K, \qquad \text{multiply-adds} = O_H O_W \cdot K_H K_W\, C K .$$
#
# - Halve the map and double the channels: $O_H O_W$ falls by 4, $CK$ grows by 4. That is a design rule of the paper, and every stage costs the same per layer.
#
# A stack of layers with kernel sizes $k_i$ and strides $s_i$ sees, along each axis,
#
# $$r_i = r_{i-1} + (k_i - 1)\,j_{i-1}, \qquad j_i = s_i\, j_{i-1}, \qquad r_0 = j_0 = 1 .$$
#
# - $r_i$: rows of the picture that can reach one unit of layer $i$, its *receptive field*;
# - $j_i$: rows of the picture from one unit to the next.

# %%
x = rng.standard_normal((1, 15, 15, 2), dtype=np.float32)
conv = Conv2d(2, 5, 3, 2, 1, rng=rng)
y, _ = get_ops("numpy").conv2d_forward(x, conv.params["w"], 2, 1)
described = conv.describe(x.shape[1:])
assert described.y_shape == y.shape[1:]
assert described.macs == y.shape[1] * y.shape[2] * 3 * 3 * 2 * 5

r = j = 1
for k, s in [(7, 2), (3, 2), *[(3, 1)] * 6, (3, 2), (3, 1)]:  # ResNet-34 up to the second stage
    r, j = r + (k - 1) * j, s * j
(row,) = (row for row in audits["imagenet-resnet34"] if row.name == "stage2.block1.body.conv2")
assert row.window == (r, r)

# %% [markdown]
# ## The code

# %%
source(bottleneck_body, make_shortcut, see_through)

# %% [markdown]
# ## The experiment: equal multiplications, unequal time
#
# Both blocks have nearly equally many multiply-adds. We run each layer of both, on one thread and on eight pictures, and count the bytes that it has to read and write at least: input, output, weights. The *roof* has two measured parts (lesson 8): on the right the speed of a large matrix product, on the left what memory allows, at the speed of a large copy.


# %%
backend = default_backend()
maps = {C: rng.standard_normal((8, 56, 56, C), dtype=np.float32) for C in (64, 256)}
with time_blocks.one_thread(backend):
    blocks = {
        "basic": time_blocks.steps(basic, maps[64], backend),
        "bottleneck": time_blocks.steps(bottleneck, maps[256], backend),
    }
    peak, bandwidth = time_blocks.limits()

# %%
ratio = {
    what: sum(getattr(m, what) for m in blocks["bottleneck"])
    / sum(getattr(m, what) for m in blocks["basic"])
    for what in ("macs", "moved", "seconds")
}
of_convs = {name: sum(m.macs for m in rows if m.kind != "rest") for name, rows in blocks.items()}
show(
    draw_imagenet.roofline(
        blocks,
        peak,
        bandwidth,
        f"{of_convs['bottleneck'] / of_convs['basic']:.2f} times the multiplications, {ratio['moved']:.1f} times the bytes, {ratio['seconds']:.1f} times the time",
    ),
    "Left, stacked bars of time for the two blocks, split into 3x3 convolutions, 1x1 convolutions and the rest. Right, speed against operations per byte on logarithmic axes under a roof: "
    "3x3 convolutions far to the right, 1x1 convolutions in the middle, and sums, norms and ReLUs at the left. "
    + f"The roof is flat at {peak:.0f} billion operations a second, a matrix product.",
)

# %% jupyter={"source_hidden": true}
rate = {
    kind: np.mean([m.gflops for rows in blocks.values() for m in rows if m.kind == kind])
    for kind in ("3x3", "1x1", "rest")
}
knee = peak / bandwidth  # operations per byte from which the roof is flat
least = min(m.intensity for rows in blocks.values() for m in rows if m.kind != "rest")
as_products = {  # seconds if a 3x3 ran as fast as a matrix product
    name: sum(2e-9 * m.macs / peak if m.kind == "3x3" else m.seconds for m in rows)
    for name, rows in blocks.items()
}
say(f"""
    The bottleneck has {of_convs["bottleneck"] / of_convs["basic"]:.2f} times the multiply-adds of the basic block and takes {ratio["seconds"]:.1f} times as long here ({backend} backend).
    Its maps have four times the channels, so {ratio["moved"]:.1f} times the bytes must move, and norm, ReLU and sum do little else: memory bounds them.
    The convolutions do at least {least:.0f} operations per byte, and the roof is flat from {knee:.0f} on: {"arithmetic bounds them all, the 1x1 too" if least > knee else "the 1x1 lies near the corner, the 3x3 under the flat part"}. A 1x1 runs at {rate["1x1"]:.0f}·10⁹ operations a second, the matrix product at {peak:.0f}, a 3x3 at {rate["3x3"]:.0f}.{f" The 3x3 owes that to its algorithm: the compiled one of stride 1 multiplies less often than the formula counts (Winograd, lesson 8), which no 1x1 can. At the speed of a matrix product the bottleneck would take {as_products['bottleneck'] / as_products['basic']:.1f} times as long as the basic block." if backend == "numba" else ""}
    So multiply-adds compare networks of one kind. Between kinds they mislead, and only a clock decides.
""")
assert of_convs["bottleneck"] < of_convs["basic"]
assert 3 < ratio["moved"] < 3.5

# %% [markdown]
# Two remarks on the figure. The speeds count the multiply-adds of the formula above, so Winograd's algorithm shows as a higher speed and may lie above the flat roof. And the slope is that of memory: a point above it is a layer whose map was still in the cache.
#
# What does the bottleneck buy, then? *Depth and width* for the same multiplications: a third layer, and 256 channels to keep features in from block to block.

# %% [markdown]
# ## The experiment: how much does a unit see?
#
# Deeper nets see more: after stage 3 the formula says windows far larger than the picture. But that a pixel *can* reach a unit does not say by how much. So we ask the gradient: send random numbers back from the unit in the middle of stage 3 (conv4_x in the paper's table 1) to two pictures of noise, and look at the size of what arrives. The networks have their initial weights.

# %%
noise = rng.standard_normal((2, 224, 224, 3), dtype=np.float32)
seen = {}
for name in ("imagenet-plain34", "imagenet-resnet34", "imagenet-resnet50"):
    net = registry.by_name(name, rng=0).use(backend)
    last = [
        row
        for row in audits.get(name, audit(net))
        if row.name.startswith("stage3") and row.weighted
    ][-1]
    power = influence(net, "stage3", noise, rng=0)
    seen[name.removeprefix("imagenet-")] = (power, side_of(power), last.window[0])

# %%
show(
    draw_imagenet.fields(
        seen, "Before training a unit uses the middle of its window; with shortcuts a smaller part"
    ),
    "Three maps of 224x224 pixels with the influence of each pixel on one unit, on a logarithmic scale: a bright blob in the middle that fades outwards. A white square holds 95 % of it: "
    + "; ".join(
        f"{name} {side} pixels of a window of {window}" for name, (_, side, window) in seen.items()
    ),
)

# %% jupyter={"source_hidden": true}
say(f"""
    In plain-34 the window of such a unit has {seen["plain34"][2]} rows, and 95 % of the influence lies in a square of {seen["plain34"][1]}. In ResNet-34, with the same window, it is {seen["resnet34"][1]}.
    Every convolution spreads the gradient over a few more pixels, as a random walk spreads with each step: variances add up. So the window grows with the number of layers, and the used part with its root (Luo and others 2016). Shortcuts leave out steps, so the blob is smaller still. (The window is wider than the picture, so whatever plain-34 would use beyond the edge is missing here.)
""")
assert all(side < window for _, side, window in seen.values())
assert seen["resnet34"][1] < seen["plain34"][1]

# %% [markdown]
# ## The experiment: which 3.57 is it?
#
# "ResNet-152 has an error of 3.57 %" is in many texts. The paper and its authors' page have at least four numbers that could be meant. All four are *top-5* errors: a picture counts as wrong if its class is not among the five that the network finds most likely (*top-1*: if it is not the most likely one). And what do more views and more networks do? We measure that on what we can afford: four ResNet-8 with different seeds, trained for 150 steps on half-size shapes, with shifts by up to a pixel and mirror images. *Several scales* means that the picture is resized to several sizes and the answers are averaged. *Ten crops* are the four corners and the centre, each with its mirror image; the probabilities of all views are averaged.

# %%
images, labels = shapes10.images(4096, np.random.default_rng(11))
half = images[:, ::2, ::2]  # (4096, 16, 16, 3)
data = normalise(half, per_pixel_mean(half[:3096]))
known, test = data[:3096], data[3096:]
padded = np.pad(test, ((0, 0), (1, 1), (1, 1), (0, 0)))
crops = np.stack([pictures.ten_crop(picture, 16) for picture in padded])  # (1000, 10, 16, 16, 3)
assert np.array_equal(crops[:, 4], test)  # the fifth one is the centre

one_view, ten_views = [], []
for seed in counting(4, "networks trained"):
    net = registry.by_name("resnet8", rng=seed).use(backend)
    sgd = SGD(net.parameters())
    for i in range(150):
        rows = batch_indices(seed, i, 64, len(known))
        x = crop_and_flip(known[rows], stream(seed, "augment", i), pad=1)
        train_step(net, sgd, x, labels[rows], lr=0.05)
    with_statistics_of(net, known[:1000])
    views = [testing.softmax(net.forward(crops[:, k])) for k in range(10)]
    one_view.append(views[4])
    ten_views.append(testing.average(views))


def wrong(probabilities):
    """Error in percent."""
    return 100 * (probabilities.argmax(axis=1) != labels[3096:]).mean()


# %%
paper = [
    ("one crop,\nval", 6.7),
    ("ten crops,\nval", 5.71),
    ("five scales,\nval", 4.49),
    ("six nets,\ntest", 3.57),
]
ours = [
    ("one\nview", [wrong(p) for p in one_view]),
    ("ten\nviews", [wrong(p) for p in ten_views]),
    ("four nets,\none view", [wrong(testing.average(one_view))]),
    ("four nets,\nten views", [wrong(testing.average(ten_views))]),
]
mean = {name.replace("\n", " "): np.mean(errors) for name, errors in ours}
by_views = np.array([wrong(ten) - wrong(one) for ten, one in zip(ten_views, one_view, strict=True)])
heading = (
    "Another test, another error: views and networks are averaged"
    if by_views.max() < 0
    else "Another test, another error: averaging networks helps here, views hardly"
)
show(
    draw_imagenet.ladders(paper, ours, heading),
    "Left, top-5 errors of the paper: "
    + ", ".join(f"{n} {v}".replace("\n", " ") for n, v in paper)
    + ". Right, test errors of four small nets here: "
    + ", ".join(f"{n} {v:.1f}" for n, v in mean.items())
    + " percent on average.",
)

# %% jupyter={"source_hidden": true}
say(f"""
    3.57 % is the last bar: *six* networks (two of them with 152 layers), several scales, on the *test* set. A single ResNet-152 that looks once at the centre of a picture of the *validation* set has 6.7 %.
    Here, four networks change {mean["one view"]:.1f} % to {mean["four nets, one view"]:.1f} %. Ten views change the error of a network by {by_views.min():+.1f} to {by_views.max():+.1f} points, on average to {mean["ten views"]:.1f} %; both together give {mean["four nets, ten views"]:.1f} % (top-1, with ten classes). {"So views help each of these networks." if by_views.max() < 0 else "So for these small pictures and networks, views make no difference that we could tell from chance."} No weight changed.
    And the price is paid at every test: ten views cost ten times, six networks six times as much.
""")
assert mean["four nets, one view"] < mean["one view"]

# %% [markdown]
# Why does averaging help? Networks with different seeds are wrong on different pictures, and where they are, with less certainty. On two pictures by hand: one network says (0.6, 0.4) and (0.1, 0.9), another says (0.2, 0.8) and (0.3, 0.7). If the second class is right both times, the first one is wrong once; the average (0.4, 0.6), (0.2, 0.8) is right twice.

# %%
averaged = testing.average([np.array([[0.6, 0.4], [0.1, 0.9]]), np.array([[0.2, 0.8], [0.3, 0.7]])])
assert np.allclose(averaged, [[0.4, 0.6], [0.2, 0.8]])
assert (averaged.argmax(axis=1) == 1).all()

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Deeper networks cost more",
            f"152 layers: {total['ResNet-152'] / 1e9:.1f}·10⁹, 19 layers: {total['VGG-19'] / 1e9:.1f}·10⁹",
            "**no**: it depends on the size of the maps",
        ],
        [
            "A bottleneck makes a block cheaper",
            f"{weights(bottleneck):,} weights; basic block on 64 channels {weights(basic):,}, on 256 {weights(wide):,}",
            f"**depends on the other block**: {weights(wide) / weights(bottleneck):.0f} times fewer weights than a basic block on 256 channels, about as many as one on 64",
        ],
        [
            "A unit of stage 3 looks at the whole picture",
            f"window {seen['resnet34'][2]}, 95 % of the influence in {seen['resnet34'][1]} pixels",
            "it **can**; before training it uses the middle",
        ],
        [
            "ResNet-152 has 3.57 % error",
            "six networks, test set (paper, table 5); one network, one crop, validation set: 6.7 % (authors' page)",
            "**no**: an ensemble has",
        ],
        [
            "ResNet-34 costs 18 % of VGG-19",
            f"{total['ResNet-34'] / total['VGG-19']:.1%}",
            "yes, in multiply-adds",
        ],
    ]
)

# %% [markdown]
# The paper's numbers are from its tables 3 to 5 and, for one crop, from its authors' page (KaimingHe/deep-residual-networks). We trained none of these networks: 600,000 steps of 256 pictures are too much for a CPU.

# %% [markdown]
# ## What this does not show
#
# - **What a trained network looks at.** The influence was measured at the start. Luo and others found that training makes the used part larger.
# - **That the times hold elsewhere.** Other processors, batches and programs move every point under the roof. That the bottleneck moves more bytes holds everywhere.
# - **That depth is free.** A layer on a small map is cheap, but layers wait for each other: 152 steps in a row are slow where many processors share the work of one step.
# - **How the paper's four numbers would compare on one set.** Validation and test errors stand side by side above because the paper has no others.

# %% [markdown]
# ## Exercises
#
# **Now.** `minires info imagenet-resnet50`: which layer has the most parameters, and which has the most multiply-adds? Are they the same, and why not?
#
# **To think about.** VGG-16 has 138 million parameters, ResNet-152 has 60 million. Three quarters of VGG's are in one layer. Which one, what are its input and output, and what did ResNets put in its place?
#
# **For the weekend.** Write `ten_crops(picture, size)` with NumPy: the four corners and the centre, then their mirror images. Compare with `minires.data.pictures.ten_crop` on pictures that are not square. Then measure on shapes10 how much each of the ten views adds.

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.3, 3.4 and 4.1, tables 1 to 5, figure 5, 2015.
# - Simonyan, Zisserman: *Very Deep Convolutional Networks*, [arXiv 1409.1556](https://arxiv.org/abs/1409.1556), 2014. VGG.
# - Luo, Li, Urtasun, Zemel: *Understanding the Effective Receptive Field in Deep Convolutional Neural Networks*, [arXiv 1701.04128](https://arxiv.org/abs/1701.04128), 2016.
# - Krizhevsky, Sutskever, Hinton: *ImageNet Classification with Deep Convolutional Neural Networks*, NIPS 2012, section 4.1. The ten crops.
# - Williams, Waterman, Patterson: *Roofline*, Communications of the ACM 52(4), 2009.
# - [Lesson 8](08_the_machines_limit.ipynb): what limits a single layer.
