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
# # 11. Why does it work?
#
# An addition of $x$, and 56 layers train as well as 20. The paper does not say why; it guesses. In the ten years since then, others have offered explanations. Each is a statement about something that can be measured on a plain network and on its residual twin. Here four of them stand on one bench: the same networks, a few seconds each, and for each one the question *what would refute it?*
#
# - **Time:** 60 minutes; the notebook runs for less than a minute.
# - **You need:** [lesson 5b](05b_gradients.ipynb) for what was excluded, [lesson 6](06_residual_learning.ipynb) for the backward pass of a block.
# - **Afterwards you can** measure how alike the gradients of neighbouring inputs are, take a trained network apart, read a picture of a loss landscape with care, and say what an explanation would have to survive.

# %% jupyter={"source_hidden": true}
import json

import numpy as np
from draw_why import changed_blocks, paths, shattered, slices, tents, variants
from style import RECORDS, claims, say, show, source, table

from minires import resnet
from minires.data import normalise, per_pixel_mean, shapes10
from minires.lab.studies.blocks import gradients_by_path
from minires.lab.studies.shattered import cosines, input_gradients
from minires.lab.studies.slices import direction
from minires.lab.studies.variants import VARIANTS, gradients_by_block, vary
from minires.ops import default_backend, prepare

prepare(default_backend())  # compile what is needed, once
images, labels = shapes10.images(64, np.random.default_rng(11))
x = normalise(images, per_pixel_mean(images))[:, ::2, ::2]  # (64, 16, 16, 3), to be quick
record, recomputed = (
    json.loads((RECORDS / name).read_text(encoding="utf-8"))
    for name in ("why.json", "why-recomputed.json")
)

# %% [markdown]
# ## The surprise
#
# Take two pictures, and 31 more on the line between them: each a little less of the first and a little more of the second. For each of the 33 compute the gradient of one and the same output with respect to the *pixels*. Two neighbours on the line are hardly different for the eye. How alike are their gradients? (The *cosine* of two arrays is 1 if they point in one direction, and 0 if they have nothing in common.) All networks are untrained; batch norm uses fixed statistics of 64 other pictures, so that no picture changes the gradient of another (lesson 4).

# %%
SEEDS = 3
NETS = [f"{kind}{depth}" for kind in ("plain", "resnet") for depth in (8, 20, 32, 56)]
by_distance = {
    net: [cosines(input_gradients(net, seed=seed)) for seed in range(SEEDS)] for net in NETS
}
neighbours = {net: [float(curve[1]) for curve in curves] for net, curves in by_distance.items()}
show(
    shattered(neighbours, by_distance),
    "Left: cosine of the input gradients of two neighbours by depth; the plain curve falls to 0 from 8 to 56 layers, the residual one falls slowly and stays far above 0. "
    "Right: for 20 layers, cosine by distance on the line; the plain one falls to 0 within a few steps, the residual one slowly.",
)

# %% jupyter={"source_hidden": true}
mean = {net: round(float(np.mean(values)), 2) + 0.0 for net, values in neighbours.items()}
table(
    [f"cosine of neighbours, mean of {SEEDS} seeds", *(f"{d} layers" for d in (8, 20, 32, 56))],
    [[k, *(f"{mean[f'{k}{d}']:.2f}" for d in (8, 20, 32, 56))] for k in ("plain", "resnet")],
)
say(f"""
    In plain-56 the gradients of two neighbours have a cosine of **{mean["plain56"]:.2f}**, in ResNet-56 of **{mean["resnet56"]:.2f}**; with 20 layers {mean["plain20"]:.2f} and {mean["resnet20"]:.2f}. A gradient is a promise: "move this way and the output rises". In the deep plain network the promise for one picture says nothing about a picture that is nearly the same.
""")
assert mean["plain20"] < mean["resnet20"] - 0.3
assert mean["plain56"] < 0.1 < mean["resnet56"] - 0.1

