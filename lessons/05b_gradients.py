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
# # 5b. Do gradients vanish in a deep plain network?
#
# The most popular explanation of degradation: on its way from the loss to the input the gradient shrinks from layer to layer, until the first layers learn nothing. The paper says that this is "unlikely". The recorded runs kept the gradient of every layer at three steps, so we can look.
#
# - **Time:** 60 minutes; the notebook runs for half a minute.
# - **You need:** [lesson 5a](05a_degradation.ipynb) for the question, [lesson 4](04_batch_norm.ipynb) for batch norm.
# - **Afterwards you can** say which measure of a gradient means something in front of a batch norm, compare layers by it, and test a suspected cause by removing it.

# %% jupyter={"source_hidden": true}
import json

import numpy as np
from draw_depth import equal_angles, standing
from style import RECORDS, claims, say, show, source, table

from minires import get_ops
from minires.lab import plots, tables
from minires.lab.layer_plot import turning, turning_message
from minires.lab.recorded import by_net, final, find_runs
from minires.lab.relative_steps import STILL, relative_steps, shares
from minires.lab.studies.equal_angles import EqualAngles, turned
from minires.runs.config import Config
from minires.train.loop import initial_net

ops = get_ops("numpy")

# %% [markdown]
# ## The surprise
#
# The networks of lesson 5a, and two of 110 layers, were trained for 2,000 steps (three seeds up to 56 layers, one seed for 110). Each line below is a network, each point a convolution, from the input on the left to the loss on the right. The height is the layer's *relative step* $\lVert dw\rVert / \lVert w\rVert$: how large the step is beside the weights that it changes, as a share of the last convolution's. (Why this is the right measure comes below.) A vanishing gradient would be a line that falls towards the left.

# %%
runs = find_runs([RECORDS / "lesson-cifar10", RECORDS / "lesson-110"])
drawn = [run for run in runs if run.net != "resnet20"]
nets = by_net(drawn)
by_layer = {net: [shares(run) for run in group] for net, group in nets.items()}
show(
    turning(drawn),
    "Relative step by place in the net, as a share of the last layer's, logarithmic, in a panel for each recorded step. At step 1 those of plain-56 and plain-110 rise by orders of magnitude "
    f"towards the input; at step 100 that of plain-110 has fallen far below the dotted line, while those of plain-20 and the residual nets stay near 1. {turning_message(drawn)}.",
)


# %% jupyter={"source_hidden": true}
def by_seed(values, form):
    """The values of the seeds in words: "1, 2 and 3"."""
    *most, last = [f"{value:{form}}" for value in values]
    return f"{', '.join(most)} and {last}" if most else last


def still(net, step):
    """Layers that stand still at a recorded step, by seed."""
    return [int((found[step] < STILL).sum()) for found in by_layer[net]]


largest = {net: [found[1].max() for found in by_layer[net]] for net in nets}
layers = {net: len(found[0][1]) for net, found in by_layer.items()}
say(f"""
    At the first step nothing vanishes in plain-56. The gradient **explodes**: the relative step of the first layer is **{by_seed(largest["plain56"], ",.0f")} times** the last one's (three seeds), and {by_seed(largest["resnet56"], ".0f")} times in ResNet-56.
    One hundred steps later the picture is the opposite in plain-110: {still("plain110", 100)[0]} of its {layers["plain110"]} layers take less than a hundredth of the last one's relative step. In plain-56 these are {by_seed(still("plain56", 100), "d")} of {layers["plain56"]}, by seed. Both need an explanation.
""")
assert min(largest["plain56"]) > 50
assert min(found[1].min() for found in by_layer["plain56"]) > STILL
assert still("plain110", 100)[0] > layers["plain110"] / 2

