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
# # 7b. How sure is a row of Table 6?
#
# A table of results has one number a cell. Behind the number stand a seed, a moment of the training, and the pictures it was tested on; with others it would be another number. From 44 to 56 layers the paper's table improves by 0.20 points. Is that much?
#
# - **Time:** 60 minutes; the notebook runs for about half a minute.
# - **You need:** [lesson 7a](07a_recipe.ipynb) for the recipe, mean and standard deviation.
# - **Afterwards you can** say what a run costs before you start it, how much luck is in a result, and read a table as a sceptic.

# %% jupyter={"source_hidden": true}
import numpy as np
from draw_rows import best_moment, luck, responses, rows_of_table_6, seeds, spread, surest_mistakes
from recipe import FULL_SIZE, LABELS, TEST, logits, train, wrong
from style import FOUR, RECORDS, claims, counting, recorded, say, show, source, table

from minires import resnet
from minires.data import load, shapes10
from minires.lab import live
from minires.lab.presets import base_config
from minires.lab.recorded import by_net, final, find_runs, noise
from minires.nets.audit import macs
from minires.nets.registry import by_name
from minires.ops import default_backend, prepare

prepare(default_backend())  # compile what is needed, once

# %% [markdown]
# ## The surprise
#
# Many tables give the best test error over all epochs. How much is won by that? We train a ResNet-8 on half-size pictures of shapes10, and measure its error on 1,000 test pictures at twenty moments of its last 120 steps, at half the rate. Then we split these pictures into two halves at random: choose the best moment by one half, as such tables do, and look at the other half, which had no say in it. The same with a thousand other splits. Before you look: how much better is the best moment than the last one, and how much of that is left on the other half? This cell takes about ten seconds.

# %%
net, moments, at = resnet(8, rng=0).use(default_backend()), [], []
progress = iter(counting(20, "moments measured"))


def look(step):
    """Every sixth step: which test pictures are wrong."""
    if step % 6 == 0:
        moments.append(wrong(net))
        at.append(step)
        next(progress)


train(net, 240)
train(net, 120, lr=0.05, first=240, watch=look)
next(progress, None)
at, moments = np.array(at), np.array(moments)  # moments: (20, 1000)

# %%
rng, halves = np.random.default_rng(7), []
for _ in range(1000):
    order = rng.permutation(1000)
    chose, other = (100 * moments[:, half].mean(axis=1) for half in (order[:500], order[500:]))
    halves.append((other[-1], chose.min(), other[chose.argmin()]))
last_error, chosen_error, honest_error = np.mean(halves, axis=0)
reported = {
    "last\nmoment": last_error,
    "best, on\nthose that\nchose it": chosen_error,
    "best, on\nthe other\nhalf": honest_error,
}
show(
    best_moment(at, 100 * moments.mean(axis=1), reported),
    f"Left, test error at twenty moments. Right, three bars: {last_error:.2f} % at the last moment, {chosen_error:.2f} % at the best one, and {honest_error:.2f} % for the best one on pictures that did not choose it.",
)

# %% jupyter={"source_hidden": true}
kept = last_error - honest_error
say(f"""
    The best of {len(moments)} moments looks {last_error - chosen_error:.2f} points better than the last one. On pictures that did not choose it, the same network is **{honest_error - chosen_error:.2f} points** worse than it looked: that much is luck. {f"{kept:.2f} points of the gain are left" if kept > 0 else "Nothing of the gain is left"}.
    In the record of [a-martyn/resnet](https://github.com/a-martyn/resnet), at the end of a full training, the best epoch of ResNet-20 has 8.00 % and the last one 8.04 %, of ResNet-56 7.33 and 7.46 %: small, and of the size of the differences that such tables are read for.
""")
assert chosen_error < honest_error

# %% [markdown]
# ## By hand
#
# A training ends at 7 % or at 8 %, each with probability one half, whatever you do. You train twice and report the better one. There are four cases, equally likely:
#
# | first run | second run | reported |
# |---|---|---|
# | 7 | 7 | 7 |
# | 7 | 8 | 7 |
# | 8 | 7 | 7 |
# | 8 | 8 | 8 |
#
# The mean of a run is 7.5 %. The mean of what you report is (7 + 7 + 7 + 8) / 4 = 7.25 %. **A quarter of a point for nothing.** And somebody who compares *your* best of two with *their* single run sees a better method.

# %%
cases = [(first, second) for first in (7, 8) for second in (7, 8)]
assert np.mean(cases) == 7.5
assert np.mean([min(case) for case in cases]) == 7.25