# %% [markdown]
# ## By hand
#
# Why does depth do that? The smallest network that shows it has one number in each layer: the *tent* $t(x) = 2\max(x, 0) - 4\max(x - \frac12, 0)$, two ReLUs. It has slope 2 below $\frac12$ and slope $-2$ above.
#
# Put three in a row, and follow two neighbours:
#
# | | $x$ | slopes of the three tents | slope of the chain |
# |:--|--:|--:|--:|
# | plain | 0.3 | 2, -2, -2 | **8** |
# | plain | 0.4 | 2, -2, 2 | **-8** |
# | residual, $x + t(x)/4$ | 0.3 | 1.5, 1.5, 0.5 | **1.125** |
# | residual, $x + t(x)/4$ | 0.4 | 1.5, 0.5, 0.5 | **0.375** |
#
# Each tent doubles the number of folds: after $L$ of them there are $2^L$ pieces, and the slope changes its sign from each to the next. With $x$ added *and a body that is small beside it*, a quarter of the tent, every block has slope 1.5 or 0.5. Neighbours may differ, but they never disagree on the direction. The addition alone does not do that: $x + t(x)$ has the slopes 3 and -1, and three such blocks change their sign again. In a residual network the body becomes small beside $x$ because $x$ grows from block to block ([lesson 6](06_residual_learning.ipynb)).


# %%
def tent(x):
    return 2 * np.maximum(x, 0) - 4 * np.maximum(x - 0.5, 0)


def chain(x, block, times=3):
    for _ in range(times):
        x = block(x)
    return x


def leaning(x):
    return x + tent(x) / 4


h = 1e-6
for block, expected in ((tent, (8, -8)), (leaning, (1.125, 0.375))):
    slopes = [(chain(v + h, block) - chain(v - h, block)) / (2 * h) for v in (0.3, 0.4)]
    assert np.allclose(slopes, expected)
line = np.linspace(0, 1, 801)
signs = {
    name: np.unique(np.sign(np.diff(chain(line, block))))
    for name, block in (("x + t/4", leaning), ("x + t", lambda v: v + tent(v)))
}
assert signs["x + t/4"].tolist() == [1]  # always rising
assert signs["x + t"].tolist() == [-1, 1]  # rising and falling
show(
    tents((line, chain(line, tent)), (line, chain(line, leaning))),
    "Left: three tents in a row, a zigzag with eight pieces between 0 and 1. Right: three times x plus a quarter of a tent: a line that bends and always rises. Two dotted lines mark x = 0.3 and x = 0.4.",
)

# %% [markdown]
# ## The equation
#
# Four explanations, each with the quantity that it is about. A block is $z = S(x) + F(x)$, with the shortcut $S$ and the body $F$; $F'$ and $S'$ are their Jacobians.
#
# 1. **Shattered gradients** (Balduzzi and others 2017). For pictures $a$ and $b$ at a small distance, $\cos\big(\nabla f(a), \nabla f(b)\big)$ falls to 0 with depth in plain networks, and slowly in residual ones.
# 2. **Many shallow networks** (Veit and others 2016). Multiply out the product $\prod_{l=1}^{B} (S_l' + F_l')$ in the backward pass of $B$ blocks. It is a sum over $2^B$ *paths*, each through $k$ bodies and around $B - k$; there are $\binom Bk$ of each length. Let $G_k$ be the part of the gradient that went through $k$ bodies. The claim: short paths carry it, and no single block is necessary.
# 3. **A smoother landscape** (Li and others 2018). The loss $L(w + \alpha d)$ along a random direction $d$. Every filter of $d$ is as long as that of $w$, $\lVert d_k \rVert = \lVert w_k \rVert$, since the length of a filter in front of a batch norm has no effect (lesson 5b).
# 4. **A free way for the signal** (He and others 2016). If shortcut $l$ multiplies by $\lambda_l$, the path around all blocks has the factor $\prod_l \lambda_l$. Only $\lambda = 1$ neither vanishes nor explodes with depth.

# %% [markdown]
# ## The code
#
# The studies are in `minires/lab/studies`. These two functions measure cosines by distance, and the gradient by length of path. In the second one `sums[k]` is the gradient that went through $k$ bodies so far; a block turns it into `around[k] + through[k - 1]`:

# %%
source(cosines, gradients_by_path)

# %%
# the sum over all lengths is the gradient itself
small = resnet(8, rng=0).astype("float64")
values = x[:8].astype("float64")
by_length = gradients_by_path(small, values, labels[:8])
whole = gradients_by_block(small, values, labels[:8])[0]
assert len(by_length) == 3 + 1  # three blocks
assert np.isclose(np.sqrt((by_length.sum(axis=0) ** 2).mean()), whole)
along = direction(small, 0)
for name, w in small.parameters().items():
    if w.ndim > 1:
        lengths = (np.linalg.norm(a.reshape(-1, a.shape[-1]), axis=0) for a in (w, along[name]))
        assert np.allclose(*lengths)

