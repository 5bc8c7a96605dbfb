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
# A residual block computes $\mathrm{relu}(F(x) + x)$ where its plain twin computes $\mathrm{relu}(F(x))$. Not one parameter more, and hardly one operation. Yet with it, in the paper, 56 layers are better than 20 instead of worse, and 110 layers train, while the plain net of 110 layers stayed above 60 % error. What can an addition do?
#
# - **Time:** 60 minutes; *options A, B, C* is optional.
# - **You need:** [lesson 2](02_backprop_and_checks.ipynb), [lesson 4](04_batch_norm.ipynb), [lesson 5a](05a_degradation.ipynb) for the question.
# - **Afterwards you can** derive the backward pass of a residual block, measure how gradients and disturbances travel through deep networks, and tell what the shortcut does from what is said about it.

# %% jupyter={"source_hidden": true}
import copy
import os

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # the matrices here are small, and threads would wait for each other
import numpy as np
from draw_shortcut import TITLES, growth, one_block, twins, two_ways
from style import claims, counting, say, show, source, table

from minires import plain, resnet
from minires.data import shapes10
from minires.lab.studies.sensitivity import sensitivity
from minires.layers import BatchNorm, Conv2d, Sequential
from minires.nets.audit import macs
from minires.nets.resnet import Identity, PlainBlock, ResidualBlock
from minires.ops import default_backend, prepare

prepare(default_backend())  # compile what is needed, once

pictures, labels = shapes10.images(192, np.random.default_rng(6))
data = ((pictures - pictures.mean()) / pictures.std())[
    :, ::2, ::2
]  # (192, 16, 16, 3): half size, to be quick

# %% [markdown]
# ## The surprise
#
# Two networks of 56 layers with the same initial weights, one plain, one residual. A batch of pictures runs forward, the gradient of the loss runs back. How large is it, as a root mean square, when it arrives at each block?


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


# %%
def without_norm(layer, factor=1.0):
    """Replace every batch norm below a layer by nothing, and multiply the filters by a factor."""
    for name, child in layer.children.items():
        if isinstance(child, BatchNorm):
            layer.children[name] = Identity()
        elif isinstance(child, Conv2d):
            child.params["w"] *= np.float32(factor)
        else:
            without_norm(child, factor)
    return layer


SEEDS = 4
nets = {"plain-56": plain, "ResNet-56": resnet}
of_seeds = {
    name: np.array([gradients(make(56, rng=seed).use(default_backend())) for seed in range(SEEDS)])
    for name, make in nets.items()
}
arrived = {name: found[0] for name, found in of_seeds.items()}
bare = {
    f"plain-56 without batch norm, He × {factor:g}": gradients(without_norm(plain(56), factor))
    for factor in (1.0, 0.8)
}
grown = {name: g[0] / g[-1] for name, g in arrived.items()}
# from the last block of a stage to its first: 8 blocks of 2 layers; over all blocks, 26 of them
by_stage = {
    name: [((g[:, 9 * s] / g[:, 9 * s + 8]) ** (1 / 16)).mean() for s in range(3)]
    for name, g in of_seeds.items()
}
over_all = {name: ((g[:, 0] / g[:, -1]) ** (1 / 52)).mean() for name, g in of_seeds.items()}

# %%
title = f"Towards the input the plain gradient grows {grown['plain-56']:,.0f}-fold, the residual {grown['ResNet-56']:.0f}-fold"
show(
    growth(arrived, bare, title),
    "Gradient size by block on a logarithmic axis, read from right to left: in plain-56 it grows steeply towards the input, "
    "in ResNet-56 much less. Without batch norm and with filters slightly too small it shrinks by orders of magnitude.",
)

# %%
theory = np.sqrt(np.pi / (np.pi - 1))
table(
    [
        f"growth per layer, mean of {SEEDS} seeds",
        "stage 1",
        "stage 2",
        "stage 3",
        "over all",
    ],
    [
        [name, *(f"{v:.3f}" for v in by_stage[name]), f"{over_all[name]:.3f}"]
        for name in ("plain-56", "ResNet-56")
    ],
)

