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
# # 7. What does it take to reproduce a row of Table 6?
#
# "ResNet-20, 8.75 %" is one line of a table. Behind it stand a dozen decisions: how pictures are prepared, how weights begin, how steps are taken, when the learning rate falls, how the error is measured at the end. Section 4.2 of the paper spends two paragraphs on them. Which ones matter, and how would you know?
#
# - **Time:** 60 minutes; the notebook runs for about one.
# - **You need:** [lesson 4](04_batch_norm.ipynb) for the statistics of batch norm, [lesson 5a](05a_degradation.ipynb) for the record.
# - **Afterwards you can** name each piece of the recipe and test it, say what a run costs before you start it, and read a table of results as a sceptic.

# %%
import copy

import numpy as np
from matplotlib.figure import Figure
from style import (
    FOUR,
    HUES,
    MUTED,
    PLAIN,
    RECORDS,
    RESIDUAL,
    claims,
    counting,
    recorded,
    say,
    show,
    source,
    table,
)

from minires import resnet
from minires.data import (
    batch_indices,
    crop_and_flip,
    load,
    normalise,
    per_pixel_mean,
    shapes10,
    stream,
)
from minires.lab import live, plots
from minires.lab.presets import PRESETS, base_config, with_warmup
from minires.lab.recorded import by_net, final
from minires.layers import recompute_statistics
from minires.nets.audit import macs
from minires.nets.registry import by_name, facts
from minires.ops import default_backend, prepare
from minires.optim import SGD, step_schedule
from minires.runs.run import read_run
from minires.train.step import train_step
from minires.train.task import get_task

prepare(default_backend())  # compile what is needed, once
full_size, labels = shapes10.images(6120, np.random.default_rng(7))
half_size = full_size[:, ::2, ::2]  # (6120, 16, 16, 3), to be quick
training, test = slice(0, 5120), slice(5120, 6120)
MEAN = per_pixel_mean(half_size[training])

# %% [markdown]
# Everything that is trained in this notebook is small: ResNet-8 on half-size pictures of shapes10, batches of 64, some hundred steps, without crops and flips unless we say so. What it says about CIFAR-10 comes from recorded runs and from published ones.


# %%
def train(
    net,
    steps,
    lr=0.1,
    mean=MEAN,
    augment=False,
    momentum=0.9,
    decay=1e-4,
    seed=0,
    first=0,
    watch=None,
):
    """The recipe, a piece at each argument; returns the error of each batch in percent."""
    sgd, found = SGD(net.parameters(), momentum, decay), []
    for i in range(first, first + steps):
        rows = batch_indices(seed, i, 64, 5120)
        x = normalise(half_size[rows], mean)
        if augment:
            x = crop_and_flip(x, stream(seed, "augment", i), pad=2)
        found.append(100 * train_step(net, sgd, x, labels[rows], lr)[1])
        if watch:
            watch(i + 1)
    return np.array(found)


def logits(net, mean=MEAN, recompute=True):
    """Logits of the 1,000 test pictures; the net does not change."""
    if recompute:
        net = copy.deepcopy(net)
        recompute_statistics(net, np.split(normalise(half_size[:640], mean), 5))
    return net.forward(normalise(half_size[test], mean))


def wrong(net, mean=MEAN, recompute=True):
    return logits(net, mean, recompute).argmax(axis=1) != labels[test]


# %% [markdown]
# ## The surprise
#
# We train one ResNet-8 at the paper's learning rate of 0.1, stop every ten steps, and measure its test error in two ways. Not one weight differs between the two. One way uses the *moving averages* that batch norm collected on the way, as most programs do. The other computes mean and variance afresh over 640 training pictures, as the paper's authors did. This cell takes about ten seconds.

# %%
net, seen = resnet(8, rng=0).use(default_backend()), []
progress = iter(counting(20, "times measured"))


def look(step):
    """Every ten steps: which test pictures are wrong, by moving averages and by recomputed statistics."""
    if step % 10 == 0:
        seen.append((step, wrong(net, recompute=False), wrong(net)))
        next(progress)


train(net, 200, watch=look)
next(progress, None)
at = np.array([step for step, _, _ in seen])
moving, afresh = (100 * np.array([s[k].mean() for s in seen]) for k in (1, 2))

# %% jupyter={"source_hidden": true}
difference = abs(moving - afresh)
worst = difference.argmax()
figure = Figure(figsize=(7.8, 4.0))
axes = figure.subplots()
axes.plot(at, moving, "s--", color=HUES[1], ms=4, label="moving averages")
axes.plot(at, afresh, "o-", color=RESIDUAL, ms=4, label="statistics computed afresh")
axes.set(xlabel="training step", ylabel="test error (%)", ylim=(0, 100), xlim=(0, 204))
axes.legend(loc="lower left")
axes.set_title(
    f"The same weights, two errors: up to {difference.max():.0f} points apart, at step {at[worst]}"
)
show(
    figure,
    f"Test error by training step, measured in two ways. The two differ by up to {difference.max():.0f} points, {np.median(difference):.1f} in the median.",
)