# %% [markdown]
# ## By hand
#
# - A filter has two weights, $w = (3, 4)$, length 5, and a batch norm behind it. Batch norm divides by the deviation, so $w$ and $2w$ give the same output: only the *direction* of $w$ has an effect. Therefore the gradient has no part along $w$: it is at right angles to it, say $dw = (-8, 6)$, length 10.
# - One step at rate 0.1 goes to $w - 0.1\,dw = (3.8, 3.4)$. The step has length 1, so the filter turns by the angle $\arctan(1/5) \approx 0.20$. And it gets longer: $\sqrt{25 + 1} = 5.10$.
# - Now start with the filter twice as long, $w = (6, 8)$. The output is the same, and a change of $w$ has half the effect, so the gradient is half as long: $dw = (-4, 3)$. The step has length 0.5 and turns by $\arctan(0.5/10) \approx 0.05$.
#
# **Twice the length, a quarter of the angle.** A long filter turns slowly, and every step makes it longer.

# %%
rows = []
for w, g in (((3, 4), (-8, 6)), ((6, 8), (-4, 3))):
    length, step = np.hypot(*w), 0.1 * np.hypot(*g)
    angle, after = np.arctan(step / length), np.hypot(length, step)
    rows.append([w, f"{length:g}", g, f"{10 * step:g}", f"{angle:.3f}", f"{after:.2f}"])
table(["w", "length", "dw", "length", "angle of a step", "length after it"], rows)

# %% [markdown]
# ## The equation
#
# Let $L(w)$ be the loss as a function of the weights of a convolution with batch norm behind it. For every $c > 0$, $L(cw) = L(w)$ (apart from batch norm's small $\varepsilon$). Differentiate with respect to $c$ at $c = 1$, and with respect to $w$:
#
# $$\langle dw, w\rangle = 0, \qquad dw(cw) = \tfrac1c\,dw(w) .$$
#
# - The first says that the gradient is at right angles to $w$. So a step at rate $\eta$ turns $w$ by the **angle** $\arctan r$ with the **relative step** $r = \eta\,\lVert dw\rVert / \lVert w\rVert$, and makes it $\sqrt{1 + r^2}$ times as long. A small $r$ is the angle itself. A large one is not: no step turns $w$ by 90 degrees.
# - The second says that $\lVert dw\rVert$ alone means little: it depends on the length of $w$, which changes nothing else. Two layers can be compared by their relative steps.
#
# For all filters of a layer together, a small $\eta\,\lVert dW\rVert / \lVert W\rVert$ is the root mean square of the filters' angles, weighted by their squared lengths.
#
# And how little is too little? A layer whose relative step is a share $s$ of the last one's trains as the last one would at $s$ times its learning rate. The paper ends its schedule at 1/100 of the first rate, where a net changes little. So below 1/100 of the last layer's relative step we say that a layer *stands still*.

# %%
rng = np.random.default_rng(5)
x, dy = rng.standard_normal((2, 8, 6, 6, 4))
w = rng.standard_normal((3, 3, 4, 4))


def gradient(w):
    """Gradient of <dy, norm(conv(x, w))> with respect to w."""
    y, cache = ops.conv2d_forward(x, w, pad=1)
    *_, norm_cache = ops.batchnorm_forward(y, np.ones(4), np.zeros(4), eps=0.0)
    return ops.conv2d_backward(ops.batchnorm_backward(dy, norm_cache)[0], cache)[1]


dw = gradient(w)
for k in range(4):  # batch norm frees every filter of its length
    assert abs((dw[..., k] * w[..., k]).sum()) < 1e-10 * np.linalg.norm(dw[..., k])
assert np.allclose(gradient(2 * w), dw / 2)
step = 1e-3 / np.linalg.norm(dw) * dw
assert np.isclose(np.linalg.norm(w - step) ** 2, np.linalg.norm(w) ** 2 + 1e-6)

# %% [markdown]
# ## The code
#
# The library computes the ratios $\lVert dw\rVert / \lVert w\rVert$ from a record, and divides by the last layer's:

# %%
source(relative_steps, shares)

# %% [markdown]
# ## The experiment: from explosion to standing still
#
# How do these nets train? Figure 6 of the paper says only that the error of plain-110 is "higher than 60 % and not displayed". Here it is displayed. The rate is 0.01 until the running error of the training batches is below 80 %, then 0.1: the paper used that *warm-up* for 110 layers (and says in footnote 5 that 0.1 from the start works too, after several epochs). Before you look: how long will each net of 110 layers take to get there?