# %% jupyter={"source_hidden": true}
right_size, too_small = bare.values()
totals = {name: sorted(g[:, 0] / g[:, -1]) for name, g in of_seeds.items()}
say(f"""
    With batch norm nothing vanishes. In the plain network the gradient *explodes*, in every stage: by a factor of {over_all["plain-56"]:.2f} per layer over all of it, which makes {totals["plain-56"][0]:,.0f} to {totals["plain-56"][-1]:,.0f} over all blocks, with {SEEDS} seeds.
    With shortcuts it grows in the first stage and hardly at all after it ({by_stage["ResNet-56"][1]:.2f} and {by_stage["ResNet-56"][2]:.2f} per layer), which makes {totals["ResNet-56"][0]:.0f} to {totals["ResNet-56"][-1]:.0f} over all blocks.
    For ReLU and batch norm in wide *fully connected* layers theory says √(π/(π-1)) = {theory:.2f} per layer (Yang and others 2019); these convolutions on small pictures come near to it in the first stage only.
    Without batch norm the gradient *can* vanish: with filters 0.8 times as large as He's, the first block gets {too_small[0] / too_small[-1]:.0e} of what the last one gets (with He's own, {right_size[0] / right_size[-1]:.0e}). The popular claim is about such nets, the paper about nets with batch norm.
""")
assert min(by_stage["plain-56"]) > 1.05
assert grown["plain-56"] > 5 * grown["ResNet-56"]
assert max(by_stage["ResNet-56"][1:]) < 1.05
assert too_small[0] < 1e-3 * too_small[-1]

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
chain = [(a, a**3, (1 + a) ** 3, a**27) for a in (1.47, 1, 0.1, -0.1)]
table(
    ["a", "plain, a³", "residual, (1 + a)³", "27 plain blocks, a²⁷"],
    [[f"{a:g}", f"{p:.3g}", f"{r:.3g}", f"{q:.2g}"] for a, p, r, q in chain],
)
a = 0.1
assert np.isclose((1 + a) ** 3, 1 + 3 * a + 3 * a**2 + a**3)
assert np.isclose(theory**2, 1.47, atol=0.005)  # a block has two layers

# %% [markdown]
# In a plain chain the body has to carry the whole signal. With $a = 1.47$, which is theory's factor for a block of two layers, three blocks make 3.2, and 27 blocks more than thirty thousand. In a residual chain the body can be small, $a = \pm 0.1$, and then the slope stays near 1. But the first row is a warning: a shortcut does not *bound* anything, with $a = 1.47$ or $a = 1$ the residual slope is larger than the plain one. What keeps $F$ small beside $x$ in a real network has to be measured.

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

# %%
show(
    two_ways(body=split[:, 0], around=split[:, 1]),
    "Share of the gradient by block: through the shortcut mostly between 0.8 and 1; through the body larger than that "
    f"in {(split[:, 0] > split[:, 1]).sum()} blocks near the input, smaller in all others, and falling, with small rises, within each stage.",
)

# %%
stages = [split[:9], split[9:18], split[18:]]
assert all(s[-1, 0] < s[0, 0] for s in stages)

# %% jupyter={"source_hidden": true}
say(f"""
    In the last block of each stage the body brings {", ".join(f"{s[-1, 0]:.0%}" for s in stages)} of the size of dx, in the first {", ".join(f"{s[0, 0]:.0%}" for s in stages)}.
    The two parts stand almost at right angles (cosines from {split[:, 2].min():.2f} to {split[:, 2].max():.2f}), so their squares add up: a body with the factor 1.47 would make √(1 + 1.47²) = {np.hypot(1, 1.47):.2f} of the gradient, not the 2.47 of the numbers by hand.
    The reason is in the forward pass: each block *adds* to x a body whose batch norm gives it deviation 1, so x grows and the body's share in it falls (De and Smith 2020). The batch norm in the body divides by the size of what it gets, which grows with x; so the gradient through it is divided too.
""")

# %% [markdown]
# ## The experiment: signals and gradients in one block
#
# Forward, the deviation of each signal; backward, the size of each gradient (relative to the one that arrives), in one block of the middle stage.

# %%
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

