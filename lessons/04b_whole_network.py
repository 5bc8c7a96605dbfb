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
# # 4b. What are the layers of a whole network, and what does the loss send back?
#
# Lessons 1 to 4 looked at single layers. Here they become a network that can be trained: ResNet-20. What are its twenty layers, and what do they cost? What is the loss, and which gradient does it send into the last layer? How does one step change the weights? And when a network does not learn, what do you check first?
#
# - **Time:** 60 minutes; the notebook runs for less than a minute.
# - **You need:** [lesson 2](02_backprop_and_checks.ipynb) for gradients, lessons [1](01_convolution.ipynb) and [4](04_batch_norm.ipynb) for convolution and batch norm.
# - **Afterwards you can** draw the network from its name, derive the gradient of softmax cross-entropy, take a step of gradient descent by hand, and run three checks before you train anything for an hour.

# %% jupyter={"source_hidden": true}
import numpy as np
from draw_network import costs, network, one_step, overfitting, weighted
from style import claims, say, show, source, table

from minires import get_ops, plain, resnet
from minires.data import ArraySplit, normalise, per_pixel_mean, shapes10
from minires.ops import default_backend, prepare
from minires.optim import SGD
from minires.school.zoo import ZOO
from minires.train.step import evaluate, train_step

ops = get_ops("numpy")
prepare(default_backend())  # compile what is needed, once
rng = np.random.default_rng(4)
images, labels = shapes10.images(256, rng)
mean = per_pixel_mean(images)
x = normalise(images, mean)  # (256, 32, 32, 3)

# %% [markdown]
# ## The surprise
#
# Ten classes, and a network whose weights are random numbers. It knows nothing, so one expects it to guess: each class with probability 1/10. The loss of a guess is $-\log \frac1{10} = \log 10 \approx 2.3$. Here is what fresh networks begin with. (The *logits* are the ten numbers that the last layer computes for a picture, one for each class. A *residual* network, ResNet for short, adds the input of every two layers to their output; its *plain* twin does not. Both are described below.)
#
# The library computes with one of two *backends*: NumPy, which you have read, or compiled loops (lesson 8), which give the same numbers to rounding and are faster. `default_backend()` names the compiled one where it is installed, and `use` puts it into a network.

# %%
begin = {}
for make, depth in ((plain, 20), (plain, 56), (resnet, 8), (resnet, 20), (resnet, 56)):
    net = make(depth, rng=0).use(default_backend())
    logits = net.forward(x[:128], train=True)
    loss, _ = net.ops.softmax_cross_entropy(logits, labels[:128])
    begin[net.title] = float(loss), float(logits.std())
table(
    ["fresh network", "loss", "deviation of the logits"],
    [[name, f"{loss:.2f}", f"{std:.2f}"] for name, (loss, std) in begin.items()],
)
assert begin["resnet56"][0] > 1.5 * np.log(10)
assert begin["plain56"][0] < 1.5 * np.log(10)

# %% jupyter={"source_hidden": true}
say(f"""
    The plain networks begin near log 10 = {np.log(10):.2f}. ResNet-56 begins at **{begin["resnet56"][0]:.2f}**: it is worse than a guess.
    It does not know more than the others, and it is *sure of itself*. Every two layers add to the signal, so after 27 additions the logits are large, and a large wrong logit costs more than a cautious one. (How large also depends on the weights of the last layer, here random numbers of variance 1/64.)
""")

# %% [markdown]
# ## By hand
#
# Three classes, and a network that computed the logits $z = (0, \log 2, \log 5)$. *Softmax* makes probabilities of them: take $e^z = (1, 2, 5)$ and divide by the sum 8, which gives $p = (\frac18, \frac28, \frac58)$.
#
# The true class is the second one. *Cross-entropy* looks at its probability alone: the loss is $-\log\frac28 = \log 4 \approx 1.386$.
#
# And the gradient? Write the label as $y = (0, 1, 0)$. Then $dz = p - y = (\frac18, -\frac68, \frac58)$: **one subtraction**. Gradient descent goes against it: it raises the second logit, and lowers the third, wrong and sure, five times as much as the first.

# %%
z = np.log([[1.0, 2.0, 5.0]])
loss, dz = ops.softmax_cross_entropy(z, np.array([1]))
assert np.isclose(loss, np.log(4))
assert np.allclose(dz, [[1 / 8, -6 / 8, 5 / 8]])
assert np.isclose(dz.sum(), 0)
table(
    ["class", "logit z", "exp(z)", "p", "label y", "dz = p - y"],
    [
        [k + 1, f"{z[0, k]:.3f}", f"{np.exp(z[0, k]):g}", f"{p:g}", y, f"{p - y:+g}"]
        for k, (p, y) in enumerate(zip((1 / 8, 2 / 8, 5 / 8), (0, 1, 0), strict=True))
    ],
)