# %%
say(f"""
    At step {at[worst]} the same network has an error of **{moving[worst]:.0f} %** or of **{afresh[worst]:.0f} %**. The median difference is {np.median(difference):.1f} points, the last one {difference[-1]:.1f}.
    A moving average remembers networks that do not exist any more; the larger the steps, the staler it is. So curves measured by moving averages jump about while the rate is high, and calm down when it falls.
""")
assert difference.max() > 5

# %% [markdown]
# Published curves jump too. In a reproduction at full size that evaluates by moving averages ([a-martyn/resnet](https://github.com/a-martyn/resnet)), the training error of plain-56 is 23.0 % in epoch 82, 41.6 % in epoch 83 and 10.9 % in epoch 84. That is no second case of one network with two errors: 391 steps lie between two epochs, and the rate falls right after epoch 83. Such jumps are common there while the rate is 0.1. Stale statistics are one candidate for them, and nothing in that record decides it; the two curves above do, for one small network. Before two curves are compared, one has to know how they were measured.

# %% [markdown]
# ## By hand
#
# Momentum comes in two forms, and papers rarely say which. Let the gradient be 1 at every step, momentum $m = 0.9$. The velocity, step by step:
#
# - $v \leftarrow m v + g$: 1, then 0.9 + 1 = 1.9, then 1.71 + 1 = 2.71, towards $1/(1 - m) = 10$;
# - $v \leftarrow m v + (1 - m) g$: 0.1, then 0.09 + 0.1 = 0.19, then 0.271, towards 1.
#
# The second is the first divided by 10, at every step. With it, "learning rate 0.1" means 0.01 of the other. Which one is ours?

# %%
weight = {"w": np.zeros(1)}
sgd, path = SGD(weight, momentum=0.9, weight_decay=0.0), []
for _ in range(60):
    sgd.step({"w": np.ones(1)}, lr=0.1)
    path.append(float(sgd.velocity["w"][0]))
table(["step", "velocity"], [[k, f"{path[k - 1]:.4g}"] for k in (1, 2, 3, 10, 60)])
assert np.allclose(path[:3], [1, 1.9, 2.71])
assert abs(path[-1] - 1 / (1 - 0.9)) < 0.02

# %% [markdown]
# The first, as with the paper's authors (their Caffe multiplies by the rate one step earlier, which is the same as long as the rate stays). In the long run, then, a gradient counts *ten times* the learning rate.

# %% [markdown]
# ## The equation
#
# $$v \leftarrow m\,v + (g + \lambda w), \qquad w \leftarrow w - \eta(t)\, v, \qquad \eta(t) = \begin{cases} 0.1 & t < 32{,}000\\ 0.01 & t < 48{,}000\\ 0.001 & t < 64{,}000\end{cases}$$
#
# - $g$ is the gradient of the loss over 128 pictures, each shifted by up to 4 pixels and mirrored every second time, with the per-pixel mean taken off;
# - $m = 0.9$ the momentum, $\lambda = 0.0001$ the weight decay, on *all* parameters, those of batch norm too;
# - $\eta(t)$ the learning rate at step $t$, divided by 10 twice; with 110 layers it is 0.01 until the training error is below 80 %, then 0.1;
# - the filters begin as $\mathcal N\big(0,\, 2/n\big)$ with $n$ = kernel size times filters (He and others 2015); the last layer as $\mathcal N(0, 1/64)$, $\gamma$ as 1, $\beta$ and the bias as 0.
#
# Rates, steps, momentum, decay, batch and pictures are those of sections 3.4 and 4.2 of the paper. For the weights it refers to He and others 2015, who allow channels in place of filters in $n$. The choice of filters, and $\mathcal N(0, 1/64)$ for the last layer, are ours. The paper does not say which form of momentum it means (ours is that of Caffe, see above), nor whether the decay falls on batch norm's parameters (in reproductions that come near to its errors it does).

# %% [markdown]
# ## The code

# %%
source(SGD.step, step_schedule, recompute_statistics)

# %%
paper = (32_000, 48_000)
assert [step_schedule(0.1, paper, t) for t in (0, 31_999, 32_000, 48_000)] == [
    0.1,
    0.1,
    0.1 / 10,
    0.1 / 100,
]
few = shapes10.dataset(train=2000, test=1000)
base = base_config(few, "paper")
assert (base.milestones, base.momentum, base.weight_decay, base.batch_size) == (
    paper,
    0.9,
    1e-4,
    128,
)
deep = with_warmup(base_config(few, "paper", net="resnet110"), facts("resnet110"))
assert (deep.warmup_lr, base.warmup_lr) == (0.01, None)
assert get_task("classification").warm_below == 0.8  # the error that ends a warm-up
w = resnet(20, rng=0).parameters()["stage2.block2.body.conv1.w"]
assert abs(w.std() / np.sqrt(2 / (3 * 3 * 32)) - 1) < 0.05

# %% [markdown]
# ## The experiment: what a picture goes through