# %%
back = {"dx": rms(dz + d_body), "body": rms(d_body), "dz": rms(dz), "dy": rms(dy)}
show(
    one_block(
        {
            "x": x.std(),
            "F": F.std(),
            "F + x": (F + x).std(),
            "y": np.maximum(F + x, 0).std(),
        },
        {name: size / rms(dy) for name, size in back.items()},
    ),
    "Diagram of a residual block: x splits into the shortcut and the body F, both meet at a plus sign, then a ReLU. "
    "Each arrow carries the measured deviation of its signal in blue and the relative size of its gradient in red.",
)
assert x.std() > F.std()
assert np.isclose(rms(dz + d_body) ** 2, rms(dz) ** 2 + rms(d_body) ** 2, rtol=0.1)

# %% jupyter={"source_hidden": true}
say(f"""
    Read the red numbers from right to left: the ReLU passes {rms(dz) / rms(dy):.2f} of the gradient, around the body and into it. The body returns {rms(d_body) / rms(dy):.2f}, and the two make {rms(dz + d_body) / rms(dy):.2f}: √({rms(dz) / rms(dy):.2f}² + {rms(d_body) / rms(dy):.2f}²) = {np.hypot(rms(dz), rms(d_body)) / rms(dy):.2f}, right angles again.
""")

# %% [markdown]
# ## The experiment: sensitivity to rounding
#
# Take a network and its twin, equal but for *one* weight of the first layer, changed in its fourteenth digit. Train both on the same batches in float64 (8 pictures, momentum 0.9). How far apart are their weights, relative to their length, after each step? The library's `sensitivity` does it. Summers and Dinneen (2021) changed one bit of one weight and trained to the end: the nets became as different as nets from different seeds. Kwok and others (2025) perturb one weight and find a chaotic phase early in training. Here we ask what depth, shortcuts and the learning rate have to do with it. This cell takes half a minute to a minute.

# %%
depths, rates = (8, 20, 32), (1e-2, 1e-3, 1e-4)
kinds = [(name, depth) for name in ("plain", "resnet") for depth in depths]
jobs = [(*kind, 1e-2, 80 if kind == ("resnet", 32) else 12) for kind in kinds]
jobs += [(*kind, rate, 12) for kind in kinds if kind[1] > 8 for rate in rates[1:]]
distances = {}
for k in counting(len(jobs), "pairs of twins trained"):
    name, depth, rate, steps = jobs[k]
    distances[name, depth, rate] = sensitivity(f"{name}{depth}", steps, batch_size=8, lr=rate)

# %%
show(
    twins(distances, rates),
    "Relative distance of twin networks on a logarithmic axis. Left, by training step at learning rate 0.01: plain nets of 20 and 32 layers part within 12 steps, "
    "ResNet-32 over 80. Right, after 12 steps by learning rate: at lower rates all stay closer, plain-32 least of all.",
)

# %%
columns = [(name, depth) for name, depth in kinds if depth > 8]
table(
    ["rate", "step", *(f"{TITLES[name]}-{depth}" for name, depth in columns)],
    [
        [f"{rate:g}", 12, *(f"{distances[*kind, rate][11]:.0e}" for kind in columns)]
        for rate in rates
    ]
    + [
        [
            "0.01",
            step,
            *(
                f"{d[step - 1]:.0e}" if len(d := distances[*kind, 1e-2]) >= step else ""
                for kind in columns
            ),
        ]
        for step in (40, 80)
    ],
)
part = {kind: distances[*kind, 1e-2] for kind in columns}
assert part["plain", 20][11] > 1e3 * part["resnet", 20][11]
assert part["plain", 32][11] > 1e3 * part["resnet", 32][11]
assert distances["plain", 20, 1e-4][11] < 1e-14  # calm
assert distances["plain", 32, 1e-4][11] > 100 * part["resnet", 32][11]  # at a hundredth of the rate
assert part["resnet", 32][79] > 100 * part["resnet", 32][11]

# %% jupyter={"source_hidden": true}
say(f"""
    At rate 0.01 plain-32 is *chaotic* at its start: within a dozen steps a rounding error decides which network you get. It depends on the rate: at 0.0001 plain-20 is calm ({distances["plain", 20, 1e-4][11]:.0e}), and plain-32 is not: at 0.0001 its twins drift further apart ({distances["plain", 32, 1e-4][11]:.0e}) than those of ResNet-32 at 0.01 ({part["resnet", 32][11]:.0e}).
    Shortcuts *delay* the parting, they do not prevent it: the twins of ResNet-32 are {part["resnet", 32][39]:.0e} apart after 40 steps and {part["resnet", 32][79]:.0e} after 80.
""")