# %% [markdown]
# The three numbers of $dz$ add up to 0, for any logits: $p$ adds up to 1, and so does $y$. A constant that is added to all logits changes no probability.

# %% [markdown]
# ## The equation
#
# For one picture with logits $z_1, \dots, z_K$ and true class $t$,
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L = -\log p_t = \log\sum_j e^{z_j} - z_t .$$
#
# Derive the two terms one at a time. The derivative of $\log\sum_j e^{z_j}$ with respect to $z_k$ is $e^{z_k} / \sum_j e^{z_j} = p_k$. That of $-z_t$ is $-1$ if $k = t$, else 0. So
#
# $$\frac{\partial L}{\partial z_k} = p_k - y_k .$$
#
# - $y$ is the label as a vector: 1 at $t$, 0 elsewhere;
# - the loss of a *batch* of $N$ pictures is the mean of theirs, so each picture's gradient is divided by $N$;
# - if all $K$ logits are equal, then $p_k = 1/K$ and $L = \log K$.
#
# One **step** of stochastic gradient descent changes every parameter $w$ by its gradient $dw$:
#
# $$v \leftarrow m\,v + dw + \lambda w, \qquad w \leftarrow w - \eta\, v .$$
#
# - $\eta$ is the *learning rate*;
# - $v$, the *velocity*, starts at 0; $m$, the *momentum*, is the share of the previous velocity that stays (0.9 in the paper; it is not lesson 4's $\rho$, which PyTorch calls momentum too);
# - $\lambda$, the *weight decay* ($10^{-4}$), pulls every weight towards 0;
# - *stochastic*: the gradient is that of a batch, not of all pictures.
#
# For one small step from $v = 0$ without decay, $L(w - \eta\,dw) \approx L(w) - \eta\,\langle dw, dw\rangle$: the loss of the batch falls by about $\eta \lVert dw \rVert^2$.

# %% [markdown]
# ## The code
#
# The loss, one step of training, and the step of the optimiser, from the library:

# %%
source(ops.softmax_cross_entropy, train_step, SGD.step)

# %% [markdown]
# The loss subtracts the largest logit first. That changes no probability, and $e^z$ cannot overflow. `ops.softmax_cross_entropy` returns the gradient together with the loss, because both need the same exponentials.

# %%
logits, classes = rng.standard_normal((6, 10)), rng.integers(0, 10, 6)
loss, dlogits = ops.softmax_cross_entropy(logits, classes)
p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
assert np.isclose(loss, -np.log(p[np.arange(6), classes]).mean())
assert np.allclose(dlogits, (p - np.eye(10)[classes]) / 6)
assert np.allclose(dlogits.sum(axis=1), 0)

# %% [markdown]
# ## The experiment: counting to twenty
#
# A *weighted layer* is a convolution or the linear layer at the end; batch norm and ReLU are not counted. Two convolutions make a *block*. A residual block adds its input to what its two convolutions compute: that connection is the *shortcut*. Blocks of one picture size make a *stage*; the first block of the next stage takes every second pixel and doubles the channels. (Its shortcut takes every second pixel of the input, and fills the new channels with zeros: lesson 6.) At the end the mean of each channel (*global average pooling*) goes into the linear layer, which computes the logits.
#
# The name counts: one convolution, three stages of $n$ blocks with two convolutions each, one linear layer, $6n + 2$ in all. ResNet-20 has $n = 3$. A *plain* network, such as plain-20, is the same without the shortcuts.

# %%
net = resnet(20)
show(
    network(net),
    "ResNet-20 as twenty bars in a row, as tall as the picture is wide: one first convolution, three stages of six convolutions with 16, 32 and 64 channels "
    "and 32, 16 and 8 pixels a side, a linear layer; nine arcs are the shortcuts. Below, bars: stage 3 has three quarters of the parameters and a third of the multiply-adds.",
)

# %% jupyter={"source_hidden": true}
found = costs(net)
weights, work = np.sum(list(found.values()), axis=0)
assert len(weighted(net)) == 20 == 6 * 3 + 2
assert weights == sum(p.size for p in net.parameters().values())
say(f"""
    Where the picture has half the side, it has a quarter of the pixels, and twice the channels make four times the weights in a convolution: the work per layer stays the same (half in the first convolution of stages 2 and 3, whose input has half the channels), and the weights grow. So stage 3 has **{found["stage3"][0] / weights:.0%}** of the {weights:,} parameters and {found["stage3"][1] / work:.0%} of the work.
    The linear layer has {found["fc"][0]} parameters, {found["fc"][0] / weights:.1%} of all. (A *multiply-add* is one multiplication and one addition, for one picture, forward.)
    `minires info resnet20` prints every layer.
""")