# %% [markdown]
# ## The experiment: take a block out
#
# Here are the recorded weights of plain-20 and ResNet-20 after 2,000 steps on CIFAR-10 (from the short record, lesson 7b). We take out one block at a time, without training again: the signal passes by. Then we exchange two neighbouring blocks. Batch norm's statistics are first those of the whole network (bars), then recomputed on training images for the changed one (diamonds). Blocks that change the shape stay where they are. Before you look: how bad will it be?

# %%
show(
    changed_blocks(record, recomputed),
    "Bars: test error after removing each of seven blocks, and after exchanging two, for plain20 and resnet20; dashed lines are the errors of the whole networks. "
    "For plain20 all bars are near the error of a guess, for resnet20 they lie between its own error and about two thirds. Diamonds show the errors with recomputed statistics.",
)

# %% jupyter={"source_hidden": true}
spans = {
    (net, kind): (min(record[net][kind].values()), max(record[net][kind].values()))
    for net in ("plain20", "resnet20")
    for kind in ("removed", "exchanged")
}
fresh = {
    net: (min(found["removed"].values()), max(found["removed"].values()))
    for net, found in recomputed.items()
    if net in ("plain20", "resnet20")
}
cheap = sum(
    error < recomputed["resnet20"]["error"] + 5
    for error in recomputed["resnet20"]["removed"].values()
)
say(f"""
    Plain-20 has {record["plain20"]["error"]:.0f} % test error. Without one block it has {spans["plain20", "removed"][0]:.0f} to **{spans["plain20", "removed"][1]:.0f} %**, and a guess has 90 %: each layer expects the output of the one before it. ResNet-20 goes from {record["resnet20"]["error"]:.0f} % to {spans["resnet20", "removed"][0]:.0f} to **{spans["resnet20", "removed"][1]:.0f} %**. After an exchange the two have {spans["plain20", "exchanged"][0]:.0f} to {spans["plain20", "exchanged"][1]:.0f} % and {spans["resnet20", "exchanged"][0]:.0f} to {spans["resnet20", "exchanged"][1]:.0f} %.
    How much of that is the fault of stale statistics? Recomputed on {recomputed["statistics"]:,} training images, plain-20 without one block has {fresh["plain20"][0]:.0f} to {fresh["plain20"][1]:.0f} %, and ResNet-20 {fresh["resnet20"][0]:.0f} to {fresh["resnet20"][1]:.0f} %: for {cheap} of its 7 blocks that is less than 5 points above the whole network. So a part of what looked like a missing block was a batch norm with the wrong mean and variance.
    Residual blocks depend on each other less, in both ways to measure it. Some accounts say that single blocks can be removed at no cost. In Veit and others' network of 54 blocks that holds for most of them; with 9 blocks it does not hold for all. ({record["images"]:,} test images, one seed.)
""")
assert spans["plain20", "removed"][0] > spans["resnet20", "removed"][1]
assert fresh["plain20"][0] > fresh["resnet20"][1]

# %% [markdown]
# ## The experiment: how long are the paths?
#
# ResNet-56 has 27 blocks and $2^{27}$ paths. Most of them go through 13 or 14 bodies. The backward pass is linear, so the gradient can be added up separately for every length, exactly, by carrying 28 gradients back instead of one.

# %%
net = resnet(56, rng=0).use(default_backend())
parts = gradients_by_path(net, x[:16], labels[:16])
norms = np.linalg.norm(parts.reshape(len(parts), -1), axis=1)
show(
    paths(norms),
    "Two bell-shaped curves by the number of bodies on the path: the number of paths has its maximum at 13 and 14; the gradient has its maximum at fewer bodies.",
)

# %% jupyter={"source_hidden": true}
lengths = np.arange(len(norms))
typical = float((norms * lengths).sum() / norms.sum())
say(f"""
    At the start the gradient of ResNet-56 is carried by paths through **{typical:.1f} bodies** on average, where the mean path has 13.5. (We add up the lengths of the parts; the parts are not at right angles to each other, so the shares are a rough measure.)
""")
trained = np.array(record["resnet20"]["paths"])
say(f"""
    In the trained ResNet-20 with its 9 blocks it is {float((trained * np.arange(10)).sum() / trained.sum()):.1f} bodies, where the mean path has 4.5: after training, in a small network, hardly shorter.
""")
assert typical < 13.5

# %% [markdown]
# ## The experiment: slices of the loss
#
# The pictures of loss landscapes that one sees in talks are slices like these: the loss along a random direction, filter by filter as long as the weights. Here they are for the two trained networks, on 250 training images. A slice *turns* where it stops falling and begins to rise, or the other way round: a smooth valley turns once.