# %% jupyter={"source_hidden": true}
chosen = np.array([np.flatnonzero(labels == c)[0] for c in (2, 4, 6, 7, 8, 9)])
x = normalise(full_size[chosen], per_pixel_mean(full_size[training]))
rows = {"as stored": full_size[chosen] / 255, "mean taken off": x + 0.5}
rows |= {f"step {k}": crop_and_flip(x, stream(0, "augment", k)) + 0.5 for k in (1, 2)}
figure = Figure(figsize=(7.2, 5.0))
grid = figure.subplots(len(rows), len(chosen))
for line, (name, pictures) in zip(grid, rows.items(), strict=True):
    for axes, picture in zip(line, pictures, strict=True):
        axes.imshow(np.clip(picture, 0, 1), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(name)
figure.suptitle("The same six pictures are new at every step")
show(
    figure,
    "Six pictures of shapes10 in four rows: as stored, with the per-pixel mean taken off, and twice shifted and mirrored at random, with a grey border.",
)

# %%
variants = 9 * 9 * 2
say(f"""
    There are 9 shifts by 9 shifts by 2 = {variants} versions of each picture. The border is 0, which is the mean colour once the mean is taken off: that is why the mean goes first.
    A test picture only has its mean taken off (the second row).
""")
assert np.array_equal(crop_and_flip(0 * x + 1, stream(0, "augment", 1), pad=0), 0 * x + 1)

# %% [markdown]
# ## The experiment: each piece removed
#
# What is each piece worth? We take away one at a time (crops and flips are *added*, since we began without), and train three times each, with other initial weights, order and crops. 80 steps are few: enough to see what matters for *starting*, not what matters at the end. This cell takes about half a minute.

# %%
STEPS = 80
pieces = {
    "as it is": {},
    "no mean subtraction": {"mean": 0 * MEAN},
    "crops and flips added": {"augment": True},
    "initial weights / 10": {"scale": 0.1},
    "no momentum": {"momentum": 0.0},
    "no weight decay": {"decay": 0.0},
}
jobs = [(name, seed) for name in pieces for seed in range(3)]
errors = {name: [] for name in pieces}
for k in counting(len(jobs), "runs"):
    name, seed = jobs[k]
    settings = dict(pieces[name])
    candidate, scale = resnet(8, rng=seed).use(default_backend()), settings.pop("scale", 1.0)
    for p in candidate.parameters().values():
        if p.ndim == 4:
            p *= scale
    train(candidate, STEPS, seed=seed, **settings)
    errors[name].append(100 * wrong(candidate, settings.get("mean", MEAN)).mean())

# %% jupyter={"source_hidden": true}
whole = np.array(errors["as it is"])
spread = np.ptp(whole)
cost = {name: np.mean(e) - whole.mean() for name, e in errors.items() if name != "as it is"}
clear = [name for name in cost if min(errors[name]) > whole.max()]
figure = Figure(figsize=(7.8, 3.9))
axes = figure.subplots()
axes.axvspan(whole.min(), whole.max(), color=RESIDUAL, alpha=0.12)
for y, (name, found) in enumerate(errors.items()):
    axes.plot(found, [y] * 3, "o", color=PLAIN if name in clear else RESIDUAL, ms=7, alpha=0.7)
    axes.plot([np.mean(found)] * 2, [y - 0.3, y + 0.3], color="0.2", lw=1.5)
axes.set_yticks(range(len(errors)), errors)
axes.invert_yaxis()
axes.set(
    xlabel=f"test error after {STEPS} steps (%), three seeds; line: mean; band: the recipe as it is"
)
heading = (
    "Seeds differ by more than most pieces are worth"
    if len(clear) <= 2
    else "Most pieces cost more than seeds differ"
)
axes.set_title(heading + f" in {STEPS} steps")
listed = "; ".join(f"{name} {np.mean(e):.0f} %" for name, e in errors.items())
show(
    figure,
    f"Test error of three seeds for the recipe as it is and with one piece changed each. Means: {listed}.",
)

# %%
better = [name for name in cost if max(errors[name]) < whole.min()]
worse_named, better_named = (
    ", ".join(f"*{n}* ({cost[n]:+.0f} points)" for n in f) or "none" for f in (clear, better)
)
say(f"""
    The recipe as it is gives {", ".join(f"{e:.0f}" for e in whole)} % with three seeds: {spread:.0f} points between the best and the worst.
    Worse than that with every seed: {worse_named}. Better with every seed: {better_named}; so what is left out there does not pay in {STEPS} steps. This experiment cannot tell whether the others matter.
    With one seed we might have found any of them important. Crops and flips are for the *end* of a training, where the training error is near 0. At the beginning, new versions of every picture make the task harder: crops and flips change the error by {cost["crops and flips added"]:+.0f} points here. Eighty steps cannot show what they are good for.
    Weight decay is another matter. In front of a batch norm the length of the weights has no effect on the function (lesson 5b), so decay does not make the function simpler: it keeps the weights short, and short weights turn by larger angles. It sets the *effective* learning rate (van Laarhoven 2017, Zhang and others 2019). It can do so only slowly: {STEPS} steps at 0.1 shorten weights by about {1 - (1 - 0.1 * 1e-4 / (1 - 0.9)) ** STEPS:.1%}.
""")
assert len(errors) == len(pieces)

# %% [markdown]
# ## The experiment: the learning rate falls
#
# The ResNet-8 of the surprise goes on for 60 steps more: once at 0.1, once at a tenth of that, as the paper does it after 32,000 steps.

# %%
rates, MORE = (0.1, 0.01), 60
twins = {lr: copy.deepcopy(net) for lr in rates}
moments = []


def look(step):
    """Every third step: which test pictures are wrong."""
    if step % 3 == 0:
        moments.append(wrong(twins[0.1]))


onward = {
    lr: train(twin, MORE, lr=lr, first=200, watch=look if lr == 0.1 else None)
    for lr, twin in twins.items()
}
before = 100 * wrong(net).mean()
ends = {lr: 100 * wrong(twin).mean() for lr, twin in twins.items()}

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 3.8))
axes = figure.subplots()
axes.plot(at, afresh, "o-", color=MUTED, ms=4, label="until then: test error")
for lr, colour, marker in zip(rates, (HUES[1], RESIDUAL), "sD", strict=True):
    mean_of = np.convolve(onward[lr], np.ones(10) / 10, "valid")
    axes.plot(
        200 + np.arange(10, MORE + 1),
        mean_of,
        color=colour,
        lw=1.6,
        label=f"rate {lr:g}: mean of 10 batches",
    )
    axes.plot(
        200 + MORE,
        ends[lr],
        marker,
        color=colour,
        ms=8,
        clip_on=False,
        label=f"rate {lr:g}: test error, {ends[lr]:.1f} %",
    )
