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
# The most popular explanation of degradation: on its way from the loss to the input the gradient shrinks from layer to layer, until the first layers learn nothing. The paper says that this is "unlikely". The recorded runs of lesson 5a kept the gradient of every layer at three steps, so we can look.
#
# - **Time:** 60 minutes; the notebook runs for a few seconds.
# - **You need:** [lesson 5a](05a_degradation.ipynb) for the runs, [lesson 4](04_batch_norm.ipynb) for batch norm.
# - **Afterwards you can** say which measure of a gradient means something in front of a batch norm, compare layers by it, and test a suspected cause by removing it.

# %% jupyter={"source_hidden": true}
import json

import numpy as np
from draw_depth import equal_angles, standing
from style import RECORDS, claims, recorded, say, show, source, table

from minires import get_ops
from minires.lab import plots, tables
from minires.lab.angles import STILL, angles, shares
from minires.lab.layer_plot import turning, turning_message
from minires.lab.recorded import by_net, final, find_runs
from minires.lab.studies.equal_angles import EqualAngles
from minires.runs.config import Config
from minires.train.loop import initial_net

ops = get_ops("numpy")

# %% [markdown]
# ## The surprise
#
# Each line is a network of lesson 5a, each point a layer, from the input on the left to the loss on the right. The height says how far one step *turns* the weights of the layer, as a share of the last layer's angle (why the angle is the right measure comes below). A vanishing gradient would be a line that falls towards the left.

# %%
runs = recorded("cifar10")
nets = by_net(runs)
shown = {net: nets[net][0] for net in ("plain20", "plain56", "resnet56")}
by_layer = {net: shares(run) for net, run in shown.items()}
steps = list(by_layer["plain56"])
show(
    turning(list(shown.values())),
    "Angle of one step by place in the net, as a share of the last layer's, logarithmic, in a panel for each recorded step. At step 1 that of plain-56 rises by orders of magnitude "
    f"towards the input; later it falls by orders of magnitude towards the input, while plain-20 and ResNet-56 stay near 1. {turning_message(list(shown.values()))}.",
)

# %% jupyter={"source_hidden": true}
largest = by_layer["plain56"][steps[0]].max()
say(f"""
    At the first step nothing vanishes in plain-56. The gradient **explodes**: the first layer turns by **{largest:,.0f} times** the last one's angle ({by_layer["resnet56"][steps[0]].max():.0f} times in ResNet-56).
    One hundred steps later the picture is the opposite: the first layers hardly turn. Both need an explanation.
""")
assert largest > 50
assert by_layer["plain56"][steps[0]].min() > STILL
assert by_layer["plain56"][steps[1]].min() < STILL

# %% [markdown]
# ## By hand
#
# - A filter has two weights, $w = (3, 4)$, length 5, and a batch norm behind it. Batch norm divides by the deviation, so $w$ and $2w$ give the same output: only the *direction* of $w$ has an effect. Therefore the gradient has no part along $w$: it is at right angles to it, say $dw = (-8, 6)$, length 10.
# - One step at rate 0.1 goes to $w - 0.1\,dw = (3.8, 3.4)$. The step has length 1, so the filter turns by the angle $\arctan(1/5) \approx 0.20$. And it gets longer: $\sqrt{25 + 1} = 5.10$.
# - Now start with the filter twice as long, $w = (6, 8)$. The output is the same, and a change of $w$ has half the effect, so the gradient is half as long: $dw = (-4, 3)$. The step has length 0.5 and turns by $\arctan(0.5/10) \approx 0.05$.
#
# **Twice the length, a quarter of the angle.** A long filter turns slowly, and every step makes it longer.

# %%
table(
    ["w", "length", "dw", "length", "angle of a step", "length after it"],
    [
        [w, f"{np.hypot(*w):g}", g, f"{np.hypot(*g):g}", f"{np.arctan(0.1 * np.hypot(*g) / np.hypot(*w)):.3f}",
         f"{np.hypot(np.hypot(*w), 0.1 * np.hypot(*g)):.2f}"]
        for w, g in (((3, 4), (-8, 6)), ((6, 8), (-4, 3)))
    ],
)  # fmt: skip