# %%
show(
    slices(record),
    "Loss of trained plain20 and resnet20 along two random directions each: all four curves are smooth valleys with their lowest point in or next to the middle.",
)

# %% jupyter={"source_hidden": true}
distances = np.array(record["distances"])
near = abs(distances) <= 0.3001
rise = {
    net: np.mean([np.array(s)[near].max() - min(s) for s in record[net]["slices"]])
    for net in ("plain20", "resnet20")
}
bends = {
    net: max(int((np.diff(np.sign(np.diff(s))) != 0).sum()) for s in record[net]["slices"])
    for net in ("plain20", "resnet20")
}
say(f"""
    Within a distance of 0.3 the loss rises by {rise["plain20"]:.2f} in plain-20 and by {rise["resnet20"]:.2f} in ResNet-20, and turns {bends["plain20"]} and {bends["resnet20"]} times over the whole slice at most. **At 20 layers these slices do not tell a network that degrades from one that does not.** Li and others found chaotic slices for plain networks of 56 layers and more; ours of that depth have no recorded weights.
""")

# %% [markdown]
# ## The experiment: is the shortcut free?
#
# He and others (2016) changed the block of ResNet-110 in many ways and trained each: a shortcut times 0.5, gates, a 1x1 convolution, other orders of batch norm and ReLU. A *gate* is a learned factor $g$ between 0 and 1, computed from $x$: a *shortcut gate* multiplies the shortcut by $1 - g$, an *exclusive gate* also the body by $g$. Its *bias* says where $g$ begins: at 0.5 for a bias of 0, near 0 for -6, which leaves the shortcut open. *Full pre-activation* puts batch norm and ReLU in front of each convolution, and nothing behind the sum. Here are ten such blocks and the original (from tables 1 and 2; dropout on the shortcut, ReLU-only pre-activation and other biases are left out) **before any training**: how much larger is the gradient at the first block than at the last? The figure compares that with the error which they published after training. The *rank correlation* below compares two orders: 1 if they are the same, 0 if they have nothing in common.

# %%
DEPTH = 56
rows = {}
for name, (_, error) in VARIANTS.items():
    net = vary(DEPTH, name).use(default_backend())
    found = gradients_by_block(net, x[:32], labels[:32])
    rows[name] = float(found[0] / found[-1]), error
show(
    variants(rows),
    "Scatter plot: published error against the growth of the gradient before training. From full pre-activation and the original block at the lower left the points rise to the right; "
    "no shortcut and a shortcut times 0.5 grow fastest and did not train. Two points do not fit: an exclusive gate and ReLU before the sum.",
)


# %%
def agreement(names):
    """Rank correlation of the growth at the start with the published error; failures come last."""
    columns = ([rows[n][0] for n in names], [rows[n][1] or 100.0 for n in names])
    return float(np.corrcoef([np.argsort(np.argsort(column)) for column in columns])[0, 1])


