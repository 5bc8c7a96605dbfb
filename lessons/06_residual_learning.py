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
# # 6. What does adding x change?
#
# A residual block computes $\mathrm{relu}(F(x) + x)$ where its plain twin computes $\mathrm{relu}(F(x))$. Not one parameter more, and hardly one operation. Yet with it, in the paper, 56 layers are better than 20 instead of worse, and 110 layers train, where its plain net of that depth stayed above 60 % error. What can an addition do?
#
# - **Time:** 60 minutes.
# - **You need:** [lesson 2](02_backprop_and_checks.ipynb), [lesson 4](04_batch_norm.ipynb).
# - **Afterwards you can** derive the backward pass of a residual block, measure how gradients and disturbances travel through deep networks, and tell what the shortcut does from what is said about it.

# %%
import copy
import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # the matrices here are small, and threads would wait for each other
import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, PLAIN, RESIDUAL, claims, say, show, source, table

from minires import plain, resnet
from minires.data import shapes10
from minires.lab.studies.sensitivity import sensitivity
from minires.layers import Sequential
from minires.nets.audit import macs
from minires.nets.resnet import Identity, PlainBlock, ResidualBlock

pictures, labels = shapes10.images(192, np.random.default_rng(6))
data = ((pictures - pictures.mean()) / pictures.std())[
    :, ::2, ::2
]  # (192, 16, 16, 3): half size, to be quick

# %% [markdown]
# ## The surprise
#
# Two networks of 56 layers with the same initial weights, one plain, one residual. A batch of pictures runs forward, the gradient of the loss runs back. How large is it when it arrives at each block?


# %%
def units(net):
    """Parts of a network in order: single layers, and the blocks of its stages."""
    for child in net.children.values():
        yield from child.children.values() if isinstance(child, Sequential) else [child]


def rms(a):
    return float(np.sqrt((a * a).mean()))


def gradients(net, n=32):
    """Root mean square of the gradient that arrives at the input of each block, first block first."""
    net.astype("float64")
    _, dy = net.ops.softmax_cross_entropy(net.forward(data[:n], train=True), labels[:n])
    found = []
    for unit in reversed(list(units(net))):
        dy = unit.backward(dy)
        if isinstance(unit, (PlainBlock, ResidualBlock)):
            found.append(rms(dy))
    return np.array(found[::-1])


arrived = {
    name: gradients(make(56, rng=0)) for name, make in (("plain-56", plain), ("ResNet-56", resnet))
}
growth = {name: g[0] / g[-1] for name, g in arrived.items()}
per_layer = {
    name: (g[0] / g[8]) ** (1 / 16) for name, g in arrived.items()
}  # first stage: 8 blocks apart, 2 layers each

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 4.2))
axes = figure.subplots()
for name, colour, marker in (("plain-56", PLAIN, "s"), ("ResNet-56", RESIDUAL, "o")):
    axes.semilogy(
        range(1, 28),
        arrived[name] / arrived[name][-1],
        marker + "-",
        color=colour,
        ms=4,
        label=name,
    )
for edge in (9.5, 18.5):
    axes.axvline(edge, color=MUTED, lw=0.8, ls=":")
axes.set(
    xlabel="block, from the input to the loss (dotted: the picture is halved)",
    ylabel="gradient, last block = 1",
)
axes.legend()
axes.set_title(
    f"Towards the input the plain gradient grows {growth['plain-56']:,.0f}-fold, the residual {growth['ResNet-56']:.0f}-fold"
)
show(
    figure,
    "Gradient size by block on a logarithmic axis, read from right to left: in plain-56 it grows steeply towards the input, "
    "in ResNet-56 much less.",
)