# %% [markdown]
# ## The equation
#
# Let $L(w)$ be the loss as a function of the weights of a convolution with batch norm behind it. For every $c > 0$, $L(cw) = L(w)$ (apart from batch norm's small $\varepsilon$). Differentiate with respect to $c$ at $c = 1$, and with respect to $w$:
#
# $$\langle dw, w\rangle = 0, \qquad dw(cw) = \tfrac1c\,dw(w) .$$
#
# - The first says that the gradient is at right angles to $w$. So a small step at rate $\eta$ turns $w$ by the **angle** $\eta\,\lVert dw\rVert / \lVert w\rVert$, and its length becomes $\sqrt{\lVert w\rVert^2 + \eta^2\lVert dw\rVert^2}$.
# - The second says that $\lVert dw\rVert$ alone means little: it depends on the length of $w$, which changes nothing else. Two layers can be compared by the angles of their steps.
#
# For all filters of a layer together, the formula gives the root mean square of their angles, the longer filters counting more.
#
# And how little is too little? A layer that turns by a share $s$ of the last one's angle trains as the last one would at $s$ times its learning rate. The paper ends its schedule at 1/100 of the first rate: there a net only settles. So below 1/100 of the last layer's angle we say that a layer *stands still*.
#
# (One often reads of a limit of $2^{-11}$. It stands in He and others ([2015](https://arxiv.org/abs/1502.01852), section 2.2) and is about the gradient of *activations* in nets without batch norm. In such a net the signal shrinks on its way up as the gradient does on its way down, and the gradients of the *weights* are equal in all layers.)

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
source(angles, shares)

# %% [markdown]
# ## The experiment: from explosion to standing still
#
# What does the first step do to the weights of the first layer? And how many layers stand still at each recorded step? We take 110 layers too. Figure 6 of the paper says only that the error of plain-110 is "higher than 60 % and not displayed". Here it is displayed, beside ResNet-110, with 2,000 steps for each. The rate is 0.01 until the running error of the training batches is below 80 %, then 0.1: the paper used that *warm-up* for 110 layers (and says in footnote 5 that 0.1 from the start works too, after several epochs). Before you look: how long will each of the two take to get there?

# %%
tall = find_runs([RECORDS / "lesson-cifar10", RECORDS / "lesson-110"])
drawn = [run for run in tall if run.depth > 20]
show(
    plots.errors(drawn),
    f"Error against iterations, plain nets of 56 and 110 layers on the left, residual nets on the right. {tables.message(drawn)}.",
)

# %%
first_seed = {net: group[0] for net, group in by_net(tall).items()}
order = ("plain20", "resnet56", "resnet110", "plain56", "plain110")
still = {
    net: {
        step: (int((share < STILL).sum()), len(share))
        for step, share in shares(first_seed[net]).items()
    }
    for net in order
}
show(
    standing(still),
    "Bars: share of the layers that stand still at step 1, at step 100 and at the end. None at step 1 in any network; later none in plain20, few in plain56, and two thirds in plain110.",
)
assert all(found[1][0] == 0 for found in still.values())
assert still["plain110"][100][0] > still["plain110"][100][1] / 2

# %% [markdown]
# Why do they stand still after an explosion? Because of what the explosion left behind: long weights.


# %%
def first_layer(run):
    """Length of the first layer's weights before the first step, after it, and in the last record."""
    began = initial_net(Config.from_json(run.config)).parameters()["conv.w"]
    lengths = (run.layers[k]["weight_norm"]["conv"] for k in (0, -1))
    return (float(np.linalg.norm(began)), *lengths)


def full_rate(run):
    """First recorded step at the full rate, if there is one."""
    return next(
        (line["iteration"] for line in run.train if line["lr"] == run.config["lr"]), "never"
    )