# %% jupyter={"source_hidden": true}
odd = ("exclusive gate", "ReLU before the sum")
of_all, of_nine = agreement(list(rows)), agreement([name for name in rows if name not in odd])
factor = {name: value for name, (value, _) in rows.items()}
say(f"""
    With full pre-activation the gradient at the first block is {factor["full pre-activation"]:.0f} times that at the last, with the original block {factor["original"]:.0f} times, with a 1x1 convolution {factor["1x1 convolution"]:.0f} times, without shortcuts {factor["no shortcut"]:,.0f} times.
    The order of this number, which takes a second to measure, is much like that of the errors after training (rank correlation {of_all:.2f} for all {len(rows)}). Two do not fit: with an exclusive gate the gradient *shrinks* ({factor["exclusive gate"]:.2f} times), and with a ReLU before the sum it grows less than with the original ({factor["ReLU before the sum"]:.0f} times); both are worse than the original. Without these two the rank correlation is {of_nine:.2f}, but we chose them after seeing the figure: take that as a remark, not as a test.
    And a shortcut times 0.5 does *not* make the gradient vanish, as the product $\\prod \\lambda_l$ alone would suggest: the signal shrinks forward too, and batch norm in the next body scales it up again.
""")
assert factor["original"] < factor["1x1 convolution"] < factor["no shortcut"]
assert factor["shortcut x 0.5"] > factor["original"]

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Shattered gradients: shortcuts keep the gradients of neighbours alike. *Refuted by* a plain net whose gradients are not shattered and that still gets worse with depth",
            f"cosine of neighbours, 20 layers: plain {mean['plain20']:.2f}, residual {mean['resnet20']:.2f}; 56 layers: {mean['plain56']:.2f}, {mean['resnet56']:.2f}",
            "**the difference is there**, before training, and grows with depth as degradation does. That shows no cause",
        ],
        [
            "Many shallow networks: no single block is needed. *Refuted by* a residual net that guesses without one block",
            f"one block removed: plain-20 up to {spans['plain20', 'removed'][1]:.0f} %, ResNet-20 up to {spans['resnet20', 'removed'][1]:.0f} % (statistics recomputed: {fresh['plain20'][1]:.0f} and {fresh['resnet20'][1]:.0f} %); gradient through {typical:.1f} of 27 bodies",
            "**in part**: blocks depend on each other less, and at the start the paths are short; after training they hardly are, and some of 9 blocks are missed",
        ],
        [
            "A smoother landscape. *Refuted by* a plain net with slices as smooth as its twin's that degrades all the same",
            f"20 layers: slices turn {bends['plain20']} (plain) and {bends['resnet20']} times (residual)",
            "**undecided here**: both are smooth at 20 layers, where degradation is small",
        ],
        [
            "A free way: the path around all blocks must have the factor 1, or the gradient vanishes or explodes as the product says. *Refuted by* a gradient that does not follow the product",
            f"shortcut x 0.5: product {0.5**27:.0e} for 27 blocks, and the gradient *grows* {factor['shortcut x 0.5']:.0f} times",
            "**the product: refuted** as the mechanism, with batch norm in the bodies",
        ],
        [
            "What remains of it: the faster the gradient grows at the start, the higher the error. *Refuted by* an order that is another one",
            f"rank correlation {of_all:.2f} for {len(rows)} variants; gradient at the first block over the last: original {factor['original']:.3g}, pre-activation {factor['full pre-activation']:.3g}",
            "**ordered much alike**, with two exceptions; but seen afterwards, not predicted: a remark more than a test",
        ],
    ]
)

# %% [markdown]
# The four do not exclude each other. A cosine near 1, short paths and slow growth would all follow from a body that is small beside $x$. What lesson 6 found fits too: each block adds to $x$, so the body's share falls (De and Smith 2020).

# %% [markdown]
# ## What this does not show
#
# - **Causes.** Three of the four experiments look at untrained networks or at one trained pair. They show a difference between networks that train and networks that do not. To show a cause, change one thing and nothing else.
# - **Large networks.** With 9 blocks a block is a ninth of the network; with 54 it is not.
# - **That errors can be predicted from the start.** The published ones are errors after 164 epochs, median of five runs, of networks with 110 layers on 32x32 pixels. Ours have 56 layers, 16x16 pixels and one seed, and two of eleven variants do not fit.
# - **Landscapes.** A slice is one direction out of 270,000.

# %% [markdown]
# ## Exercises
#
# **Now.** Take 65 pictures on the line instead of 33: `cosines(input_gradients("plain20", 65))`. What happens to the cosine of neighbours, and why is that no contradiction?
#
# **To think about.** Weights can be chosen so that a plain network computes a linear function at the start. Are its gradients shattered? Which result of a training would refute explanation 1?
#
# **For the weekend.** Count the paths of a *trained* network: train `resnet(20)` for 200 steps on shapes10 and call `gradients_by_path` before and after. Do the paths get longer? Take three seeds, and write one sentence that you dare to defend.

# %% [markdown]
# ## Where to read on
#
# - Balduzzi and others: *The Shattered Gradients Problem: If resnets are the answer, then what is the question?*, [arXiv 1702.08591](https://arxiv.org/abs/1702.08591), 2017.
# - Veit, Wilber, Belongie: *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*, [arXiv 1605.06431](https://arxiv.org/abs/1605.06431), 2016.
# - Li, Xu, Taylor, Studer, Goldstein: *Visualizing the Loss Landscape of Neural Nets*, [arXiv 1712.09913](https://arxiv.org/abs/1712.09913), 2018.
# - He, Zhang, Ren, Sun: *Identity Mappings in Deep Residual Networks*, [arXiv 1603.05027](https://arxiv.org/abs/1603.05027), 2016.
# - De, Smith: *Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks*, [arXiv 2002.10444](https://arxiv.org/abs/2002.10444), 2020.
# - Prince: *Understanding Deep Learning*, [udlbook.github.io](https://udlbook.github.io/udlbook/), chapter 11, 2023. Its notebook tries to repeat the first figure, and says that it does not succeed.
