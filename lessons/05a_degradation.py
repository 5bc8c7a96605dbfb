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
# # 5a. Deeper is worse: why?
#
# Stack more layers on a plain network, and from some depth on it gets *worse*. Not on new pictures only, where one might blame overfitting: on the pictures it is trained on. Others had reported it before (the paper cites He and Sun 2015, and the authors of highway networks); He, Zhang, Ren and Sun called it *degradation* in 2015, and residual networks are their answer to it. This lesson looks at the evidence, and tries two explanations: that the deep network overfits, and that it cannot do what the shallow one does. [Lesson 5b](05b_gradients.ipynb) tries the most popular one, that gradients vanish.
#
# - **Time:** 60 minutes; the notebook runs for one or two.
# - **You need:** [lesson 4](04_batch_norm.ipynb) for batch norm, [lesson 4b](04b_whole_network.ipynb) for the networks, their blocks and the training step.
# - **Afterwards you can** tell degradation from overfitting by a measurement, build a deep network that must be as good as a shallow one, and read claims about depth with care.

# %% jupyter={"source_hidden": true}
import copy
import json

import numpy as np
from draw_depth import (
    HUES,
    LIGHT,
    begun_at_the_solution,
    gaps,
    identities,
    moving_average,
)
from style import (
    FOUR,
    PLAIN,
    RECORDS,
    claims,
    counting,
    recorded,
    say,
    show,
    source,
    table,
)

from minires import get_ops, plain
from minires.data import ArraySplit, load, normalise, per_pixel_mean, shapes10
from minires.lab import live, plots, tables
from minires.lab.presets import PRESETS, base_config, preset_name
from minires.lab.recorded import by_net, final, find_runs, noise
from minires.lab.studies.deepen import deepen
from minires.lab.studies.identity import fit_identity
from minires.layers import recompute_statistics
from minires.ops import default_backend, prepare
from minires.optim import SGD
from minires.train.step import evaluate, train_step

ops = get_ops("numpy")
prepare(default_backend())  # compile what is needed, once

# %% [markdown]
# ## The surprise
#
# Four networks were trained by one recipe on the same pictures in the same order: plain and residual, 20 and 56 layers. Here is the record.

# %%
runs = recorded("cifar10")
nets, config, where = by_net(runs), runs[0].config, runs[0].data["name"]
train_error = {net: final(group, "train").mean() for net, group in nets.items()}
test_error = {net: final(group, "test").mean() for net, group in nets.items()}
show(
    plots.errors(runs),
    f"Error against iterations on {where}, plain nets on the left, residual nets on the right. {tables.message(runs)}.",
)

# %% jupyter={"source_hidden": true}
seeds = max(map(len, nets.values()))
rate = f"{config['lr']:g}" + (
    f" after a warm-up at {config['warmup_lr']:g}" if config["warmup_lr"] else ""
)
epochs = config["iterations"] * config["batch_size"] / 50_000
say(f"""
    {where}, {config["iterations"]:,} steps of {config["batch_size"]} pictures ({epochs:.1f} passes over 50,000), learning rate {rate}, {f"mean of {seeds} seeds" if seeds > 1 else "one seed"}.
    Training error: plain-20 {train_error["plain20"]:.1f} %, plain-56 **{train_error["plain56"]:.1f} %**. Test error: {test_error["plain20"]:.1f} and {test_error["plain56"]:.1f} %.
    With shortcuts, 56 layers come to {train_error["resnet56"]:.1f} % in training: {train_error["plain56"] - train_error["resnet56"]:.0f} points less, with not one parameter more.
""")
by_others = json.loads((RECORDS.parent / "transfer" / "record.json").read_text("utf-8"))["copy"]
say(f"""
    *JPEG copy* means that our pictures of CIFAR-10 were once compressed with loss. Test errors on this copy are larger: a ResNet-20 that others trained on the lossless pictures has {by_others["resnet20"]["published"]:.2f} % on the lossless test pictures, and {by_others["resnet20"]["as it is"]:.2f} % on ours (lesson 12). So compare our errors with each other, not with those of the paper. `lr/10` in the figure: from there on the learning rate is a tenth of what it was.
    ResNet-56 ends {train_error["resnet20"] - train_error["resnet56"]:.1f} points ahead of ResNet-20 on training pictures. With {"one seed" if seeds == 1 else f"{seeds} seeds"} we claim nothing of that.
""")
margin = PRESETS[preset_name(runs[0])].margin  # points, as registered in the code
assert train_error["plain56"] > train_error["plain20"] + margin
assert train_error["resnet56"] < train_error["plain56"] - margin