# %% [markdown]
# ## The experiment: one step
#
# We take a ResNet-8 and one batch, compute the gradient once, and step with different learning rates, each time from the same weights. How far does the loss of *that* batch fall? To be quick, pictures have half their size from here on.

# %%
small = x[:, ::2, ::2]  # (256, 16, 16, 3)


def after_one_step(lr):
    """Loss of a batch after one step from the same start, and before it; squared gradient."""
    net = resnet(8, rng=1).use(default_backend())
    sgd = SGD(net.parameters(), momentum=0, weight_decay=0)
    before, _ = train_step(net, sgd, small[:64], labels[:64], lr)
    square = sum(float((g * g).sum()) for g in net.gradients().values())
    logits = net.forward(small[:64], train=True)
    return float(net.ops.softmax_cross_entropy(logits, labels[:64])[0]), before, square


rates = np.logspace(-3, 0.5, 12)
losses, (before, *_), (square, *_) = np.transpose([after_one_step(lr) for lr in rates])
predicted = before - rates * square
show(
    one_step(rates, losses, predicted, before),
    "Loss of a batch after one step, by learning rate, on a logarithmic axis: it follows the line that the gradient predicts for small rates, "
    "falls below the start by more and more, turns, and rises above the start for large rates.",
)

# %% jupyter={"source_hidden": true}
slope = (before - losses[0]) / (rates[0] * square)
best = rates[losses.argmin()]
say(f"""
    At rate {rates[0]:g} the loss falls by {slope:.0%} of what the gradient predicts. The largest fall is at {best:.2g}; at {rates[-1]:.2g} the loss is {losses[-1]:.1f}, where it was {before:.1f} before the step.
    The gradient is a promise about small steps only. That is why the learning rate is the first thing to try when training fails.
""")
assert 0.8 < slope < 1.2
assert losses.min() < before < losses[-1]

# %% [markdown]
# ## The experiment: three checks before you train
#
# Three checks of a new network take seconds. The first two are in the notes of Stanford's course CS231n; the third is from Zhang and others (2017).
#
# 1. **The loss at the start.** Set the linear layer's weights to 0: all logits are equal, and the loss must be $\log 10$.
# 2. **Twenty pictures.** A network with tens of thousands of weights must be able to memorise twenty pictures. If the loss does not go to 0, something is broken.
# 3. **Shuffled labels.** It must memorise those too. So a training loss of 0 does not say that a network has learned something general.

# %%
net = resnet(8, rng=0)
net.parameters()["fc.w"][...] = 0
first = net.ops.softmax_cross_entropy(net.forward(small[:128], train=True), labels[:128])[0]
assert np.isclose(first, np.log(10), rtol=1e-6)
assert sum(p.size for p in net.parameters().values()) > 10_000


def learn(classes, steps=60, **own):
    """Train a ResNet-8 on twenty pictures; return the network and the loss of each step."""
    net = resnet(8, rng=0).use("numpy", **own)
    sgd = SGD(net.parameters())
    return net, np.array([train_step(net, sgd, small[:20], classes, 0.02)[0] for _ in range(steps)])


shuffled = rng.permutation(labels[:20])
curves, nets = {}, {}
for name, classes in (("true labels", labels[:20]), ("shuffled labels", shuffled)):
    nets[name], curves[name] = learn(classes)


# %% [markdown]
# Do the checks find mistakes? We plant three: the sign of $p - y$ is wrong; the gradient is not divided by $N$; and the convolution does not flip its kernel in the backward pass (lesson 3).


# %%
def uphill(logits, labels):
    """The loss with the wrong sign of its gradient."""
    loss, dlogits = ops.softmax_cross_entropy(logits, labels)
    return loss, -dlogits


def not_divided(logits, labels):
    """The loss with the gradient of the sum over the batch."""
    loss, dlogits = ops.softmax_cross_entropy(logits, labels)
    return loss, dlogits * len(logits)


unflipped = next(bug for bug in ZOO if bug.name == "kernel-not-flipped")

# %%
planted = {
    "y - p instead of p - y": {"softmax_cross_entropy": uphill},
    "not divided by N": {"softmax_cross_entropy": not_divided},
    "kernel not flipped in dx": {
        unflipped.function: getattr(unflipped.plant(), unflipped.function)
    },
}
for name, own in planted.items():
    try:
        _, curves[name] = learn(labels[:20], **own)
    except FloatingPointError:  # the loss is not finite any more
        curves[name] = np.full(60, np.inf)
