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
# # 7a. Which pieces of the recipe matter?
#
# "ResNet-20, 8.75 %" is one line of table 6 of the paper. Behind it stand a dozen decisions: how pictures are prepared, how weights begin, how steps are taken, when the learning rate falls, how the error is measured at the end. Section 4.2 of the paper spends two paragraphs on them. Which of them decide the error, and which could be left out?
#
# - **Time:** 75 minutes; the notebook runs for about one.
# - **You need:** [lesson 4](04_batch_norm.ipynb) for the statistics of batch norm, [lesson 5a](05a_degradation.ipynb) for the record.
# - **Afterwards you can** name each piece of the recipe, test what it is worth, and say how sure you are of the answer.

# %% jupyter={"source_hidden": true}
from itertools import pairwise

import numpy as np
from ablations import (
    NAMES,
    WHOLE,
    compare,
    compared,
    in_words,
    recorded_arms,
    sentence,
    so_far,
    sorted_by_evidence,
    verdict,
)
from draw_recipe import cold_and_warm, live, message, pieces, prepared, two_statistics
from recipe import FULL_SIZE, LABELS, TEST, TRAINING, train, wrong
from style import RECORDS, claims, counting, recorded, say, show, source, table

from minires import resnet
from minires.data import crop_and_flip, normalise, per_pixel_mean, shapes10, stream
from minires.lab import plots
from minires.lab.presets import PRESETS, base_config, with_warmup
from minires.lab.recorded import by_net, final
from minires.layers import recompute_statistics
from minires.nets.registry import by_name, facts
from minires.ops import default_backend, prepare
from minires.optim import SGD, step_schedule
from minires.runs.run import read_run
from minires.train.state import SMOOTHING
from minires.train.task import get_task

prepare(default_backend())  # compile what is needed, once

# %% [markdown]
# ## The surprise
#
# Textbooks have an opinion on each piece: momentum speeds up, weight decay prevents overfitting, He's initial weights make depth possible, crops and flips are worth more than layers. An *ablation* asks the network: take one piece away, leave everything else as it is, and train again. ResNet-20 was trained on CIFAR-10 for 2,000 steps with the whole recipe, and with one piece missing. Its errors are those of 2,000 training and 2,000 test pictures.
#
# **These pieces were taken away, one at a time:**
#
# - momentum; and momentum, with the learning rate multiplied by 10 instead ("By hand" below says why 10);
# - weight decay;
# - the crops and flips of the training pictures;
# - the subtraction of the mean from the pictures;
# - the two divisions of the learning rate by 10;
# - He's initial weights: a normal distribution of deviation 0.01 instead;
# - the recomputed statistics of batch norm, when the error is measured: moving averages instead.
#
# **Before you look, write down** which one costs the most, and which ones cost nothing. The pictures are those of our copy of CIFAR-10, which went through JPEG compression (lesson 12 says what that costs). Each point of the figure is one training, each line the mean; the bands reach from the best to the worst run of the whole recipe.

# %%
arms = recorded_arms()
found = compared(arms)  # recorded arms, the costliest first
listed = "; ".join(
    f"{NAMES[arm]} {final(arms[arm], 'test').mean():.1f} %" for arm in [WHOLE, *found]
)
show(
    pieces(arms),
    f"Training and test error of recorded runs, a row for each piece that is missing. {message(arms)}. Mean test errors: {listed}.",
)

# %% jupyter={"source_hidden": true}
whole = final(arms[WHOLE], "test")
earlier, now = (
    run.provenance["versions"]["minires"]
    for run in (read_run(RECORDS / "lesson-cifar10" / "resnet20-seed0"), arms[WHOLE][0])
)
for words, names in sorted_by_evidence(arms).items():
    changes = "; ".join(f"{NAMES[arm]} ({compare(arms, arm)[0]:+.1f} points)" for arm in names)
    say(f"**{words}:** {changes}.")