# %% [markdown]
# Why should that not be so? Because plain-56 *contains* plain-20. Let 36 of its layers pass on what they get, and the rest do what plain-20 does. Whatever plain-20 can do, plain-56 can do. And yet training did not find it in these steps.
#
# The record is from another day. The next cell trains the same four for 2,000 steps only, so its errors are higher, with curves that grow as you watch: set `RERUN` to `True`. It takes about three quarters of an hour on two cores; with `"quick"` instead of `"lesson"` it is 280 steps and some minutes.

# %%
RERUN = False
if RERUN:
    data = load()  # CIFAR-10 if it is here, otherwise shapes10
    live(
        FOUR,
        base_config(data, "lesson", backend=default_backend()),
        "../runs/lesson-5a",
        data,
    )

# %% [markdown]
# ## By hand
#
# Can a layer with batch norm and ReLU pass on what it gets? Take one channel with two values, $x = (0, 4)$, both at least 0 because a ReLU made them. The convolution multiplies by 1 and adds no neighbour: $(0, 4)$ again. Batch norm subtracts the mean 2 and divides by the deviation 2: $(-1, 1)$. Then it multiplies by $\gamma$ and adds $\beta$. With $\gamma = 2$ and $\beta = 2$ that is $(0, 4)$. The ReLU has nothing to cut off.

# %%
x = np.array([0.0, 4.0]).reshape(1, 1, 2, 1)  # one picture, one row, two columns, one channel
w = np.zeros((3, 3, 1, 1))
w[1, 1] = 1  # the centre of the kernel
convolved, _ = ops.conv2d_forward(x, w, pad=1)
normed, mean, var, _ = ops.batchnorm_forward(convolved, np.array([2.0]), np.array([2.0]), eps=0.0)
y, _ = ops.relu_forward(normed)
xhat = (convolved - mean) / np.sqrt(var)
table(
    ["", "x", "convolution", "normalised", "times γ, plus β", "ReLU"],
    [
        [f"value {i + 1}", *(f"{a.flat[i]:g}" for a in (x, convolved, xhat, normed, y))]
        for i in (0, 1)
    ],
)
assert np.array_equal(y, x)

# %% [markdown]
# ## The equation
#
# An **identity layer**: for every channel of its input $x \ge 0$ with mean $\mu$ and variance $\sigma^2$,
#
# $$\max\Big(0,\; \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \varepsilon}} + \beta\Big) = x \qquad\text{if}\qquad \gamma = \sqrt{\sigma^2 + \varepsilon},\quad \beta = \mu .$$
#
# So for every setting $\theta$ of plain-20 there is a setting $D(\theta)$ of plain-56 that computes the same function (in evaluation, where $\mu$ and $\sigma^2$ are fixed numbers; in training those of each batch differ a little): copy $\theta$ and fill up with identity layers. Let $E_{20}(\theta)$ and $E_{56}(\theta)$ be the training errors. Then
#
# $$\min_{\theta} E_{56}(\theta) \;\le\; \min_{\theta} E_{56}(D(\theta)) \;=\; \min_\theta E_{20}(\theta).$$
#
# - The left side is the best that *exists* for 56 layers, the right side the best for 20;
# - what we saw in the surprise is neither: it is what gradient descent *found*.
#
# This is the paper's argument (section 1): a deeper model "should produce no higher training error". If it does, the fault is not in what the network can express but in how we look for it.