gain, unsure = (
    ends[0.1] - ends[0.01],
    200 * np.sqrt(sum(e / 100 * (1 - e / 100) for e in ends.values()) / 1000),
)
heading = (
    f"{MORE} steps at a tenth of the rate gain {gain:.1f} points"
    if gain > unsure
    else "So early, a drop of the learning rate changes too little to be seen"
)
axes.axvline(200, color=MUTED, ls=":")
axes.set(xlabel="training step", ylabel="error (%)", ylim=(0, 100), xlim=(0, 204 + MORE))
axes.legend(loc="lower left", fontsize=9)
axes.set_title(heading)
show(
    figure,
    f"Test error by step up to step 200, then the errors of batches at rates 0.1 and 0.01. Test error at the end: {ends[0.1]:.1f} % and {ends[0.01]:.1f} %.",
)

# %%
say(f"""
    From {before:.1f} % at step 200 the test error came to {ends[0.1]:.1f} % at 0.1 and to {ends[0.01]:.1f} % at 0.01: a difference of {gain:+.1f} points, where sampling alone is good for ±{unsure:.1f}.
    A large rate gets far and cannot settle, a small one settles where it is. Whether less pays while a net still learns at 0.1, this does not decide; the paper waits for 32,000 steps.
""")
assert ends[0.01] < before + unsure

# %%
runs = recorded("cifar10")
nets, config, where = by_net(runs), runs[0].config, runs[0].data["name"]
if config["milestones"]:
    dropped = plots.errors([run for run in runs if run.family == "resnet"])
    dropped.suptitle(
        "The error falls at the first drop of the rate, little at the second", fontsize=12
    )
    show(
        dropped,
        f"Error of the recorded residual nets on {where} by iteration, with the drops of the learning rate.",
    )
    drop, evals = config["milestones"][0], nets["resnet20"][0].evals
    earlier, held = [e for e in evals if e["iteration"] <= drop][-2:]
    fell = next(e for e in evals if e["iteration"] > drop)
    say(
        f"In the record on {where}, ResNet-20's training error goes from {held['train_error']:.1%} at step {held['iteration']:,} to {fell['train_error']:.1%} at step {fell['iteration']:,}, the measurements before and after the first drop at step {drop:,} (in the {held['iteration'] - earlier['iteration']:,} steps before, without a drop, it came from {earlier['train_error']:.1%})."
    )
else:
    say(f"The record on {where} has {config['iterations']:,} steps and no drop.")

# %% [markdown]
# In full training the first drop is the most visible event of the curve: in the record of [a-martyn/resnet](https://github.com/a-martyn/resnet) ResNet-20's training error goes from 9.4 % in epoch 80 to 2.3 % in epoch 90.

# %% [markdown]
# ## The experiment: too large to start with
#
# With 110 layers the paper found 0.1 "slightly too large to start converging", and began with 0.01 until the training error was below 80 %. With 20 to 56 layers it had no such *warm-up*. We recorded ResNet-56 in both ways: the same initial weights, the same pictures in the same order, 2,000 steps. Before you look: what would you expect of a first step that is too large?

# %%
cold, warm = (
    read_run(RECORDS / name / "resnet56-seed0") for name in ("cold-start-cifar10", "lesson-cifar10")
)
assert {k for k in cold.config if cold.config[k] != warm.config[k]} == {"warmup_lr"}
END = 700  # steps shown