pull = {net: shares(first_seed[net])[1].max() for net in order}
length = {net: first_layer(first_seed[net]) for net in order}
end = {net: final(by_net(tall)[net], "train").mean() for net in order}

# %%
table(
    [
        "net (seed 0)",
        "largest angle at step 1, of the last layer's",
        "length of the first layer's weights",
        "after step 1",
        "at the end",
        "at the full rate from step",
        "training error, %",
    ],
    [
        [
            net,
            f"{pull[net]:,.0f}",
            *(f"{v:,.1f}" for v in length[net]),
            full_rate(first_seed[net]),
            f"{end[net]:.1f}",
        ]
        for net in order
    ],
)

# %% jupyter={"source_hidden": true}
raw = np.array(list(first_seed["plain110"].layers[1]["gradient_norm"].values()))
tiny_raw = int((raw < 2.0**-11 * raw[-1]).sum())
begin, after, late = length["plain110"]
say(f"""
    The explosion grows with depth in plain nets and hardly in residual ones. In plain-110 this one step, at a tenth of the full rate, makes the weights of the first layer {after / begin:,.0f} times as long, and momentum carries them on. Twice the length is a quarter of the angle; {late / begin:,.0f} times the length is as if the rate of this layer had been divided by {(late / begin) ** 2 / 1e9:.0f} billion. It stays what the first batch made of it.
    **Plain-110 does not begin to learn in {first_seed["plain110"].config["iterations"]:,} steps.** Its training error is {end["plain110"]:.1f} %; guessing gives 90 %. It has as many weights as ResNet-110, and saw the same pictures in the same order.
    At step 100 its raw gradients are tiny too: in {tiny_raw} of {len(raw)} layers $\\lVert dw\\rVert$ is below $2^{{-11}}$ of the last layer's. So in plain-110 the gradients *have* vanished by any usual measure, as a **consequence** of their explosion.
""")
assert after > 1000 * begin
assert end["plain110"] > 85
assert full_rate(first_seed["plain110"]) == "never"
assert end["resnet110"] < end["plain56"] - 5
assert pull["plain20"] < pull["plain56"] < pull["plain110"]
assert tiny_raw > len(raw) / 3

# %% [markdown]
# The paper says (section 4.1) that the difficulty is "unlikely to be caused by vanishing gradients", since batch norm keeps forward signals alive and backward gradients healthy. For the first step we find the same. It does not mention the explosion at that step, which Yang and others derived in 2019, nor how slowly the first layers turn afterwards. And it leaves the cause open: it conjectures "exponentially low convergence rates".

# %% [markdown]
# ## The experiment: the same angle for every layer
#
# So there is a suspect: *plain-56 is worse because its layers turn by unequal angles*. A suspect can be tested by removing it. `EqualAngles` is a gradient descent in which **every convolution turns by the same angle at each step**, 0.01, and keeps its length. If unequal angles were what separates plain-56 from plain-20, the gap would close.
#
# The networks train on new pictures of shapes10 at half size, 32 a step, 300 steps. That takes a quarter of an hour, so here is a record (`python lessons/record_angles.py` makes it again). Before you look: does the gap close?

# %%
source(EqualAngles.step)

# %%
rows = json.loads((RECORDS / "equal-angles.json").read_text(encoding="utf-8"))
LAST = 40  # steps of the mean
ends = {}
for row in rows:
    ends.setdefault((row["net"], row["rule"]), []).append(np.mean(row["errors"][-LAST:]))
show(
    equal_angles(ends),
    "Bars with a mark for each seed: error on new pictures of plain20, plain56 and resnet56 after training with SGD and with equal angles. "
    "Equal angles lower the error of plain20 and resnet56 by many points; plain56 stays at the error of a guess.",
)