say(f"""
    The whole recipe has a test error of {", ".join(f"{error:.1f}" for error in whole)} % ({len(whole)} {"run" if len(whole) == 1 else "runs"}; lesson 7b has other runs of the same recipe, recorded with version {earlier} of the library instead of {now}). {so_far(arms)}
    How sure is a difference? If two groups of three runs do *not* differ, all runs of one still lie on one side of the other with a chance of 1 in 10. Among eight comparisons, expect nearly one such accident. Lesson 7b is about luck of this kind.
""")
assert all(run.config["iterations"] == 2000 for group in arms.values() for run in group)

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
# The first. Caffe, the program of the paper's authors, computes $v \leftarrow m v + \eta g$ and $w \leftarrow w - v$, which is the same as long as the rate $\eta$ stays. For a gradient that stays, then, each step is in the long run *ten times* as long as without momentum.

# %% [markdown]
# ## The equation
#
# $$v \leftarrow m\,v + (g + \lambda w), \qquad w \leftarrow w - \eta(t)\, v, \qquad \eta(t) = \begin{cases} 0.1 & t < 32{,}000\\ 0.01 & t < 48{,}000\\ 0.001 & t < 64{,}000\end{cases}$$
#
# - $g$ is the gradient of the loss over 128 pictures, each shifted by up to 4 pixels and mirrored every second time, with the per-pixel mean subtracted;
# - $m = 0.9$ the momentum (another thing than the $m$ of lesson 4's running statistics), $\lambda = 0.0001$ the weight decay, on *all* parameters, those of batch norm too;
# - $\eta(t)$ the learning rate at step $t$, divided by 10 twice; with 110 layers it is 0.01 until the training error is below 80 %, then 0.1;
# - the filters begin as $\mathcal N\big(0,\, 2/n\big)$ with $n$ = kernel size times filters (He and others 2015); the last layer as $\mathcal N(0, 1/64)$, $\gamma$ as 1, $\beta$ and the bias as 0.
#
# Rates, steps, momentum, decay, batch and pictures are those of sections 3.4 and 4.2 of the paper. For the weights it refers to He and others 2015, who allow channels in place of filters in $n$. The choice of filters, and $\mathcal N(0, 1/64)$ for the last layer, are ours. The paper does not say which form of momentum it means (ours is that of Caffe, see above), nor whether the decay falls on batch norm's parameters (in reproductions that come near to its errors it does).

# %% [markdown]
# ## The code

# %%
source(SGD.step, step_schedule, recompute_statistics)

# %% [markdown]
# `recompute_statistics` sets the share of each new batch: 1 for the first, 1/2 for the second, 1/3 for the third (for batches of equal size). With these shares a running mean ends as the plain mean over all batches.

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
assert base_config(few, "lesson").augment
deep = with_warmup(base_config(few, "paper", net="resnet110"), facts("resnet110"))
assert (deep.warmup_lr, base.warmup_lr) == (0.01, None)
assert get_task("classification").warm_below == 0.8  # the error that ends a warm-up
w = resnet(20, rng=0).parameters()["stage2.block2.body.conv1.w"]
assert abs(w.std() / np.sqrt(2 / (3 * 3 * 32)) - 1) < 0.05

# %% [markdown]
# ## The experiment: what a picture goes through

# %%
chosen = np.array([np.flatnonzero(LABELS == c)[0] for c in (2, 4, 6, 7, 8, 9)])
x = normalise(FULL_SIZE[chosen], per_pixel_mean(FULL_SIZE[TRAINING]))
rows = {"as stored": FULL_SIZE[chosen] / 255, "mean subtracted": x + 0.5}
rows |= {f"step {k}": crop_and_flip(x, stream(0, "augment", k)) + 0.5 for k in (1, 2)}
show(
    prepared(rows),
    "Six pictures of shapes10 in four rows: as stored, with the per-pixel mean subtracted, and twice shifted and mirrored at random, with a grey border.",
)