def running_mean(run):
    """Steps and mean error over the last ten recorded lines of a run, in percent."""
    lines = [line for line in run.train if line["iteration"] <= END]
    found = np.convolve([100 * line["error"] for line in lines], np.ones(10) / 10, "valid")
    return [line["iteration"] for line in lines][9:], found


warmed = next(line["iteration"] for line in warm.train if line["lr"] > warm.config["warmup_lr"])
cold_end, warm_end = (100 * run.evals[-1]["train_error"] for run in (cold, warm))
chance = next(
    line["iteration"]
    for line, e in zip(cold.train[9:], running_mean(cold)[1], strict=False)
    if e < 85
)

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 3.8))
axes = figure.subplots()
starts = "0.1 at once", "0.01 until the error is below 80 %, then 0.1"
for run, colour, name, error in zip(
    (cold, warm), (HUES[1], RESIDUAL), starts, (cold_end, warm_end), strict=True
):
    axes.plot(
        *running_mean(run),
        color=colour,
        lw=1.8,
        label=f"{name}; after {run.config['iterations']:,} steps {error:.1f} %",
    )
axes.axhline(90, color=MUTED, lw=0.8)
axes.axvline(warmed, color=MUTED, ls=":")
axes.text(warmed + 5, 95, f"warm-up to step {warmed}", color="0.35", fontsize=9)
axes.set(
    xlabel="training step", ylabel="error of training batches (%)", ylim=(0, 100), xlim=(0, END)
)
axes.legend(loc="lower right")
axes.set_title(f"A step that is too large, once: ResNet-56 guesses for {chance} steps")
show(
    figure,
    f"Training error of ResNet-56 by step, from two recorded runs. Begun at 0.1 it stays near 90 % for {chance} steps, with a warm-up it falls from step {warmed} on.",
)

# %%
some = normalise(full_size[test][:128], per_pixel_mean(full_size[training]))
first = {
    name: by_name(name, rng=0).forward(some, train=True).std()
    for name in ("plain56", "resnet20", "resnet56")
}
losses = {line["iteration"]: line["loss"] for line in cold.train}
worst_step, every = (
    max(losses, key=losses.get),
    min(losses),
)  # a line has the mean since the one before
thrown = max(e for step, e in zip(*running_mean(warm), strict=True) if warmed < step < warmed + 100)
say(f"""
    A guess costs a loss of log 10 = {np.log(10):.1f}. The logits of an untrained ResNet-56 have deviation {first["resnet56"]:.1f}, those of ResNet-20 {first["resnet20"]:.1f}, of plain-56 {first["plain56"]:.1f}: each of its 27 blocks *adds* to what came before. So it is sure of itself and wrong, with a loss of {losses[every]:.0f} on average of steps 1 to {every}, and its first gradients are large. At 0.1 the loss rises to {losses[worst_step]:.0f} in steps {worst_step - every + 1} to {worst_step}; what is left is a net whose error is above 85 % for {chance} steps, as good as a guess.
    At 0.01 it takes {warmed} steps until the running error is below 80 %. The first steps at 0.1 throw it back too, to {thrown:.0f} %, but it has learned something that survives them: the error falls again at once. After all steps the two training errors are {cold_end:.1f} and {warm_end:.1f} %. Nothing but those first {warmed} steps was done otherwise.
""")
assert warmed < 150
assert chance > 300
assert cold_end > warm_end + 10
assert first["resnet56"] > first["resnet20"] > first["plain56"]

# %%
plain_end = (
    100 * read_run(RECORDS / "cold-start-cifar10" / "plain56-seed0").evals[-1]["train_error"]
)
say(f"""
    The paper notes that at 0.1 ResNet-110 gets going too, after several epochs, and reaches a similar accuracy (footnote 5). A short run does not have that time. When the experiment of lesson 5a was first recorded at 2,000 steps, without a warm-up, ResNet-56 ended {plain_end - cold_end:.1f} points below plain-56, where {PRESETS["lesson"].margin} had been claimed beforehand. So that claim was *refuted*, as [the page of the records](runs/README.md) tells. Since then this size begins with a warm-up, for all four nets alike, and the claim is the same.
""")
assert plain_end - cold_end < PRESETS["lesson"].margin

# %% [markdown]
# ## The experiment: what a run costs
#
# The recipe counts *iterations*, programs often count epochs, and reviews mix them up.

# %%
iterations, batch = 64_000, base.batch_size
epochs = {n: iterations * batch / n for n in (50_000, 45_000)}


def pace(run):
    """Median of the seconds a step took, since now and then a run was held up."""
    seconds, steps = ([line[key] for line in run.train] for key in ("seconds", "iteration"))
    return np.median(np.diff(seconds) / np.diff(steps))