# %% [markdown]
# ## The code
#
# The library builds $D(\theta)$ (`plain_facts` and `fit` describe the deeper net; `_statistics` returns the mean and the variance of each channel):

# %%
source(deepen)

# %%
shallow = plain(20, rng=5)
x = np.random.default_rng(5).standard_normal((8, 32, 32, 3)).astype(np.float32)
deep = deepen(shallow, 56, x)
expected = shallow.forward(x)
assert np.allclose(deep.forward(x), expected, rtol=1e-4, atol=1e-4 * abs(expected).max())

# %% jupyter={"source_hidden": true}
say(
    f"`{shallow}` and `{deep}` give the same logits: the largest difference is {abs(deep.forward(x) - expected).max():g} (0: bit for bit)."
)

# %% [markdown]
# ## The experiment: train and test by depth
#
# The first explanation that comes to mind is overfitting: too many parameters for the data. Overfitting has a signature. The error on the training pictures is *small*, and the error on new ones is larger. So we look at both, by depth. (The *noise* below is twice the standard error: an error was measured on a limited number of pictures, and on others it would be a little different. Lesson 7b says how much.)

# %%
gap = {net: test_error[net] - train_error[net] for net in FOUR}
both = [(nets[net], which) for net in ("plain20", "plain56") for which in ("train", "test")]
show(
    gaps(train_error, test_error),
    "Bars: training and test error of plain20, plain56, resnet20 and resnet56. Both bars of plain56 are far above those of the others; test bars are a little higher than training bars everywhere.",
)
assert gap["plain56"] < gap["plain20"]

# %% jupyter={"source_hidden": true}
say(f"""
    From training to test pictures the error of plain-20 changes by {gap["plain20"]:+.1f} points and that of plain-56 by {gap["plain56"]:+.1f}: the deeper net loses less (noise {noise(*both):.1f}), where overfitting would make it lose more.
    What separates them is there before any test picture is looked at: {train_error["plain56"] - train_error["plain20"]:.1f} points *on the training pictures*. The paper says so in its first section: degradation "is not caused by overfitting".
""")

# %% [markdown]
# ## The experiment: pictures that are never seen twice
#
# There is a still stronger test. Draw **new pictures at every step**, from the program that draws shapes10. No picture is seen twice, so the net cannot memorise any; each batch is a test before it is a lesson. If a deeper net is worse here, overfitting cannot be the reason. And if the residual net of the same size is not, neither can a network "too big for its data".
#
# Here is a record of it: nets of 20 and 56 layers, plain and residual.

# %%
new = find_runs([RECORDS / "quick-shapes10-fresh"])
show(
    plots.errors(new),
    f"Error against iterations on pictures that are never seen twice, plain nets on the left, residual nets on the right. {tables.message(new)}.",
)

# %% jupyter={"source_hidden": true}
new_nets, new_config = by_net(new), new[0].config
unseen_error = {net: final(group, "test").mean() for net, group in new_nets.items()}
behind = unseen_error["plain56"] - unseen_error["plain20"]
unsure_new = noise((new_nets["plain56"], "test"), (new_nets["plain20"], "test"))
say(f"""
    After {new_config["iterations"]} steps of {new_config["batch_size"]} new pictures, the errors on other new pictures are {", ".join(f"**{net}** {unseen_error[net]:.1f} %" for net in FOUR)} (one seed).
    Plain-56 is {behind:.0f} points behind plain-20 (noise {unsure_new:.0f}; the figure's title has the batches of training), although there is nothing to memorise: training error and test error measure the same thing here, up to the noise of the pictures drawn. So it is not overfitting. ResNet-56, with the same number of weights and the same pictures, is as good as ResNet-20: so it is not too many weights for these data either.
    After so few steps plain-56 still guesses. The record shows that it starts late, not where it would end.
""")
assert behind > unsure_new
assert unseen_error["resnet56"] < unseen_error["plain56"] - unsure_new