# %% jupyter={"source_hidden": true}
variants = 9 * 9 * 2
say(f"""
    There are 9 shifts by 9 shifts by 2 = {variants} versions of each picture. The border is 0, which is the mean colour once the mean is subtracted: that is why the mean goes first.
    A test picture only has the mean subtracted (the second row; 0 is drawn as grey). The same shadow is in all pictures of that row: it is the mean of all training pictures, which is different in the middle, where the shapes stand.
""")
assert np.array_equal(crop_and_flip(0 * x + 1, stream(0, "augment", 1), pad=0), 0 * x + 1)

# %% [markdown]
# ## The experiment: momentum, once more
#
# "By hand" says that in the long run momentum 0.9 multiplies the rate by 10. Is that all it does? Then a training without momentum at ten times the rate should do as well. The record has the answer for ResNet-20. Here is the same question for a small network, live: ResNet-8, half-size pictures of shapes10, batches of 64, 80 steps, three seeds each. Every piece of its recipe is an argument:

# %%
source(train)

# %% [markdown]
# Predict first: which of the three is the best after 80 steps, and does the order agree with the record? This cell takes about a quarter of a minute.

# %%
STEPS = 80
trials = {
    "momentum 0.9, rate 0.1": {},
    "no momentum, rate 0.1": {"momentum": 0.0},
    "no momentum, rate 1": {"momentum": 0.0, "lr": 1.0},
}
jobs = [(name, seed) for name in trials for seed in range(3)]
errors = {name: [] for name in trials}
for k in counting(len(jobs), "runs"):
    name, seed = jobs[k]
    candidate = resnet(8, rng=seed).use(default_backend())
    train(candidate, STEPS, seed=seed, **trials[name])
    errors[name].append(100 * wrong(candidate).mean())
listed = "; ".join(f"{name}: {np.mean(e):.0f} %" for name, e in errors.items())
show(
    live(errors, STEPS),
    f"Test error of ResNet-8 with three seeds, with momentum and without it at two rates. Means: {listed}.",
)

# %% jupyter={"source_hidden": true}
with_it, without, faster = (np.array(e) for e in errors.values())
in_record = [arms[arm] for arm in (WHOLE, "no-momentum", "no-momentum-lr1")]
same_order = None  # unknown until all three are recorded
if all(in_record):
    means = [final(group, "test").mean() for group in in_record]
    same_order = np.array_equal(
        np.argsort(means), np.argsort([np.mean(e) for e in errors.values()])
    )
say(f"""
    Mean test errors after {STEPS} steps: {listed}. The three seeds of the first row lie {np.ptp(with_it):.0f} points apart, so read no more into this figure than it can carry: {"taking momentum away costs more than seeds differ" if without.min() > with_it.max() else "even without momentum the seeds overlap"}; at ten times the rate the mean differs from that of the first row by {faster.mean() - with_it.mean():+.0f} points.
    {sentence(arms, "no-momentum")} {sentence(arms, "no-momentum-lr1")} {"" if same_order is None else "The order of the three means is the same there." if same_order else "The order of the three means is another one there, so it holds for one network and one length of training only."}
""")
assert len(errors) == len(trials)

# %% [markdown]
# ## The experiment: two pieces that seem clear
#
# **Weight decay.** In front of a batch norm the length of the weights has no effect on the function (lesson 5b), so decay does not make the function simpler. It keeps the weights short, and short weights turn by larger angles: it sets the *effective* learning rate (van Laarhoven 2017, Zhang and others 2019). It can do so only slowly. How slowly?
#
# **Crops and flips.** They are for the *end* of a training, where the error on the training pictures is near 0. At the beginning, new versions of every picture make the task harder. So a short training without them may have the lower *training* error.