paces = {name: np.median([pace(run) for run in group]) for name, group in nets.items()}
machine = {name: group[0].provenance["machine"] for name, group in nets.items()}
table(
    [
        "net",
        "million multiplications per picture, forward",
        f"seconds for {batch}, recorded",
        "on",
        "hours for 64,000 steps",
    ],
    [
        [
            name,
            f"{macs(by_name(name)) / 1e6:.1f}",
            f"{s:.2f}",
            f"{machine[name]['processor']}, {machine[name]['cores']} cores",
            f"{s * iterations / 3600:.0f}",
        ]
        for name, s in paces.items()
    ],
)
say(f"""
    {iterations:,} steps of {batch} are {iterations * batch:,} pictures: {epochs[50_000]:.1f} passes over all 50,000 training pictures, or {epochs[45_000]:.0f} over the 45,000 that are left when 5,000 are kept for validation.
    The seconds are those of the recorded runs, on machines shared with other work, and not all on the same machine: compare rows with the same processor only. Measure yours: `minires bench`.
""")
assert round(epochs[50_000], 1) == 163.8
assert round(epochs[45_000]) == 182

# %% [markdown]
# A row of table 6 takes hours on a small machine, or a whole day. Set `RERUN` to `True` to begin one. You can stop it at any time: run the same cell again to resume.

# %%
RERUN = False
if RERUN:
    data = load()  # CIFAR-10 if it is here, otherwise shapes10
    live(
        ["resnet20"],
        base_config(data, "paper", backend=default_backend()),
        "../runs/lesson-7",
        data,
    )

# %% [markdown]
# ## The experiment: rows of Table 6
#
# The paper's rows, five published reproductions, and what our record says. Each number is a test error in percent on CIFAR-10. The sources state their protocols; four differences are noted.

# %%
depths = (20, 32, 44, 56, 110)
published = {
    "the paper, table 6": (8.75, 7.51, 7.17, 6.97, 6.43),
    "akamaster/pytorch_resnet_cifar10 (best epoch)": (8.27, 7.37, 6.90, 6.61, 6.32),
    "gcr/torch-residual-networks (Nesterov)": (8.29, 7.63, 7.14, 6.94, 6.73),
    "a-martyn/resnet (last epoch)": (8.04, 7.79, 7.51, 7.46, None),
    "nabla0001/resnet (mean of five runs)": (8.51, None, None, 7.40, 7.14),
    "junyuseu/ResNet-on-Cifar10": (8.06, 7.30, 6.99, 6.81, 6.44),
    "gcr/torch-residual-networks, a second run": (None, None, None, None, 6.97),
}
deviation = {20: 0.22, 56: 0.27, 110: 0.20}  # nabla0001/resnet, of five runs
ours = {
    int(name.removeprefix("resnet")): final(group, "test")
    for name, group in nets.items()
    if name.startswith("resnet")
}
table(
    ["test error, %", *(f"ResNet-{d}" for d in depths)],
    [[name, *("" if e is None else f"{e:.2f}" for e in row)] for name, row in published.items()]
    + [
        [
            f"this record, {config['iterations']:,} of 64,000 steps",
            *(f"{ours[d].mean():.1f}" if d in ours else "" for d in depths),
        ]
    ],
)

# %% jupyter={"source_hidden": true}
reached = {
    d: [row[k] for row in list(published.values())[1:] if row[k] is not None]
    for k, d in enumerate(depths)
}
figure = Figure(figsize=(7.8, 4.6))
axes = figure.subplots()
axes.plot(
    range(5),
    published["the paper, table 6"],
    "o-",
    color=RESIDUAL,
    ms=8,
    lw=2,
    label="the paper, table 6",
)
for (name, row), marker, colour in zip(
    list(published.items())[1:], "s^Dvpx", [*HUES[1:], HUES[2]], strict=True
):
    places = [k for k, e in enumerate(row) if e is not None]
    values = [row[k] for k in places]
    bars = [deviation[depths[k]] for k in places] if "five runs" in name else None
    axes.errorbar(
        np.array(places) + 0.06, values, bars, fmt=marker, color=colour, ms=6, capsize=3, label=name
    )
axes.errorbar(
    3.9,
    6.61,
    0.16,
    fmt="o",
    mfc="white",
    color=RESIDUAL,
    capsize=3,
    label="the paper, mean of five (110 layers)",
)
axes.set_xticks(range(5), depths)
axes.set(xlabel="depth (weighted layers)", ylabel="test error (%)", ylim=(5.8, 9.0))
axes.legend(fontsize=8)
width = max(max(v) - min(v) for v in reached.values())
axes.set_title(f"Reproductions of one row differ by up to {width:.2f} points")
show(
    figure,
    f"Test error against depth: the paper and five reproductions, which differ among themselves by up to {width:.2f} points.",
)

# %%
step_44_56 = published["the paper, table 6"][2] - published["the paper, table 6"][3]
lowest = min(config["iterations"], 64_000)
say(f"""
    From 44 to 56 layers the paper gains {step_44_56:.2f} points. One standard deviation of five ResNet-56 runs of the same code is {deviation[56]:.2f}. So that one step of the table, by itself, says nothing; the trend over all depths does.
    Our record stops at {100 * lowest / 64_000:.3g} % of the way. Its errors ({", ".join(f"ResNet-{d} {e.mean():.1f} %" for d, e in ours.items())}, {where}) are no reproduction of these rows, and are not meant as one.
""")
assert step_44_56 < deviation[56]