# %%
show(
    plots.errors(drawn),
    f"Error against iterations, plain nets of 20, 56 and 110 layers on the left, residual nets of 56 and 110 on the right. {tables.message(drawn)}.",
)

# %% [markdown]
# ResNet-110 is behind ResNet-56, because these runs are short: it leaves the warm-up later, and has no time to catch up. (Lesson 7b looks at the end of full trainings.) How many layers stand still, seed by seed?

# %%
order = ("plain20", "resnet56", "resnet110", "plain56", "plain110")
show(
    standing({net: by_layer[net] for net in order}, STILL),
    "Bars: share of the layers that stand still at step 1, at step 100 and at the end, mean of the seeds, with the numbers of the seeds above. None at step 1 in any network; later none in plain20, few or none in plain56, and two thirds in plain110.",
)
assert all(not any(still(net, 1)) for net in order)

# %% [markdown]
# Why do they stand still after an explosion? Because of what the explosion left behind: long weights.


# %%
def first_layer(run):
    """Length of the first layer's weights before the first step, after it, and in the last record."""
    began = initial_net(Config.from_json(run.config)).parameters()["conv.w"]
    lengths = (run.layers[k]["weight_norm"]["conv"] for k in (0, -1))
    return (float(np.linalg.norm(began)), *lengths)


def first_turns(run):
    """Angles in degrees by which the first step turned the first and the last convolution."""
    rate = run.train[0]["lr"]
    steps = list(relative_steps(run)[1].values())
    return [np.degrees(np.arctan(rate * steps[k])) for k in (0, -1)]


# %%
first_seed = {net: nets[net][0] for net in order}
length = {net: first_layer(run) for net, run in first_seed.items()}
turns = {net: first_turns(run) for net, run in first_seed.items()}
table(
    [
        "first step, seed 0",
        "first layer turns by",
        "last layer turns by",
        "largest relative step, last layer = 1",
    ],
    [
        [
            net,
            f"{turns[net][0]:.2f}°",
            f"{turns[net][1]:.2f}°",
            f"{largest[net][0]:,.0f}",
        ]
        for net in order
    ],
)
table(
    [
        "length of the first layer's weights, seed 0",
        "before step 1",
        "after it",
        "at the end",
    ],
    [[net, *(f"{v:,.1f}" for v in length[net])] for net in order],
)

# %% jupyter={"source_hidden": true}
end = {net: final(group, "train").mean() for net, group in nets.items()}
rates = {line["lr"] for line in first_seed["plain110"].train}
raw = np.array(list(first_seed["plain110"].layers[1]["gradient_norm"].values()))
tiny_raw = int((raw < 2.0**-11 * raw[-1]).sum())
begin, after, late = length["plain110"]
say(f"""
    In plain-56 one step at a tenth of the full rate turns the first layer by **{turns["plain56"][0]:.0f} degrees**, in plain-110 by **{turns["plain110"][0]:.2f}**, while the last layer turns by a few hundredths of a degree. A turn of 90 degrees leaves nothing of the initial filters.
    And it makes the weights of plain-110's first layer {after / begin:,.0f} times as long; momentum carries them on. Twice the length is a quarter of the angle; {late / begin:,.0f} times the length is as if the rate of this layer had been divided by {(late / begin) ** 2 / 1e9:.0f} billion. It stays what the first batch made of it.
    **Plain-110 does not begin to learn in {first_seed["plain110"].config["iterations"]:,} steps.** It never leaves the warm-up, and its training error is {end["plain110"]:.1f} %; guessing gives 90 %. It has as many weights as ResNet-110, and saw the same pictures in the same order.
""")
say(f"""
    One often reads of another limit, $2^{{-11}}$. It stands in He and others ([2015](https://arxiv.org/abs/1502.01852), section 2.2) and is about the gradient of *activations* in nets without batch norm; there the gradients of the *weights* are equal in all layers. By that limit too, plain-110 has layers with tiny gradients at step 100: in {tiny_raw} of {len(raw)} layers $\\lVert dw\\rVert$ is below $2^{{-11}}$ of the last layer's.
    So by both measures gradients *have* vanished in plain-110 at step 100. Scale invariance says that this follows from the explosion: long weights get small gradients. We did not test it; the weekend exercise does.
""")
assert after > 1000 * begin
assert end["plain110"] > 85
assert rates == {first_seed["plain110"].config["warmup_lr"]}
assert end["resnet110"] < end["plain56"] - 5
assert max(largest["plain20"]) < min(largest["plain56"])
assert max(largest["plain56"]) < min(largest["plain110"])
assert tiny_raw > len(raw) / 3