# %% [markdown]
# ## The equation
#
# Three kinds of luck, each with its deviation. Let $p$ be the error as a fraction, $n$ the number of test pictures, $s$ the standard deviation of a result from seed to seed.
#
# - **The test pictures.** Each is right or wrong, so over sets of $n$ pictures the measured error has the deviation $\sqrt{p(1-p)/n}$.
# - **The seeds.** The mean of $a$ runs has the deviation $s/\sqrt a$. The difference of two networks, with means of $a$ and $b$ runs, has
#
# $$\sqrt{\frac{s_1^2}{a} + \frac{s_2^2}{b}}, \qquad\text{for single runs of equal } s\text{: } \sqrt2\, s.$$
#
# - **The choice.** The best of $k$ runs lies below their mean by $c_k\, s$ on average. For normally distributed results $c_2 = 1/\sqrt\pi \approx 0.56$, and $c_5 \approx 1.16$.
#
# A difference is worth a sentence if it is well above the deviation of a difference: twice, as a rule.

# %%
draws = np.random.default_rng(0).standard_normal((200_000, 10))
counts = np.arange(1, 11)
gain = np.array([-draws[:, :k].min(axis=1).mean() for k in counts])  # c_1 .. c_10
assert abs(gain[0]) < 0.01
assert abs(gain[1] - 1 / np.sqrt(np.pi)) < 0.01
sampling = 100 * np.sqrt(0.0875 * (1 - 0.0875) / 10_000)
table(
    ["luck", "of", "points"],
    [
        ["test pictures", "8.75 % on 10,000", f"{sampling:.2f}"],
        ["difference of two runs", "s = 0.27 (ResNet-56)", f"{np.sqrt(2) * 0.27:.2f}"],
        ["best of five", "s = 0.16 (ResNet-110)", f"{gain[4] * 0.16:.2f}"],
    ],
)

# %% [markdown]
# ## The code
#
# The library prints the sampling error with every claim. It counts each seed's own training pictures, and the test pictures once, since they are the same for all seeds:

# %%
source(noise, final)

# %%
runs = recorded("cifar10")
nets, config, where = by_net(runs), runs[0].config, runs[0].data["name"]
p = final(nets["resnet20"], "test").mean() / 100
images = nets["resnet20"][0].config["eval_images"]
assert np.isclose(noise((nets["resnet20"], "test")), 200 * np.sqrt(p * (1 - p) / images))

# %% [markdown]
# ## The experiment: the best of five
#
# The paper's table 6 gives ResNet-110 as "6.43 (6.61 ± 0.16)": the best, the mean and the deviation of five runs. Every other row of a ResNet is a single number. How far below the mean should the best of five be, if there is nothing but luck?

# %%
show(
    luck(counts, gain),
    "How far the best of k runs lies below their mean, in standard deviations: 0 for one run, 0.56 for two, 1.16 for five, 1.54 for ten. The paper's best of five lies on the curve.",
)
assert abs(6.61 - gain[4] * 0.16 - 6.43) < 0.02

# %% [markdown]
# ## The experiment: three seeds
#
# Our record has three seeds of four networks, with a short recipe, on a copy of CIFAR-10 that went through JPEG compression (lesson 12 says what that costs). Which differences would you dare to write a sentence about?

# %%
short = find_runs([RECORDS / "lesson-cifar10"])
finals = {net: final(by_net(short)[net], "test") for net in FOUR}
listed = "; ".join(
    f"{net}: {', '.join(f'{e:.1f}' for e in errors)}" for net, errors in finals.items()
)
show(
    seeds(finals),
    f"Test error of three seeds of four networks after {short[0].config['iterations']:,} steps. {listed}.",
)

# %% jupyter={"source_hidden": true}
pairs = (("plain56", "plain20"), ("plain56", "resnet56"), ("resnet20", "resnet56"))
lines = []
for one, other in pairs:
    difference = finals[one] - finals[other]
    unsure = np.sqrt(finals[one].var(ddof=1) / 3 + finals[other].var(ddof=1) / 3)
    lines.append(
        [
            f"{one} - {other}",
            ", ".join(f"{d:+.1f}" for d in difference),
            f"{difference.mean():+.1f} ± {unsure:.1f}",
            "yes" if abs(difference.mean()) > 2 * unsure else "no",
        ]
    )