# %% [markdown]
# ## The experiment: begin at the solution
#
# Now the construction, tried. We train a plain-8 and a plain-20 on new pictures for 200 steps. Then we deepen the plain-8 to 20 layers: a plain-20 that *is* as good as plain-8, made by hand. Does gradient descent at least stay there? All go on, and we try a second learning rate too.
#
# To be quick we take pictures of half size (16x16), batches of 64 and learning rate 0.025. The two cells take about a minute.

# %%
FRESH, ON, BATCH, RATE = (
    200,
    280,
    64,
    0.025,
)  # steps from the usual start, steps later on, pictures a step, rate
pictures, labels = shapes10.images(BATCH * (FRESH + ON) + 1500, np.random.default_rng(5))
pictures = pictures[:, ::2, ::2]  # (32220, 16, 16, 3)
mean = per_pixel_mean(pictures[-1000:])


def train(net, first, last, lr):
    """Errors in percent of the batches from step `first` to `last`, all of new pictures."""
    optimizer, found = SGD(net.parameters()), []
    for i in counting(last - first, f"{net.title}, learning rate {lr:g}, step"):
        rows = slice(BATCH * (first + i), BATCH * (first + i + 1))
        x = normalise(pictures[rows], mean)
        found.append(100 * train_step(net, optimizer, x, labels[rows], lr)[1])
    return np.array(found)


usual = {depth: plain(depth, rng=0).use(default_backend()) for depth in (8, 20)}
fresh = {depth: train(net, 0, FRESH, RATE) for depth, net in usual.items()}

# %%
about = normalise(pictures[-1500:-1000], mean)  # pictures for statistics
unseen = ArraySplit(pictures[-1000:], labels[-1000:])


def settle(net):
    """Recompute batch norm's statistics and return the error on 1,000 new pictures, in percent."""
    recompute_statistics(net, np.split(about, 5))
    return 100 * evaluate(net, unseen, lambda images, _: normalise(images, mean), 100)[1]


at_start = settle(usual[8])
built = {lr: deepen(usual[8], 20, about) for lr in (0.1, RATE)}
built_error = 100 * evaluate(built[RATE], unseen, lambda images, _: normalise(images, mean), 100)[1]
assert abs(built_error - at_start) <= 0.2

# %% jupyter={"source_hidden": true}
say(
    f"On 1,000 new pictures the error of plain-8 is {at_start:.1f} %, and that of the plain-20 built from it {built_error:.1f} %."
)

# %%
SHORT = 80  # steps at the second rate
on = {}
for lr, count in ((RATE, ON), (0.1, SHORT)):
    on["plain-8 goes on", lr] = train(copy.deepcopy(usual[8]), FRESH, FRESH + count, lr)
    on["plain-20 built from it", lr] = train(built[lr], FRESH, FRESH + count, lr)
on["plain-20, usual start", RATE] = train(usual[20], FRESH, FRESH + ON, RATE)

# %%
scratch = np.r_[fresh[20], on["plain-20, usual start", RATE]]
curves = [
    ("plain-8", 0, np.r_[fresh[8], on["plain-8 goes on", RATE]], LIGHT, "-"),
    ("plain-20, usual start", 0, scratch, PLAIN, "-"),
    ("plain-20, built", FRESH, on["plain-20 built from it", RATE], HUES[2], "-"),
    ("plain-8, rate 0.1", FRESH, on["plain-8 goes on", 0.1], LIGHT, "--"),
    (
        "plain-20, built, rate 0.1",
        FRESH,
        on["plain-20 built from it", 0.1],
        HUES[2],
        "--",
    ),
]
show(
    begun_at_the_solution(FRESH, curves),
    "Error by step. Plain-8 falls; at step 200 a plain-20 built from it begins with the same function. At learning rate 0.1 its error jumps up and falls again, "
    "at 0.025 it stays low. The plain-20 from the usual start is far above that one at step 200, and comes near to it in the steps after.",
)