# %% [markdown]
# The levels differ from machine to machine by orders of magnitude, since the order of additions does; the order of the curves stays. (One weight was changed, with one seed.) The measurement is about *weights under training*. It differs from the "shattered gradients" of Balduzzi and others (2017), who look at gradients with respect to neighbouring inputs while the weights stay. Chaos in *signals* that run through a deep random network was described by Poole and others (2016), and Yang and Schoenholz (2017) derive that shortcuts turn exponential growth into slower growth.

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
# Option A has the parameters of the plain network, so a comparison with it compares the shortcut and nothing else: that is why the paper uses it on CIFAR-10 (section 4.2). On ImageNet it reports 25.03, 24.52 and 24.19 % top-1 error for A, B and C at 34 layers against 28.54 % for plain (tables 2 and 3; *top-1*: the first answer is wrong; the scores of ten crops of a picture are averaged): the difference between the options is small beside that of having any. But a 1x1 convolution on *every* shortcut harms very deep nets: 12.22 % instead of 6.61 % for ResNet-110 (He and others 2016, table 1).

# %% [markdown]
# ## Claims put to the test
#
# The first three are often heard.

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Gradients vanish in deep plain nets; shortcuts repair that",
            f"with batch norm they grow {grown['plain-56']:.0f} times towards the input of plain-56; without it, with filters slightly too small, they shrink to {too_small[0] / too_small[-1]:.0e}",
            "not in the paper's nets, which have batch norm (section 4.1)",
        ],
        [
            "The network learns H(x) - x as a target",
            "argument: the loss sees logits and labels; F has no target of its own",
            'the paper\'s own wording (section 1: the layers "fit another mapping of F(x) := H(x) - x"), but nothing compares F with such a target: it is what the block adds',
        ],
        [
            "Shortcuts cannot converge to zero, so they always pass information",
            f"argument: an identity shortcut has {len(block.shortcut.parameters())} parameters",
            "there is nothing in it that could converge",
        ],
        [
            "A residual gradient cannot explode, thanks to the +1",
            f"{grown['ResNet-56']:.0f} times in ResNet-56; by hand, a = {chain[1][0]:g} makes (1 + a)³ = {chain[1][2]:g}",
            "it can; measured, it grows little",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - That these are *the* reasons why residual networks train better. The paper leaves the cause open; we measured two things that differ from the first step on. Lesson 5b looks at the training itself, lesson 11 at four explanations.
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
# - De, Smith: *Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep Networks*, [arXiv 2002.10444](https://arxiv.org/abs/2002.10444), 2020. Why the body's share falls from block to block.
# - Yang and others: *A Mean Field Theory of Batch Normalization*, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129), 2019. Yang, Schoenholz: *Mean Field Residual Networks: On the Edge of Chaos*, [arXiv 1712.08969](https://arxiv.org/abs/1712.08969), 2017.
# - Summers, Dinneen: *Nondeterminism and Instability in Neural Network Optimization*, [arXiv 2103.04514](https://arxiv.org/abs/2103.04514), 2021. Kwok, Altıntaş, Raffel, Rolnick: *The Butterfly Effect: Neural Network Training Trajectories Are Highly Sensitive to Initial Conditions*, [arXiv 2506.13234](https://arxiv.org/abs/2506.13234), 2025. The twins, to the end of training.
# - Poole and others: *Exponential Expressivity in Deep Neural Networks through Transient Chaos*, [arXiv 1606.05340](https://arxiv.org/abs/1606.05340), 2016.
# - Balduzzi and others: *The Shattered Gradients Problem*, [arXiv 1702.08591](https://arxiv.org/abs/1702.08591), section 2, 2017.
# - Xiao and others, [arXiv 1806.05393](https://arxiv.org/abs/1806.05393), 2018: depth without shortcuts. Zhang and others, [arXiv 1901.09321](https://arxiv.org/abs/1901.09321), 2019: shortcuts without batch norm.
# - [Lesson 7a](07a_recipe.ipynb): what else it takes to train such a network.