# %% jupyter={"source_hidden": true}
steps = 2000
shorter = 1 - (1 - 0.1 * 1e-4 / (1 - 0.9)) ** (steps // 2)
say(f"""
    In the first {steps // 2:,} steps, at rate 0.1 and momentum 0.9, a weight shrinks to $(1 - 0.1\\cdot 0.0001\\cdot 10)^{{{steps // 2}}} = {1 - shorter:.2f}$ of its length, by about {shorter:.0%}; the rest of a short training is too slow to add to that. {sentence(arms, "no-weight-decay")}
""")
if arms["no-augment"]:
    on_training = compare(arms, "no-augment", "train")[0]
    say(f"{sentence(arms, 'no-augment')} Training error: {on_training:+.1f} points.")
assert 0 < shorter < 0.2

# %% [markdown]
# ## The experiment: the same weights, two errors
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
difference = abs(moving - afresh)
show(
    two_statistics(at, moving, afresh),
    f"Test error by training step, measured in two ways. The two differ by up to {difference.max():.0f} points, {np.median(difference):.1f} in the median.",
)

# %% jupyter={"source_hidden": true}
worst = difference.argmax()
say(f"""
    At step {at[worst]} the same network has an error of **{moving[worst]:.0f} %** or of **{afresh[worst]:.0f} %**. The median difference is {np.median(difference):.1f} points, the last one {difference[-1]:.1f}.
    A moving average remembers networks that do not exist any more; the larger the steps, the staler it is. So curves measured by moving averages should jump about while the rate is high, and calm down when it falls. {sentence(arms, "moving-average")} {"That arm was measured at the end, where the rate is low." if arms["moving-average"] else ""}
""")
assert difference.max() > 5
twins = {run.config["seed"]: run for run in arms[WHOLE]}
for run in arms["moving-average"]:  # trained alike, step by step; only measured differently
    lines = ([line["loss"] for line in r.train] for r in (run, twins.get(run.config["seed"], run)))
    assert np.array_equal(*lines)

# %% [markdown]
# Published curves jump too. In a reproduction at full size that evaluates by moving averages ([a-martyn/resnet](https://github.com/a-martyn/resnet)), the training error of plain-56 is 23.0 % in epoch 82, 41.6 % in epoch 83 and 10.9 % in epoch 84. That is no second case of one network with two errors: 391 steps lie between two epochs, and the rate falls right after epoch 83. Such jumps are common there while the rate is 0.1. Stale statistics are one candidate for them, and nothing in that record decides it; the two curves above do, for one small network. Before two curves are compared, one has to know how they were measured.

# %% [markdown]
# ## The experiment: the learning rate falls
#
# A large rate gets far and cannot settle, a small one settles where it is. The paper divides by 10 after 32,000 and 48,000 of 64,000 steps. In our longest record the drops are at the same shares of the run:

# %%
runs = recorded("cifar10")
nets, config, where = by_net(runs), runs[0].config, runs[0].data["name"]
drop, last_drop = config["milestones"]
assert (drop, last_drop) == (config["iterations"] // 2, config["iterations"] * 3 // 4)
dropped = plots.errors([run for run in runs if run.family == "resnet"])
dropped.suptitle("The error falls at the first drop of the rate, little at the second", fontsize=12)
show(
    dropped,
    f"Error of the recorded residual nets on {where} by iteration, with the drops of the learning rate.",
)

# %% jupyter={"source_hidden": true}
evals = nets["resnet20"][0].evals
earlier, held = [e for e in evals if e["iteration"] <= drop][-2:]
fell = next(e for e in evals if e["iteration"] > drop)
say(f"""
    In the record on {where}, ResNet-20's training error goes from {held["train_error"]:.1%} at step {held["iteration"]:,} to {fell["train_error"]:.1%} at step {fell["iteration"]:,}, the measurements before and after the first drop at step {drop:,} (in the {held["iteration"] - earlier["iteration"]:,} steps before, without a drop, it had been {earlier["train_error"]:.1%}).
    {sentence(arms, "no-drops")}
""")
assert fell["train_error"] < held["train_error"]

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


def running_error(run):
    """Steps, and the running error that ends a warm-up: r <- r + 0.02 (error of the batch - r)."""
    running, steps, found = 0.9, [], []  # it begins as that of a guess
    for before, line in pairwise([{"iteration": 0}, *run.train]):
        kept = (1 - SMOOTHING) ** (line["iteration"] - before["iteration"])  # a line is a mean
        running = kept * running + (1 - kept) * line["error"]
        steps.append(line["iteration"])
        found.append(100 * running)
    return steps[: steps.index(END)], found[: steps.index(END)]


warmed = next(line["iteration"] for line in warm.train if line["lr"] > warm.config["warmup_lr"])
cold_end, warm_end = (100 * run.evals[-1]["train_error"] for run in (cold, warm))
chance = next(step for step, e in zip(*running_error(cold), strict=True) if e < 85)
crossed = next(step for step, e in zip(*running_error(warm), strict=True) if e < 80)
assert abs(crossed - warmed) <= 2  # the curve crosses 80 % where the rate changed

# %%
starts = "0.1 at once", "0.01 until the error is below 80 %, then 0.1"
curves = {
    f"{name}; after {run.config['iterations']:,} steps {error:.1f} %": running_error(run)
    for run, name, error in zip((cold, warm), starts, (cold_end, warm_end), strict=True)
}
show(
    cold_and_warm(curves, warmed, chance),
    f"Training error of ResNet-56 by step, from two recorded runs. Begun at 0.1 it stays above 85 % for {chance} steps; with a warm-up it falls below 80 % by step {warmed}, rises at the larger rate, and falls again.",
)

# %% jupyter={"source_hidden": true}
some = normalise(FULL_SIZE[TEST][:128], per_pixel_mean(FULL_SIZE[TRAINING]))
first = {
    name: by_name(name, rng=0).forward(some, train=True).std()
    for name in ("plain56", "resnet20", "resnet56")
}
losses = {line["iteration"]: line["loss"] for line in cold.train}
worst_step, every = (
    max(losses, key=losses.get),
    min(losses),
)  # a line has the mean since the one before
thrown = max(
    e for step, e in zip(*running_error(warm), strict=True) if warmed < step < warmed + 100
)
say(f"""
    A guess costs a loss of log 10 = {np.log(10):.1f}. The logits of an untrained ResNet-56 have deviation {first["resnet56"]:.1f}, those of ResNet-20 {first["resnet20"]:.1f}, of plain-56 {first["plain56"]:.1f}: each of its 27 blocks *adds* to what came before. So it is sure of itself and wrong, and its first gradients are large. At 0.1 the loss is {losses[every]:.1f} on average of steps 1 to {every} (at 0.01: {warm.train[0]["loss"]:.1f}) and {losses[worst_step]:.0f} in steps {worst_step - every + 1} to {worst_step}; what is left is a net whose running error is above 85 % for {chance} steps, hardly better than a guess.
    At 0.01 it takes {warmed} steps until the running error is below 80 %. The first steps at 0.1 throw it back too, to {thrown:.0f} %, but it has learned something that survives them: soon the error falls again. After all steps the two training errors are {cold_end:.1f} and {warm_end:.1f} %. Only the first {warmed} steps were different. (One seed.)
""")
assert warmed < 150
assert chance > 300
assert cold_end > warm_end + 10
assert first["resnet56"] > first["resnet20"] > first["plain56"]

# %% jupyter={"source_hidden": true}
plain_end = (
    100 * read_run(RECORDS / "cold-start-cifar10" / "plain56-seed0").evals[-1]["train_error"]
)
say(f"""
    The paper notes that at 0.1 ResNet-110 gets going too, after several epochs, and reaches a similar accuracy (footnote 5). A short run does not have that time. When the experiment of lesson 5a was first recorded at 2,000 steps, without a warm-up, ResNet-56 ended {plain_end - cold_end:.1f} points below plain-56, where {PRESETS["lesson"].margin} had been claimed beforehand. So that claim was *refuted*, as [the page of the records](runs/README.md) tells. Since then this size begins with a warm-up, for all four nets alike, and the claim is the same.
""")
assert plain_end - cold_end < PRESETS["lesson"].margin

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
tested = {  # claim; verdict if an arm is worse than the whole recipe, like it, better
    "no-momentum-lr1": (
        "Momentum only multiplies the learning rate",
        "**no**: ten times the rate does not replace it",
        "**as far as these runs can tell**",
        "**no**: ten times the rate is better here",
    ),
    "no-weight-decay": (
        "Weight decay is needed against overfitting",
        "**it helps**; argument: in front of batch norm by a larger effective rate, not by a simpler function",
        "**not in 2,000 steps**; argument: in front of batch norm it sets the effective rate",
        "**not in 2,000 steps**: the error is lower without it",
    ),
    "no-augment": (
        "Crops and flips lower the test error",
        "**yes**, already in 2,000 steps",
        "**not shown** in 2,000 steps",
        "**not in 2,000 steps**: the error is lower without them",
    ),
    "normal-init": (
        "He's initial weights make such networks trainable",
        "**they help**; argument: batch norm removes their length, and the angle of the first steps is left",
        "**no**: it trains as well without; argument: batch norm removes their length",
        "**no**: the error is lower without them",
    ),
    "no-mean": (
        "The mean must be subtracted",
        "**yes**, it costs something not to",
        "**no**; argument: the first batch norm subtracts a mean too",
        "**no**: the error is lower without it",
    ),
    "no-drops": (
        "The rate must fall",
        "**yes**, in a short run too",
        "**not shown** by 2,000 steps",
        "**no**, not in 2,000 steps",
    ),
}
claims(
    [
        [claim, f"{NAMES[arm]}: {in_words(arms, arm)}", verdict(arms, arm, *verdicts)]
        for arm, (claim, *verdicts) in tested.items()
        if arms[arm]
    ]
    + [
        [
            "Evaluation mode is one number",
            f"up to {difference.max():.0f} points between two ways to get the statistics",
            "say **which statistics**",
        ],
        [
            "A warm-up is for very deep nets only",
            f"ResNet-56, 2,000 steps: training error {cold_end:.1f} % without, {warm_end:.1f} % with",
            "**no**, not in a short run",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - **That each piece is worth the same at full length.** 2,000 steps are a thirtieth of the paper's. Crops, flips and weight decay work late.
# - **How pieces work together.** We take one away at a time. Two that replace each other both look useless then.
# - **That the rate was right for every arm.** A missing piece may want another rate; only momentum got one. An ablation at one rate asks what the piece is worth *at that rate*.
# - **Anything about other networks.** One net, one data set, a copy of CIFAR-10 whose pictures went through JPEG.
# - **That the paper's recipe is a good one today.** Others reach 94 % in seconds on a graphics processor, with other recipes (Jordan 2024, airbench).

# %% [markdown]
# ## Exercises
#
# **Now.** Call `train` with `lr=1.0` and with `lr=0.001`, 60 steps each. Where is the error? How far is 0.1 from the edge?
#
# **To think about.** Initial weights ten times smaller change nothing in the forward pass of a convolution with batch norm behind it. Why do they change training all the same? (Lesson 5b has the angle by which a step turns a filter.)
#
# **For the weekend.** Take away a piece that is not in the figure, or change one: momentum 0.99, batches of 32, Nesterov. `minires train resnet20 --iterations 2000 --warmup-lr 0.01 --momentum 0.99` is such a run. Predict the error first, record three seeds, and add your arm to `ARMS` in `ablations.py`.

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.4 and 4.2, 2015.
# - He, Zhang, Ren, Sun: *Delving Deep into Rectifiers*, [arXiv 1502.01852](https://arxiv.org/abs/1502.01852), section 2.2, 2015. The initial weights.
# - Ioffe, Szegedy: *Batch Normalization*, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167), section 3.1, 2015. Which statistics, and why.
# - van Laarhoven: *L2 Regularization versus Batch and Weight Normalization*, [arXiv 1706.05350](https://arxiv.org/abs/1706.05350), 2017. Zhang, Wang, Xu, Grosse: *Three Mechanisms of Weight Decay Regularization*, [arXiv 1810.12281](https://arxiv.org/abs/1810.12281), 2019. What weight decay does in front of batch norm.
# - Jordan: *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, [arXiv 2404.00498](https://arxiv.org/abs/2404.00498), 2024.
# - [Lesson 7b](07b_reading_a_table.ipynb): how sure an error is.