# %% [markdown]
# ## The experiment: layer responses, figure 7
#
# The paper's figure 7 shows how strong each layer answers: the standard deviation of batch norm's output, before ReLU or addition, in trained nets. It finds that residual nets have smaller responses than plain ones, and deeper residual nets smaller ones. At the start this measures nothing: batch norm gives every layer deviation 1. What is measured is what training made of $\gamma$ and $\beta$.

# %%
responses = {
    name: np.array(
        [v for k, v in nets[name][0].layers[-1]["response_std"].items() if ".shortcut" not in k]
    )
    for name in FOUR
}
initial = by_name("plain56").parameters()
level = {name: r.mean() for name, r in responses.items()}

# %% jupyter={"source_hidden": true}
figure = Figure(figsize=(7.8, 4.0))
panels = figure.subplots(1, 2, sharey=True)
looks = {
    "plain20": (PLAIN, "--"),
    "plain56": (PLAIN, "-"),
    "resnet20": (RESIDUAL, "--"),
    "resnet56": (RESIDUAL, "-"),
}
for name, (colour, style) in looks.items():
    for axes, y in zip(panels, (responses[name], np.sort(responses[name])[::-1]), strict=True):
        axes.plot(range(1, len(y) + 1), y, style, color=colour, lw=1.6, label=name)
panels[0].set(xlabel="layer, from the input", ylabel="deviation of the response")
panels[1].set(xlabel="layer, largest first")
panels[1].legend()
summary = ", ".join(f"{name} {value:.2f}" for name, value in level.items())
figure.suptitle(f"Mean response, step {config['iterations']:,}: {summary}", x=0.01, ha="left")
show(
    figure,
    f"Standard deviation of each layer's response, in order and sorted, for four nets. Means: {summary}.",
)

# %%
smaller = {d: level[f"resnet{d}"] < level[f"plain{d}"] - 0.02 for d in (20, 56)}
verdict = {
    True: "smaller in the residual net",
    False: "not smaller in the residual net (by 0.02 or more)",
}
say(f"""
    Mean responses at 20 layers: {verdict[smaller[20]]}; at 56 layers: {verdict[smaller[56]]}.
    Deeper residual net: {level["resnet56"]:.2f} against {level["resnet20"]:.2f}. The paper's figure is of fully trained nets; {config["iterations"]:,} steps move $\\gamma$ and $\\beta$ {"little" if max(abs(level["resnet20"] - 1), abs(level["resnet56"] - 1)) < 0.05 else "visibly"} in the residual nets.
""")
assert all(
    (p == key.endswith("gamma")).all() for key, p in initial.items() if ".bn" in key
)  # gamma 1, beta 0

# %% [markdown]
# ## The experiment: the best epoch
#
# Many tables give the best test error over all epochs. In the last 60 steps at 0.1 we measured the test error twenty times. Split the 1,000 test pictures into two halves at random: choose the best moment by one half, as such tables do, and look at the other half, which had no say in it. Then do the same with a thousand other splits.

# %%
rng, found = np.random.default_rng(7), []
for _ in range(1000):
    order = rng.permutation(1000)
    chose, other = (
        100 * np.array(moments)[:, part].mean(axis=1) for part in (order[:500], order[500:])
    )
    found.append((chose.min(), other[chose.argmin()], other[-1]))
chosen_error, honest_error, last_error = np.mean(found, axis=0)
table(
    ["reported", "test error, %"],
    [
        [f"last of {len(moments)} moments", f"{last_error:.1f}"],
        ["best moment, on the pictures that chose it", f"{chosen_error:.1f}"],
        ["the same moment, on the other half", f"{honest_error:.1f}"],
    ],
)
kept = last_error - honest_error
say(f"""
    The best moment looks {last_error - chosen_error:.1f} points better than the last one. On pictures that did not choose it, it is {honest_error - chosen_error:.1f} points worse than it looked, and {f"{kept:.1f} points of the gain are left; the rest" if kept >= 0.05 else "nothing of the gain is left: it"} was luck.
    In a-martyn/resnet, at the end of a full training, the best epoch of ResNet-20 has 8.00 % and the last one 8.04 %, of ResNet-56 7.33 and 7.46 %: small, and of the size of the differences that such tables are read for.
""")
assert chosen_error < honest_error

# %% [markdown]
# ## The experiment: what it gets wrong
#
# Numbers hide pictures. The ten test pictures of which the small net (that of rate 0.01) was surest and wrong:

# %% jupyter={"source_hidden": true}
last = twins[0.01]
z = logits(last)
p = np.exp(z - z.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)
said, is_ = p.argmax(axis=1), labels[test]
surest = np.argsort(np.where(said != is_, -p.max(axis=1), 0))[:10]
figure = Figure(figsize=(7.0, 3.9))
for axes, i in zip(figure.subplots(2, 5).flat, surest, strict=True):
    axes.imshow(full_size[test][i], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{shapes10.CLASSES[is_[i]]}\nsays {shapes10.CLASSES[said[i]]}\n{p[i].max():.0%} sure",
        fontsize=9,
    )