# %% [markdown]
# The paper says (section 4.1) that the difficulty is "unlikely to be caused by vanishing gradients", since batch norm keeps forward signals alive and backward gradients healthy. It says so of its ImageNet nets of 18 and 34 layers. Our nets of 56 and 110 layers agree at the first step: nothing vanishes. The paper does not mention the explosion at that step, which Yang and others derived in 2019, nor how slowly the first layers can turn afterwards. And it leaves the cause open: it conjectures "exponentially low convergence rates".

# %% [markdown]
# ## The experiment: nearly the same angle for every layer
#
# So there is a suspect: *plain-56 is worse because its layers turn by unequal angles*. A suspect can be tested by removing it. `EqualAngles` is a gradient descent that scales the gradient of every convolution to length 1, takes a step of 0.01 times the length of the weights along a running mean of these (its momentum), and keeps that length. If unequal angles were what separates plain-56 from plain-20, the gap would close.
# %%
source(EqualAngles.step)

# %% [markdown]
# How equal are the angles? Fifteen steps with both rules at rate 0.01, and the angle of each layer, mean of the last five:

# %%
angles = {
    (net, rule): np.degrees(turned(net, rule, steps=15)[-5:].mean(axis=0))
    for net in ("plain20", "plain56")
    for rule in ("SGD", "equal angles")
}
ratio = {key: found.max() / found.min() for key, found in angles.items()}
table(
    ["net, rule", "smallest angle of a layer", "largest", "ratio"],
    [
        [
            ", ".join(key),
            f"{found.min():.3f}°",
            f"{found.max():.3f}°",
            f"{ratio[key]:.1f}",
        ]
        for key, found in angles.items()
    ],
)
assert max(ratio[net, "equal angles"] for net in ("plain20", "plain56")) < 1.5
assert min(ratio[net, "SGD"] for net in ("plain20", "plain56")) > 5

# %% [markdown]
# A running mean of unit vectors is shorter than 1 where they disagree, so the angles are below 0.01 (which is 0.57 degrees) and differ a little. With SGD they differ many times more.
#
# The networks train on new pictures of shapes10 at half size, 32 a step, 300 steps, both rules at rate 0.01. That takes a quarter of an hour, so here is a record (`python lessons/record_angles.py` makes it again). Before you look: does the gap close?

# %%
rows = json.loads((RECORDS / "equal-angles.json").read_text(encoding="utf-8"))
LAST = 40  # steps of the mean
ends = {}
for row in rows:
    ends.setdefault((row["net"], row["rule"]), []).append(np.mean(row["errors"][-LAST:]))
show(
    equal_angles(ends),
    "Bars: error on new pictures of plain20, plain56 and resnet56 after training with SGD and with equal angles, one seed. "
    "Equal angles lower the error of plain20 and resnet56 by many points; plain56 stays at the error of a guess.",
)