show(
    overfitting(curves, np.log(10)),
    "Loss on twenty pictures by step, logarithmic. With true and with shuffled labels it falls to nearly 0. With the wrong sign it grows; "
    "with the missing division and with the missing flip it falls too.",
)

# %% jupyter={"source_hidden": true}
unseen = ArraySplit(images[128:], labels[128:])
errors = {
    name: 100 * evaluate(net, unseen, lambda a, _: normalise(a, mean)[:, ::2, ::2])[1]
    for name, net in nets.items()
}
learned = {name: losses[-5:].mean() < 0.1 for name, losses in curves.items()}
table(
    ["twenty pictures", "loss at the start", "at the end", "memorised"],
    [
        [name, f"{losses[0]:.2f}", f"{losses[-5:].mean():.3g}", "yes" if learned[name] else "no"]
        for name, losses in curves.items()
    ],
)
say(f"""
    On new pictures the network that learned the shuffled labels has {errors["shuffled labels"]:.0f} % error, and the one with the true labels {errors["true labels"]:.0f} %: twenty pictures are too few to learn anything general from, so here the two do not differ. A training loss of 0 shows that the gradients lead *downhill*, and says nothing about learning.
    The check finds the wrong sign. It does not find the two other mistakes: a batch of twenty can be learned with a gradient that is twenty times too long, or with one that points only roughly downhill. **The three checks come before a gradient check, not in its place** (lesson 2).
""")
assert learned["true labels"]
assert learned["shuffled labels"]
assert not learned["y - p instead of p - y"]
assert errors["shuffled labels"] > 80

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "A network with random weights starts at a loss of log(number of classes)",
            f"plain-20 {begin['plain20'][0]:.2f}, ResNet-20 {begin['resnet20'][0]:.2f}, ResNet-56 {begin['resnet56'][0]:.2f}; log 10 = {np.log(10):.2f}",
            "**only if its logits are small**: set the last layer to 0 for the check",
        ],
        [
            "Most of the work is where most of the weights are",
            f"stage 3: {found['stage3'][0] / weights:.0%} of the parameters, {found['stage3'][1] / work:.0%} of the multiply-adds",
            "**no**",
        ],
        [
            "The training loss goes to 0, so the network has learned",
            f"shuffled labels: loss {curves['shuffled labels'][-5:].mean():.3f}, error on new pictures {errors['shuffled labels']:.0f} %",
            "**no**: it can memorise",
        ],
        [
            "It memorises twenty pictures, so the gradients are right",
            f"with the kernel not flipped the loss ends at {curves['kernel not flipped in dx'][-5:].mean():.2g}",
            "**no**: check the gradients too",
        ],
    ]
)

# %% [markdown]
# The notes of CS231n (*Neural Networks Part 3*, section *Before learning: sanity checks*) say of the first check: "make sure you're getting the loss you expect when you initialize with small parameters". The condition at the end of that sentence is often forgotten.

# %% [markdown]
# ## What this does not show
#
# - That a large loss at the start is harmful. Batch norm and a few steps bring it down; how fast, and what the first step does on the way, is the subject of lessons 5b and 7a.
# - Which learning rate is good for a whole training. The figure is about one step of one batch from one start.
# - How memorising and learning are related. Networks that can learn shuffled labels learn true ones well; why is an open question (Zhang and others 2017).

# %% [markdown]
# ## Exercises
#
# **Now.** Without running anything: how many weighted layers, parameters in stage 1, and shortcuts has ResNet-32? Then look: `network(resnet(32))`.
#
# **To think about.** A network is sure and wrong: $p_t = 10^{-6}$ for one picture of a batch of 128. How large can the gradient of one logit be at most? Compare with the squared distance $\lVert z - y\rVert^2$ as a loss.
#
# **For the weekend.** `minires exercise start softmax_cross_entropy`. Write it so that logits of 1,000 do not overflow. Then put it into a network, `resnet(8).use("numpy", softmax_cross_entropy=yours)`, and repeat the check with twenty pictures.

# %% [markdown]
# ## Where to read on
#
# - CS231n, [Neural Networks Part 3](https://cs231n.github.io/neural-networks-3/#sanitycheck), *Before learning: sanity checks*, Stanford, since 2015.
# - Karpathy: [A Recipe for Training Neural Networks](https://karpathy.github.io/2019/04/25/recipe/), 2019. Checks in the order in which one needs them.
# - Zhang, Bengio, Hardt, Recht, Vinyals: *Understanding Deep Learning Requires Rethinking Generalization*, [arXiv 1611.03530](https://arxiv.org/abs/1611.03530), 2017. Shuffled labels.
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.2, 2015. The network of this lesson.
# - [Lesson 5a](05a_degradation.ipynb): what happens when the plain network gets deeper.