table(
    ["difference, points", "seed 0, 1, 2", "of the means, ± deviation", "above twice that"],
    lines,
    others=":--",
)
say(f"""
    Three seeds give a rough deviation only. The test pictures are the same for all of them ({short[0].config["eval_images"]:,} of the 10,000), so a lucky choice of pictures would help all seeds alike: their sampling error, ± {noise((by_net(short)["resnet20"], "test"), times=1):.1f} points for ResNet-20, does not shrink with more seeds.
""")
assert len(finals) == 4

# %% [markdown]
# ## The experiment: rows of Table 6
#
# The paper's rows, five published reproductions, and what our record says. Each number is a test error in percent on CIFAR-10. The sources state their protocols; four differences are noted. (*Nesterov* is another form of momentum.)

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

# %%
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

# %%
show(
    rows_of_table_6(depths, published, deviation),
    f"Test error against depth: the paper and five reproductions, which differ among themselves by up to {spread(published):.2f} points.",
)

# %% jupyter={"source_hidden": true}
step_44_56 = published["the paper, table 6"][2] - published["the paper, table 6"][3]
lowest = min(config["iterations"], 64_000)
say(f"""
    From 44 to 56 layers the paper gains {step_44_56:.2f} points. Five ResNet-56 runs of the same code have a standard deviation of {deviation[56]:.2f}, so a difference of two single runs has one of about {np.sqrt(2) * deviation[56]:.2f}. That one step of the table, by itself, says nothing; the trend over all depths does.
    Our record stops at {100 * lowest / 64_000:.3g} % of the way. Its errors ({", ".join(f"ResNet-{d} {e.mean():.1f} %" for d, e in ours.items())}, {where}) are no reproduction of these rows, and are not meant as one.
""")
assert step_44_56 < np.sqrt(2) * deviation[56]

# %% [markdown]
# ## The experiment: what a run costs
#
# The recipe counts *iterations*, programs often count epochs, and reviews mix them up.

# %%
base = base_config(shapes10.dataset(train=2000, test=1000), "paper")
iterations, batch = 64_000, base.batch_size
epochs = {n: iterations * batch / n for n in (50_000, 45_000)}


def pace(run):
    """Median of the seconds a step took, since now and then a run was held up."""
    seconds, steps = ([line[key] for line in run.train] for key in ("seconds", "iteration"))
    return np.median(np.diff(seconds) / np.diff(steps))


paces = {name: np.median([pace(run) for run in group]) for name, group in nets.items()}
machine = {name: group[0].provenance["machine"] for name, group in nets.items()}

# %%
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

# %% jupyter={"source_hidden": true}
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
        "../runs/lesson-7b",
        data,
    )

# %% [markdown]
# ## The experiment: layer responses, figure 7
#
# The paper's figure 7 shows how strongly each layer responds: the standard deviation of batch norm's output, before ReLU or addition, in trained nets. It finds that residual nets have smaller responses than plain ones, and deeper residual nets smaller ones. At the start this measures nothing: batch norm gives every layer deviation 1. What is measured is what training made of $\gamma$ and $\beta$.

# %%
responded = {
    name: np.array(
        [v for k, v in nets[name][0].layers[-1]["response_std"].items() if ".shortcut" not in k]
    )
    for name in FOUR
}
initial = by_name("plain56").parameters()
level = {name: r.mean() for name, r in responded.items()}

# %%
summary = ", ".join(f"{name} {value:.2f}" for name, value in level.items())
show(
    responses(responded, f"Mean response, step {config['iterations']:,}: {summary}"),
    f"Standard deviation of each layer's response, in order and sorted, for four nets. Means: {summary}.",
)

# %% jupyter={"source_hidden": true}
smaller = {d: level[f"resnet{d}"] < level[f"plain{d}"] - 0.02 for d in (20, 56)}
early, late = (
    [responded[net][part].mean() for net in ("plain56", "resnet56")]
    for part in (slice(10), slice(10, None))
)
verdict = {
    True: "smaller in the residual net",
    False: "not smaller in the residual net (by 0.02 or more)",
}
say(f"""
    Mean responses at 20 layers: {verdict[smaller[20]]}; at 56 layers: {verdict[smaller[56]]}.
    At 56 layers the difference is made at the beginning: {early[0]:.1f} against {early[1]:.1f} in the first ten layers, {late[0]:.2f} against {late[1]:.2f} in the others (plain, residual; one seed). Why these layers differ is not answered here; they are those whose gradients explode at the start (lesson 5b).
    Deeper residual net: {level["resnet56"]:.2f} against {level["resnet20"]:.2f}. The paper's figure is of fully trained nets; {config["iterations"]:,} steps move $\\gamma$ and $\\beta$ {"little" if max(abs(level["resnet20"] - 1), abs(level["resnet56"] - 1)) < 0.05 else "visibly"} in the residual nets.
""")
assert all(
    (p == key.endswith("gamma")).all() for key, p in initial.items() if ".bn" in key
)  # gamma 1, beta 0