# %% jupyter={"source_hidden": true}
level = {key: float(np.mean(found)) for key, found in ends.items()}
seeds = {row["seed"] for row in rows}
say(f"""
    With nearly equal angles plain-20 has {level["plain20", "equal angles"]:.0f} % instead of {level["plain20", "SGD"]:.0f} %, and ResNet-56 {level["resnet56", "equal angles"]:.0f} % instead of {level["resnet56", "SGD"]:.0f} %. These two train better with this rule; whether because the angles are equal, or because 0.01 suits it better than SGD, is open. **Plain-56 still has {level["plain56", "equal angles"]:.0f} %** (SGD: {level["plain56", "SGD"]:.0f} %): it guesses with either rule.
    So equal angles are not enough to make plain-56 train, at this rate and in these {len(rows[0]["errors"])} steps ({"one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"}, mean of the last {LAST}), where they are enough for plain-20. And what shortcuts do here, equal angles do not.
""")
assert level["plain56", "equal angles"] > level["plain20", "equal angles"] + 20
assert level["resnet56", "equal angles"] < level["plain56", "equal angles"] - 20

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Gradients vanish with depth, shortcuts solve that",
            f"relative step of plain-56's first layer at step 1: {by_seed(largest['plain56'], ',.0f')} times the last one's; layers that stand still at step 100: {by_seed(still('plain56', 100), 'd')} of {layers['plain56']} by seed",
            "**not at the start**: they explode; afterwards some early layers hardly turn in two seeds of three",
        ],
        [
            "The same in a deeper net",
            f"plain-110, one seed: {largest['plain110'][0] / 1e6:.0f} million times; {still('plain110', 100)[0]} of {layers['plain110']} layers stand still at step 100",
            "**explosion first**, and most layers stand still after it",
        ],
        [
            "Batch norm keeps the gradients healthy (the paper, section 4.1, on 18 and 34 layers)",
            f"smallest relative step at step 1, last layer = 1: {min(found[1].min() for found in by_layer['plain56']):.2f} in plain-56, {by_layer['plain110'][0][1].min():.2f} in plain-110; the largest stand above",
            "**it keeps them from vanishing**; it does not keep those of 56 and 110 layers from exploding",
        ],
        [
            "Plain-56 is worse because its early layers turn too little",
            f"nearly equal angles: plain-56 {level['plain56', 'equal angles']:.0f} %, plain-20 {level['plain20', 'equal angles']:.0f} %",
            "**not supported** at one rate, one seed and 300 steps: the gap stays",
        ],
    ]
)

# %% [markdown]
# The first is heard most often.

# %% [markdown]
# ## What this does not show
#
# - **That plain-110 cannot be trained.** One seed, one recipe, 2,000 steps. Another rate or more steps might wake it up; with the paper's 64,000 it was still above 60 %.
# - **That angles do not matter.** In plain-110 most layers stand still, and such layers learn nothing. The test with equal angles is about 56 layers, small pictures, 300 steps, one angle and one seed. Plain-56 guesses with both rules: a test in which it learns with one of them would say more.
# - **Networks without batch norm.** There the length of the weights counts, and gradients can vanish. Lesson 6 shows such a network.
# - **The cause.** One more suspect has no support here. Lesson 11 puts four explanations on one bench.

# %% [markdown]
# ## Exercises
#
# **Now.** By hand: a filter of length 1 gets a gradient of length 1,000 at rate 0.01. How long is it after the step, and by which factor is the angle of later, small steps smaller than it would have been? (The output, and with it $\lVert dw\rVert \lVert w\rVert$, stays the same.)
#
# **To think about.** Weight decay multiplies $w$ by $1 - \eta\lambda$ at every step. In front of a batch norm, what does it do to the function, and what to the angle? Is there a length at which growing and shrinking are equal?
#
# **For the weekend.** Write an optimiser that only limits: no convolution may turn by more than 0.1 in one step, and all other steps are those of SGD. Begin with `EqualAngles`. Does plain-56 begin to learn with it? And are its first layers still among the slowest after 100 steps, now that their weights stay short? Predict first.

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.1, 2015.
# - van Laarhoven: *L2 Regularization versus Batch and Weight Normalization*, [arXiv 1706.05350](https://arxiv.org/abs/1706.05350), 2017. In front of a batch norm only the direction of weights counts.
# - Yang and others: *A Mean Field Theory of Batch Normalization*, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129), 2019. Why the gradient explodes at the start.
# - You, Gitman, Ginsburg: *Large Batch Training of Convolutional Networks*, [arXiv 1708.03888](https://arxiv.org/abs/1708.03888), 2017. An optimiser with nearly equal relative steps, for another reason.
# - [Lesson 6](06_residual_learning.ipynb): what the shortcut changes.