figure.suptitle(f"{(said != is_).sum()} of 1,000 are wrong; these it was surest of")
pairs = np.zeros((10, 10), int)
np.add.at(pairs, (is_[said != is_], said[said != is_]), 1)
a, b = np.unravel_index(pairs.argmax(), pairs.shape)
show(
    figure,
    f"Ten test pictures with their class and what the net says instead. Most frequent confusion: {shapes10.CLASSES[a]} taken for {shapes10.CLASSES[b]}.",
)

# %%
say(f"""
    Most often a {shapes10.CLASSES[a]} is taken for a {shapes10.CLASSES[b]}: {pairs[a, b]} times. You see the pictures at 32x32; the net got every second pixel of every second row.
""")
assert np.array_equal(said != is_, wrong(last))

# %% [markdown]
# ## Claims put to the test

# %%
claims(
    [
        [
            "Plain-56 has 8.75 % (table 6)",
            "table 6 has no plain rows; 8.75 % stands beside ResNet-20",
            "**no**; plain-56 reproduced: 12.95 ± 0.22 %",
        ],
        [
            "ResNet-110 reaches 6.43 %",
            "mean of the paper's five runs: 6.61 ± 0.16 %",
            "the **best of five**",
        ],
        [
            "One seed is enough",
            f"here {spread:.0f} points between three seeds; ±{deviation[56]:.2f} for ResNet-56, more than 44 to 56 layers gain",
            "**no**, not for small differences",
        ],
        [
            "The best epoch is the result",
            f"best {chosen_error:.1f} %, on other pictures {honest_error:.1f} %",
            "**no**, it has seen the test",
        ],
        [
            "The ImageNet nets were trained for 60·10⁴ epochs",
            f"600,000 iterations of 256 are {600_000 * 256 / 1.28e6:.0f} epochs of 1.28 million",
            "**iterations**, not epochs",
        ],
        [
            "1202 layers are worse because they overfit",
            'paper: 7.93 %, and says so with a "we argue"; akamaster: 6.18 %; longrootchen: did not converge',
            "**open**: single runs",
        ],
        [
            "Evaluation mode is one number",
            f"up to {difference.max():.0f} points between two ways to get the statistics",
            "say **which statistics**",
        ],
    ]
)

# %% [markdown]
# The reproductions are on GitHub under the names in the table above; their results, and those for 1202 layers, are as their authors state them. The paper's own figures are from its table 6 and section 4.2.

# %% [markdown]
# ## What this does not show
#
# - **That each piece is worth what the figure says.** Eighty steps of a ResNet-8 on half-size shapes show what matters for starting. Nobody has a figure for all pieces at full length here.
# - **A reproduction.** Our record is a short run, on a copy of CIFAR-10 whose pictures went through JPEG. Its test errors are far from table 6 because it stops early, and because of the copy.
# - **That the reproductions are equal in anything but the name.** They differ in preparation, in momentum, in which epoch they report, and some train on 45,000 pictures, some on 50,000.
# - **That the paper's recipe is a good one today.** Others reach 94 % in seconds on a graphics processor, with other recipes (Jordan 2024, airbench).

# %% [markdown]
# ## Exercises
#
# **Now.** Call `train` with `lr=1.0` and with `lr=0.001`, 60 steps each. Where is the error? How far is 0.1 from the edge?
#
# **To think about.** Initial weights ten times smaller change nothing in the forward pass of a convolution with batch norm behind it. Why do they change training all the same? (Lesson 5b has the angle by which a step turns a filter.)
#
# **For the weekend.** Record three seeds of `minires train resnet20 --iterations 2000`, and draw them with `minires plot`. How large must a difference be before you would write a sentence about it?

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.4 and 4.2, table 6, figure 7, 2015.
# - He, Zhang, Ren, Sun: *Delving Deep into Rectifiers*, [arXiv 1502.01852](https://arxiv.org/abs/1502.01852), section 2.2, 2015. The initial weights.
# - Ioffe, Szegedy: *Batch Normalization*, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167), section 3.1, 2015. Which statistics, and why.
# - van Laarhoven: *L2 Regularization versus Batch and Weight Normalization*, [arXiv 1706.05350](https://arxiv.org/abs/1706.05350), 2017. Zhang, Wang, Xu, Grosse: *Three Mechanisms of Weight Decay Regularization*, [arXiv 1810.12281](https://arxiv.org/abs/1810.12281), 2019. What weight decay does in front of batch norm.
# - Jordan: *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, [arXiv 2404.00498](https://arxiv.org/abs/2404.00498), 2024.
# - Bouthillier and others: *Accounting for Variance in Machine Learning Benchmarks*, [arXiv 2103.03098](https://arxiv.org/abs/2103.03098), 2021. How many seeds.
# - [Lesson 8](08_the_machines_limit.ipynb): how fast all this can be.