# %% [markdown]
# ## The experiment: what it gets wrong
#
# Numbers hide pictures. Here are the ten test pictures of which the small net of the surprise was surest and wrong. Would you count each of them as a mistake?

# %%
z = logits(net)
p = np.exp(z - z.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)
said, is_ = p.argmax(axis=1), LABELS[TEST]
surest = np.argsort(np.where(said != is_, -p.max(axis=1), 0))[:10]
words = [
    f"{shapes10.CLASSES[is_[i]]}\nsays {shapes10.CLASSES[said[i]]}\n{p[i].max():.0%} sure"
    for i in surest
]
confused = np.zeros((10, 10), int)
np.add.at(confused, (is_[said != is_], said[said != is_]), 1)
a, b = np.unravel_index(confused.argmax(), confused.shape)
title = f"{(said != is_).sum()} of 1,000 are wrong; these it was surest of"
show(
    surest_mistakes(FULL_SIZE[TEST][surest], words, title),
    f"Ten test pictures with their class and what the net says instead. Most frequent confusion: {shapes10.CLASSES[a]} taken for {shapes10.CLASSES[b]}.",
)

# %% jupyter={"source_hidden": true}
say(f"""
    Most often a {shapes10.CLASSES[a]} is taken for a {shapes10.CLASSES[b]}: {confused[a, b]} times. You see the pictures at 32x32; the net got every second pixel of every second row.
""")
assert np.array_equal(said != is_, wrong(net))

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Plain-56 has 8.75 % (table 6)",
            "table 6 has no plain rows; 8.75 % stands beside ResNet-20",
            "**no**; plain-56 reproduced: 12.95 ± 0.22 %",
        ],
        [
            "ResNet-110 reaches 6.43 %",
            f"mean of the paper's five runs: 6.61 ± 0.16 %; luck alone predicts a best of {6.61 - gain[4] * 0.16:.2f} %",
            "the **best of five**",
        ],
        [
            "One seed is enough",
            f"±{deviation[56]:.2f} for ResNet-56, more than 44 to 56 layers gain; here up to {max(np.ptp(e) for e in finals.values()):.1f} points between three seeds",
            "**no**, not for small differences",
        ],
        [
            "The best epoch is the result",
            f"best {chosen_error:.2f} %, on other pictures {honest_error:.2f} %",
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
    ]
)

# %% [markdown]
# The reproductions are on GitHub under the names in the table above; their results, and those for 1202 layers, are as their authors state them. The paper's own figures are from its table 6 and section 4.2.

# %% [markdown]
# ## What this does not show
#
# - **A reproduction.** Our record is a short run, on a copy of CIFAR-10 whose pictures went through JPEG. Its test errors are far from table 6 because it stops early, and because of the copy.
# - **That the reproductions are equal in anything but the name.** They differ in preparation, in momentum, in which epoch they report, and some train on 45,000 pictures, some on 50,000.
# - **That results are normally distributed.** The curve of the best of $k$ assumes it. With a few runs nobody can tell.
# - **That small differences are nothing.** They may be real. One run of each does not show it.

# %% [markdown]
# ## Exercises
#
# **Now.** Somebody trains ResNet-56 with ten seeds of deviation 0.27 and reports the best. How many points does the choice win on average? Read $c_{10}$ from the figure. Compare with the step from 44 to 56 layers.
#
# **To think about.** Two networks are tested on the *same* 10,000 pictures: 7.0 and 7.2 % errors. The deviation of each error is 0.26 points. Yet the difference may be surer than that. Which pictures decide about it? (Think of a picture that both get wrong.)
#
# **For the weekend.** Record three seeds of `minires train resnet20 --iterations 2000`, and draw them with `minires plot`. How large must a difference be before you would write a sentence about it?

# %% [markdown]
# ## Where to read on
#
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.2, table 6, figure 7, 2015.
# - Bouthillier and others: *Accounting for Variance in Machine Learning Benchmarks*, [arXiv 2103.03098](https://arxiv.org/abs/2103.03098), 2021. How many seeds.
# - Dietterich: *Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms*, Neural Computation 10(7), 1998. Two classifiers on the same pictures: McNemar's test.
# - [Lesson 8](08_the_machines_limit.ipynb): how fast all this can be.