# %% jupyter={"source_hidden": true}
WINDOW = 20  # steps of a mean
first = {name: errors[:WINDOW].mean() for name, errors in on.items()}
last = {name: errors[-WINDOW:].mean() for name, errors in on.items()}
table(
    [
        "net, learning rate",
        "steps",
        f"error in its first {WINDOW} steps, %",
        f"last {WINDOW}, %",
    ],
    [
        [
            f"{name}, {lr:g}",
            len(on[name, lr]),
            f"{first[name, lr]:.0f}",
            f"{last[name, lr]:.0f}",
        ]
        for name, lr in on
    ],
)
built_20, eight = ("plain-20 built from it", "plain-8 goes on")
level = moving_average(fresh[8])[-1]
reached = int(np.argmax(moving_average(scratch) <= level)) + 1
say(f"""
    At rate {RATE:g}, the rate of the {FRESH} steps before, gradient descent stays where the construction put it, and continues from there (last: {last[built_20, RATE]:.0f} %, plain-8 {last[eight, RATE]:.0f} %). At 0.1, the paper's rate, the first steps throw it off ({first[built_20, 0.1]:.0f} % instead of the {first[eight, 0.1]:.0f} % that plain-8 has at that rate), and after {SHORT} steps it is at {last[built_20, 0.1]:.0f} %.
    The plain-20 from the usual start has {moving_average(scratch)[FRESH - 1]:.0f} % at step {FRESH}, where plain-8 has {level:.0f} %. It is the same network as the built one, with the same {sum(p.size for p in usual[20].parameters().values()):,} weights, on the same pictures. What differs is where the search began. It reaches that {level:.0f} % at step {reached}, and ends at {moving_average(scratch)[-1]:.0f} %: at 20 layers the usual start loses time, and not much more. The record above shows what 56 layers lose.
""")
assert first[built_20, 0.1] > first[eight, 0.1] + 5
assert first[built_20, RATE] < first["plain-20, usual start", RATE] - 5
assert FRESH < reached

# %% [markdown]
# ## The experiment: how hard is an identity?
#
# Gradient descent kept the identity layers that we gave it. Would it find them? The paper supposes that solvers "might have difficulties" (section 3.1). Test it: stacks of convolution, batch norm and ReLU are trained to return what they get, $y = x$, on random inputs, with shortcuts and without. We measure the squared error as a share of the variance of $x$, so that 1 is the error of the best constant. This cell takes about half a minute.

# %%
STACKS = (2, 4, 8)
jobs = [(layers, shortcuts) for shortcuts in (False, True) for layers in STACKS]
fits = {}
for k in counting(len(jobs), "stacks fitted"):
    fits[jobs[k]] = fit_identity(*jobs[k], lr=1e-3, steps=150, channels=8)[-10:].mean()
show(
    identities(fits),
    "Squared error after 150 steps by number of layers: for plain stacks it rises from two to eight layers, nearly to the error of the best constant; with shortcuts it is near 0 for two and four layers.",
)
assert fits[2, False] < fits[4, False] < fits[8, False]
assert max(fits[2, True], fits[4, True]) < 0.01