# %%
say(f"""
    Nothing vanishes here. In the plain network the gradient *explodes*: by a factor of {per_layer["plain-56"]:.2f} per layer in the first stage, {growth["plain-56"]:,.0f} over all blocks.
    With shortcuts it is {per_layer["ResNet-56"]:.2f} per layer there and {growth["ResNet-56"]:.0f} over all; the curve says that most of it happens in the first few blocks. For ReLU and batch norm in wide layers theory says √(π/(π-1)) = {np.sqrt(np.pi / (np.pi - 1)):.2f} per layer (Yang and others 2019).
""")
assert per_layer["plain-56"] > 1.1
assert growth["plain-56"] > 5 * growth["ResNet-56"]

# %% [markdown]
# ## By hand
#
# Let every block be as small as can be: one number in, one number out, $F(x) = a x$, no ReLU. Three blocks in a row.
#
# - Plain: $y = a\cdot a\cdot a\cdot x$, so $dx = a^3\,dy$.
# - Residual: $y = (1 + a)(1 + a)(1 + a)\,x$, so $dx = (1 + 3a + 3a^2 + a^3)\,dy$.
#
# Multiplied out, the residual slope is a sum over $2^3 = 8$ *paths*: at each block go through $F$ or around it. One path goes around all three, three paths go through one block, three through two, one through all.

# %%
chain = [(a, a**3, (1 + a) ** 3) for a in (0.1, 0.5, -0.5, 1.2)]
table(
    ["a", "plain, a³", "residual, (1 + a)³"],
    [[f"{a:g}", f"{p:.3g}", f"{r:.3g}"] for a, p, r in chain],
)
a = 0.1
assert np.isclose((1 + a) ** 3, 1 + 3 * a + 3 * a**2 + a**3)

# %% [markdown]
# With $a = 0.1$ nearly everything is lost in the plain chain and nothing in the residual one. But the last row is a warning: a shortcut does not *bound* anything, with $a = 1.2$ the residual slope is the larger one. What keeps $F$ small beside $x$ in a real network has to be measured.

# %% [markdown]
# ## The equation
#
# $$z = F(x) + S(x), \qquad y = \max(z, 0),$$
# $$dz = dy \cdot [z > 0], \qquad dx = \underbrace{F'(x)^{\mathsf T} dz}_{\text{through the body}} \;+\; \underbrace{S'(x)^{\mathsf T} dz}_{\text{through the shortcut}}.$$
#
# - $F$, the *body*: convolution, batch norm, ReLU, convolution, batch norm;
# - $S$, the *shortcut*: $S(x) = x$ where the shape stays, so its part of $dx$ is $dz$ itself, untouched;
# - where the shape changes: option A takes every second pixel and fills new channels with zeros, B projects by a 1x1 convolution there, C projects everywhere.
#
# A value that goes two ways forward collects two gradients backward: where the forward pass copies, the backward pass adds.

# %% [markdown]
# ## The code
#
# The residual block and its plain twin, in full:

# %%
source(ResidualBlock, PlainBlock)

# %%
rng = np.random.default_rng(0)
block = list(units(resnet(8, rng=1).astype("float64")))[3]
x, dy = rng.standard_normal((2, 4, 8, 8, 16))
y = block.forward(x, train=True)
again = copy.deepcopy(block)  # a backward consumes its cache
dz = again.relu.backward(dy)
through_body, through_shortcut = again.body.backward(dz), again.shortcut.backward(dz)
assert np.array_equal(dz, dy * (y > 0))
assert np.array_equal(through_shortcut, dz)
assert np.array_equal(block.backward(dy), through_body + through_shortcut)
assert isinstance(block.shortcut, Identity)
assert not block.shortcut.parameters()

# %% [markdown]
# ## The experiment: what takes which way?
#
# At every block of a ResNet-56 at its start we split the arriving $dx$ into its two parts.

# %%
net = resnet(56, rng=0).astype("float64")
_, dy = net.ops.softmax_cross_entropy(net.forward(data[:32], train=True), labels[:32])
split = []
for unit in reversed(list(units(net))):
    if isinstance(unit, ResidualBlock):
        dz = unit.relu.backward(dy)
        body, around = unit.body.backward(dz), unit.shortcut.backward(dz)
        dy = body + around
        split.append(
            (
                rms(body) / rms(dy),
                rms(around) / rms(dy),
                (body * around).mean() / rms(body) / rms(around),
            )
        )
    else:
        dy = unit.backward(dy)