# %% jupyter={"source_hidden": true}
level = {key: float(np.mean(found)) for key, found in ends.items()}
seeds = {row["seed"] for row in rows}
say(f"""
    With equal angles plain-20 has {level["plain20", "equal angles"]:.0f} % instead of {level["plain20", "SGD"]:.0f} %, and ResNet-56 {level["resnet56", "equal angles"]:.0f} % instead of {level["resnet56", "SGD"]:.0f} %: unequal angles cost these two something, at this rate. **Plain-56 still has {level["plain56", "equal angles"]:.0f} %** (SGD: {level["plain56", "SGD"]:.0f} %).
    So they are *not* what separates plain-56 from plain-20, and shortcuts do something else than to equalise them. ({"One seed" if len(seeds) == 1 else f"{len(seeds)} seeds"}, one rate, {len(rows[0]["errors"])} steps, mean of the last {LAST}.)
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
            f"plain-56 turns its first layer by {largest:,.0f} times the last one's angle at step 1; at step 100 {still['plain56'][100][0]} of {still['plain56'][100][1]} layers stand still, in plain-110 {still['plain110'][100][0]} of {still['plain110'][100][1]}",
            "**not at the start**: they explode; afterwards early layers hardly turn, as a consequence",
        ],
        [
            "Batch norm keeps the gradients healthy (the paper, section 4.1)",
            f"largest angle at step 1: {largest:,.0f} times the last one's in plain-56, {pull['plain110'] / 1e6:.0f} million times in plain-110",
            "**it keeps them from vanishing**; it does not keep them from exploding",
        ],
        [
            "Plain-56 is worse because its early layers turn too little",
            f"all layers turned by the same angle: plain-56 {level['plain56', 'equal angles']:.0f} %, plain-20 {level['plain20', 'equal angles']:.0f} %",
            "**no**: the gap stays",
        ],
        [
            "The higher training error is *caused by* the degradation problem",
            "argument: degradation is the name of this very observation",
            "**circular**: the paper leaves the cause open",
        ],
    ]
)

# %% [markdown]
# The first and the last are found in popular reviews of the paper.

# %% [markdown]
# ## What this does not show
#
# - **That plain-110 cannot be trained.** One seed, one recipe, 2,000 steps. Another rate or more steps might wake it up; with the paper's 64,000 it was still above 60 %.
# - **That angles do not matter.** In plain-110 most layers stand still, and such layers learn nothing. The test with equal angles is about 56 layers, small pictures, few steps and one seed.
# - **Networks without batch norm.** There the length of the weights counts, and gradients can vanish. Lesson 6 shows such a network.
# - **The cause.** One more suspect is excluded. Lesson 11 puts four explanations on one bench.

# %% [markdown]
# ## Exercises
#
# **Now.** By hand: a filter of length 1 gets a gradient of length 1,000 at rate 0.01. How long is it after the step, and by which factor is the angle of later steps smaller than it would have been? (The output, and with it $\lVert dw\rVert \lVert w\rVert$, stays the same.)
#
# **To think about.** Weight decay multiplies $w$ by $1 - \eta\lambda$ at every step. In front of a batch norm, what does it do to the function, and what to the angle? Is there a length at which growing and shrinking are equal?
#
# **For the weekend.** Write an optimiser that only limits: no convolution may turn by more than 0.1 in one step, and all other steps are those of SGD. Begin with `EqualAngles`. Does plain-56 begin to learn with it? Predict first.

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.1, 2015.
# - van Laarhoven: *L2 Regularization versus Batch and Weight Normalization*, [arXiv 1706.05350](https://arxiv.org/abs/1706.05350), 2017. In front of a batch norm only the direction of weights counts.
# - Yang and others: *A Mean Field Theory of Batch Normalization*, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129), 2019. Why the gradient explodes at the start.
# - You, Gitman, Ginsburg: *Large Batch Training of Convolutional Networks*, [arXiv 1708.03888](https://arxiv.org/abs/1708.03888), 2017. An optimiser with nearly equal relative steps, for another reason.
# - [Lesson 6](06_residual_learning.ipynb): what the shortcut changes.