# %% [markdown]
# The deeper the plain stack, the worse it finds the identity in these steps; with eight layers it is hardly better than a constant. With shortcuts two and four layers have it: the body only has to become small. Eight are on the way, after a start that is much worse (each block *adds* to $x$). So the paper's guess holds here: one learning rate, one seed, 150 steps, eight channels. What gets lost when a stack cannot pass on its input, and what the shortcut changes, is the subject of [lesson 6](06_residual_learning.ipynb).

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
deeper = train_error["resnet56"] - train_error["resnet20"]
unsure_deeper = noise((nets["resnet56"], "train"), (nets["resnet20"], "train"))
lesson_runs = by_net(find_runs([RECORDS / "lesson-cifar10"]))
early = {net: final(group, "train").mean() for net, group in lesson_runs.items()}
early_config = lesson_runs["resnet20"][0].config
claims(
    [
        [
            "Table 6: plain-56 has 8.75 % error, ResNet-56 6.97 %",
            "argument: table 6 lists residual networks only; others trained plain-56 to the end, five seeds: 12.95 ± 0.22 % (nabla0001/resnet)",
            "**no**: 8.75 % is ResNet-20",
        ],
        [
            "Degradation is overfitting",
            f"{train_error['plain56'] - train_error['plain20']:.0f} points on *training* pictures; {behind:.0f} points on pictures that are never seen twice, after {new_config['iterations']} steps",
            "**no**",
        ],
        [
            "The network is too big for the data",
            f"new pictures at every step, {new_config['iterations']} steps: plain-56 {unseen_error['plain56']:.0f} %, ResNet-56, of the same size, {unseen_error['resnet56']:.0f} %",
            "**no**",
        ],
        [
            "A deeper plain net cannot express the solution",
            f"built: {built_error:.1f} %, like the shallow one",
            "**no**: it exists, it is not found",
        ],
        [
            "The higher training error is *caused by* the degradation problem",
            "argument: degradation is the name of this very observation",
            "**circular**: the paper leaves the cause open",
        ],
        [
            "With shortcuts, error keeps falling with depth",
            f"ResNet-56 minus ResNet-20 in training, after {config['iterations']:,} steps: {deeper:+.1f} points (noise {unsure_deeper:.1f}, one seed); after {early_config['iterations']:,} steps {early['resnet56'] - early['resnet20']:+.1f} points (three seeds); in the paper 1202 layers have 7.93 %, 110 layers 6.43 %",
            "**over-claimed**: not after a few thousand steps, and not at every depth",
        ],
    ]
)

# %% [markdown]
# The claims are often heard. The figures of the paper are those of its table 6 and section 4.2; the five-seed result for plain-56 is published with the code at [nabla0001/resnet](https://github.com/nabla0001/resnet), for plain-20 it is 9.78 ± 0.13 %. So at the end of a full training the gap is about 3 points, and much larger on the way.

# %% [markdown]
# ## What this does not show
#
# - **The end of training.** A short run measures slow *convergence*, which is what the paper conjectures to be behind it. Another reproduction recorded every epoch of 64,000 iterations ([a-martyn/resnet](https://github.com/a-martyn/resnet)): plain-56 is 43 points of training error above plain-20 after 5 epochs, 32 after 20, 2.6 after 164. Smaller, and still there.
# - **That deeper residual nets are better.** In those records ResNet-56 is behind ResNet-20 in the first epochs and passes it only after ten or more. Ours ends ahead on training pictures, with one seed; on new ones the two are within the noise. We claim nothing of it.
# - **The cause.** We excluded two explanations. Lesson 5b tests vanishing gradients, lesson 6 the sensitivity of training, lesson 11 four explanations of why shortcuts help.
# - The half-size nets of 8 and 20 layers are small witnesses, with one seed: they show that the solution exists and that the search begins elsewhere, not how much depth costs.

# %% [markdown]
# ## Exercises
#
# **Now.** Deepen `usual[8]` to 32 layers instead of 20. Is the error still the same before training? How far does rate 0.1 throw it off?
#
# **To think about.** In `deepen`, the identity blocks come *behind* the trained blocks of a stage. Why would it be wrong to put the first of them in front of everything, right behind the picture?
#
# **For the weekend.** The record of new pictures ends after 280 steps. Train longer: `minires degradation --dataset shapes10-fresh --iterations 1000`. Predict the order of the four nets and their distances before you start, then draw them with `minires plot`. Does plain-56 begin to learn?

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 1, 3.1, 4.1 and 4.2, 2015.
# - Srivastava, Greff, Schmidhuber: *Training Very Deep Networks*, [arXiv 1507.06228](https://arxiv.org/abs/1507.06228), section 3, 2015. Degradation on MNIST, and shortcuts with gates.
# - Li and others: *Visualizing the Loss Landscape of Neural Nets*, [arXiv 1712.09913](https://arxiv.org/abs/1712.09913), section 6, 2018. Deep plain nets with other recipes.
# - [Lesson 5b](05b_gradients.ipynb): do gradients vanish?