split = np.array(split[::-1])

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 4.0))
axes = figure.subplots()
axes.plot(range(1, 28), split[:, 1], "o-", color=RESIDUAL, ms=4, label="through the shortcut")
axes.plot(range(1, 28), split[:, 0], "s--", color=HUES[1], ms=4, label="through the body")
axes.axhline(1, color=MUTED, lw=0.8)
axes.set(
    xlabel="block, from the input to the loss", ylabel="size, as a share of dx", ylim=(0, 1.15)
)
axes.legend(loc="lower right")
axes.set_title(
    "The part through the body is smaller at the end of each stage than at its beginning"
)
show(
    figure,
    "Share of the gradient by block: through the shortcut mostly between 0.8 and 1; through the body larger than that "
    f"in {(split[:, 0] > split[:, 1]).sum()} blocks near the input, smaller in all others, and falling, with small rises, within each stage.",
)

# %%
stages = [split[:9], split[9:18], split[18:]]
assert all(s[-1, 0] < s[0, 0] for s in stages)
say(f"""
    In the last block of each stage the body brings {", ".join(f"{s[-1, 0]:.0%}" for s in stages)} of the size of dx, in the first {", ".join(f"{s[0, 0]:.0%}" for s in stages)}.
    The two parts stand almost at right angles (mean cosine {split[:, 2].mean():.2f}), so their squares add up.
    The reason is in the forward pass: each block *adds* to x a body whose batch norm gives it deviation 1, so x grows and the body's say in it falls.
""")

# %% [markdown]
# ## The experiment: signals and gradients in one block
#
# Forward, the deviation of each signal; backward, the size of each gradient (relative to the one that arrives), in one block of the middle stage.

# %% jupyter={"source_hidden": true}
net = resnet(56, rng=0).astype("float64")
_, dy = net.ops.softmax_cross_entropy(net.forward(data[:32], train=True), labels[:32])
parts = list(units(net))
at = 3 + 13  # conv, batch norm, ReLU, then the blocks
for unit in reversed(parts[at + 1 :]):
    dy = unit.backward(dy)
x = data[:32]
for unit in parts[:at]:
    x = copy.deepcopy(unit).forward(x, train=True)
unit = copy.deepcopy(parts[at])
F = unit.body.forward(x, train=True)
dz = parts[at].relu.backward(dy)
d_body = parts[at].body.backward(dz)
back = {name: rms(g) / rms(dy) for name, g in (("dz", dz), ("body", d_body), ("dx", dz + d_body))}

figure = Figure(figsize=(7.8, 3.6))
axes = figure.subplots()
axes.set(xlim=(-0.6, 10.4), ylim=(-1.3, 2.9))
axes.axis("off")
for left, bottom, width, name in ((2.2, 1.4, 3.6, "body F"), (7.6, -0.35, 1.2, "ReLU")):
    axes.text(
        left + width / 2,
        bottom + 0.35,
        name,
        ha="center",
        va="center",
        bbox={"boxstyle": "round,pad=0.5", "fc": "0.93", "ec": "0.3"},
    )
axes.text(
    6.4,
    0,
    "+",
    ha="center",
    va="center",
    fontsize=16,
    bbox={"boxstyle": "circle,pad=0.2", "fc": "white", "ec": "0.3"},
)
for start, end in (
    ((0, 0), (6.1, 0)),
    ((6.75, 0), (7.6, 0)),
    ((8.8, 0), (10, 0)),
    ((1, 1.75), (3.2, 1.75)),
):
    axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
axes.plot([1, 1], [0, 1.75], color="0.3", lw=1)
axes.plot([4.8, 6.4], [1.75, 1.75], color="0.3", lw=1)
axes.annotate("", (6.4, 0.32), (6.4, 1.75), arrowprops={"arrowstyle": "->", "color": "0.3"})
forward = (
    (0.3, 0.18, x),
    (2.1, 1.95, x),
    (5.6, 1.95, F),
    (7.1, 0.38, F + x),
    (9.4, 0.18, np.maximum(F + x, 0)),
)
for px, py, signal in forward:
    axes.text(px, py, f"{signal.std():.2f}", ha="center", color=RESIDUAL)
for px, py, value in (
    (0.3, -0.42, back["dx"]),
    (3.5, -0.42, back["dz"]),
    (2.1, 1.3, back["body"]),
    (7.1, -0.72, back["dz"]),
    (9.4, -0.42, 1.0),
):
    axes.text(px, py, f"{value:.2f}", ha="center", color=PLAIN)
axes.text(
    0,
    -1.15,
    "blue: deviation of the signal, forward      red: size of the gradient, backward (1 where it arrives)",
    fontsize=9,
    color="0.3",
)
axes.set_title("In the fifth block of stage 2, x is already larger than what the body adds")
show(
    figure,
    "Diagram of a residual block: x splits into the shortcut and the body F, both meet at a plus sign, then a ReLU. "
    "Each arrow carries the measured deviation of its signal in blue and the relative size of its gradient in red.",
)

# %%
assert x.std() > F.std()

# %% [markdown]
# ## The experiment: the butterfly
#
# Take a network and its twin, equal but for *one* weight of the first layer, changed in its fourteenth digit. Train both on the same batches in float64 (16 pictures, learning rate 0.01, momentum 0.9). How far apart are their weights, relative to their length, after each step? The library's `sensitivity` does it, in some seconds.

# %%
depths = (8, 20, 32)
distances = {
    (name, d): sensitivity(f"{name}{d}", steps=12, batch_size=16)
    for name in ("plain", "resnet")
    for d in depths
}

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 4.6))
axes = figure.subplots()
for (name, depth), distance in distances.items():
    colour, style = (PLAIN, "--") if name == "plain" else (RESIDUAL, "-")
    axes.semilogy(range(1, 13), np.maximum(distance, 1e-18), style, color=colour, lw=1 + depth / 20)
    label, nudge = (
        (f"plain-{depth}", 3 if depth > 8 else -1)
        if name == "plain"
        else (f"ResNet-{depth}", 5 if depth > 8 else -12)
    )
    axes.annotate(
        label,
        (12, distance[-1]),
        (4, nudge),
        textcoords="offset points",
        color=colour,
        va="center",
        fontsize=9,
    )
axes.set(
    xlabel="training step",
    ylabel="relative distance of the twins",
    xlim=(0, 14.5),
    xticks=range(0, 13, 4),
)
axes.set_title("One weight changed in its 14th digit: deep plain twins part ways")
show(
    figure,
    "Relative distance of twin networks by training step on a logarithmic axis. The 8-layer twins stay near 1e-16; plain nets of 20 and 32 layers "
    "drift apart by many orders of magnitude, their residual twins far less.",
)

# %%
table(
    ["step", *(f"{n}-{d}" for n, d in distances)],
    [[k, *(f"{v[k - 1]:.0e}" for v in distances.values())] for k in (1, 4, 8, 12)],
)
assert distances["plain", 20][-1] > 1e3 * distances["resnet", 20][-1]
assert distances["plain", 32][9] > 1e3 * distances["resnet", 32][9]

# %% [markdown]
# A deep plain network at its start is *chaotic*: a rounding error decides, within some steps, which network you get. A gradient that belongs to a point says little about the points around it, and a step in its direction is a step into the unknown. Shortcuts slow this down by many orders of magnitude. It is a measurement of the same kind as the "shattered gradients" of Balduzzi and others (2017), who looked at how gradients of neighbouring inputs decorrelate with depth.

# %% [markdown]
# ## The experiment: options A, B, C

# %%
options = {option: resnet(20, option, rng=0) for option in "ABC"}
table(
    [
        "shortcut",
        "parameters",
        "million multiplications",
        "growth of the gradient, last to first block",
    ],
    [
        [
            name,
            f"{sum(p.size for p in net.parameters().values()):,}",
            f"{macs(net) / 1e6:.1f}",
            f"{(g := gradients(net))[0] / g[-1]:.1f}",
        ]
        for name, net in {"none (plain)": plain(20, rng=0), **options}.items()
    ],
)

# %% [markdown]
# Option A has the parameters of the plain network, so a comparison with it compares the shortcut and nothing else: that is why the paper uses it on CIFAR-10 (section 4.2). On ImageNet it reports 25.03, 24.52 and 24.19 % top-1 error for A, B and C at 34 layers against 28.54 % for plain (tables 2 and 3, 10 crops): the difference between the options is small beside that of having any. But a 1x1 convolution on *every* shortcut harms very deep nets: 12.22 % instead of 6.61 % for ResNet-110 (He and others 2016, table 1).

# %% [markdown]
# ## Claims put to the test
#
# The first three are found in popular reviews of the paper.

# %%
claims(
    [
        [
            "Gradients vanish in deep plain nets; shortcuts repair that",
            f"at the start they grow {growth['plain-56']:.0f} times towards the input of plain-56",
            "no: the paper itself says vanishing is unlikely (section 4.1)",
        ],
        [
            "The network learns H(x) - x as a target",
            "the loss sees logits and labels; F has no target of its own",
            "no: F is what the block adds, and nothing compares it with H(x) - x",
        ],
        [
            "Shortcuts cannot converge to zero, so they always pass information",
            f"an identity shortcut has {len(block.shortcut.parameters())} parameters",
            "there is nothing in it that could converge",
        ],
        [
            "A residual gradient cannot explode, thanks to the +1",
            f"{growth['ResNet-56']:.0f} times in ResNet-56; (1 + a)³ = {chain[-1][2]:.1f} by hand",
            "it can; measured, it grows little",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - That these are *the* reasons why residual networks train better. The paper leaves the cause open; we measured two things that differ from the first step on. Lesson 5 looks at the training itself.
# - What happens after many steps. Everything here is at or near the initial weights, on half-size pictures of shapes10. Yang and others (2019) report that the explosion calms down after one step.
# - That shortcuts are the only way: special initialisations train deep nets without (Xiao and others 2018). Nor that they need batch norm: with another initialisation they do not (Zhang and others 2019).

# %% [markdown]
# ## Exercises
#
# **Now.** Let `gradients` run on `plain(20)` and `plain(32)` too. Is the growth per layer the same? Predict plain-110 before you try.
#
# **To think about.** In a network of 27 blocks, how many paths are there, and how many of them go through exactly 5 blocks? If a pass through a body weakens a gradient to a third, which path lengths carry most of it?
#
# **For the weekend.** Multiply the shortcut by 0.5 (a `Layer` of a few lines) and measure the growth again. He and others (2016) report that such a ResNet-110 fails to train. What do you see at the start?

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.1 to 3.3 and 4.1, 2015.
# - He, Zhang, Ren, Sun: *Identity Mappings in Deep Residual Networks*, [arXiv 1603.05027](https://arxiv.org/abs/1603.05027), sections 2 and 3, 2016. The backward equation, and what spoils it.
# - Veit, Wilber, Belongie: *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*, [arXiv 1605.06431](https://arxiv.org/abs/1605.06431), sections 3 to 5, 2016. Paths.
# - Balduzzi and others: *The Shattered Gradients Problem*, [arXiv 1702.08591](https://arxiv.org/abs/1702.08591), section 2, 2017.
# - Yang and others: *A Mean Field Theory of Batch Normalization*, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129), 2019.
# - Xiao and others, [arXiv 1806.05393](https://arxiv.org/abs/1806.05393), 2018: depth without shortcuts. Zhang and others, [arXiv 1901.09321](https://arxiv.org/abs/1901.09321), 2019: shortcuts without batch norm.
# - [Lesson 8](08_the_machines_limit.ipynb): how fast all this can be.
