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
# # 4. Why does the gradient of one picture depend on its neighbours?
#
# Every layer so far treated each picture of a batch by itself. Batch normalisation does not: it shifts and scales each channel by the mean and the variance of the *whole batch*. So a picture changes what its neighbours become, and its gradient has to account for that. What does the sum of all these influences look like?
#
# - **Time:** 60 minutes.
# - **You need:** [lesson 2](02_backprop_and_checks.ipynb), mean and variance.
# - **Afterwards you can** derive the backward pass of batch normalisation along its three paths, say what it removes from a gradient, and explain what differs between training and evaluation.

# %%
import numpy as np
from draw_norm import by_depth, neighbours, running_means, three_paths
from style import claims, say, show, source, table

from minires import get_ops, gradcheck, resnet
from minires.data import shapes10
from minires.layers import BatchNorm, Conv2d, ReLU, recompute_statistics

ops = get_ops("numpy")
rng = np.random.default_rng(4)

# %% [markdown]
# ## The surprise
#
# Eight pictures, one channel. Only *one* picture has any influence on the loss: `dy` is zero for the others.

# %%
x, gamma, beta = rng.standard_normal((8, 1)), np.array([1.5]), np.array([0.3])
dy = np.zeros((8, 1))
dy[2] = 1.0
_, _, _, cache = ops.batchnorm_forward(x, gamma, beta, 1e-5)
dx, _, _ = ops.batchnorm_backward(dy, cache)
table(
    ["picture", *range(8), "sum"],
    [
        [name, *(f"{v:.2f}" for v in a[:, 0]), f"{abs(a.sum()):.2g}"]
        for name, a in (("dy", dy), ("dx", dx))
    ],
)
assert (dx[[0, 1, 3, 4, 5, 6, 7]] != 0).all()

# %% [markdown]
# Every picture gets a gradient, also those that the loss never looked at. And the gradients add up to zero. Is that an accident of these numbers? A thousand random cotangents say no:

# %% jupyter={"source_hidden": true}
sums = [
    abs(ops.batchnorm_backward(rng.standard_normal((8, 1)), cache)[0].sum()) for _ in range(1000)
]
say(f"Largest |sum of dx| of a thousand: **{max(sums):.0e}**, which is rounding.")
assert max(sums) < 1e-13

# %% [markdown]
# ## By hand
#
# Four pictures with the values $x = (1, 1, 4, 4)$, and $\gamma = 1$, $\beta = 0$. Mean $2.5$; distances from it $\mp 1.5$; variance $1.5^2$; standard deviation $1.5$ (we call it the *deviation*). So $\hat x = (-1, -1, 1, 1)$.
#
# Let $dy = (1, 0, 0, 0)$: the loss sees $\hat x_1 = (x_1 - \text{mean})/\text{deviation}$ only. Let one of the four, $x_m$, grow by a small $d$. It changes $\hat x_1$ in three ways, here in units of $d/1.5$.
#
# 1. **Direct**, for $m = 1$ only: $x_1$ itself grows. That is 1.
# 2. **Through the mean**: it grows by $d/4$, whichever $x_m$ grew, and is subtracted. That is $-\tfrac14$.
# 3. **Through the variance**: if $x_m$ lies above the mean, the values move apart, and the deviation grows; below the mean it shrinks. It changes by $\hat x_m\,d/4$, and divides $\hat x_1 = -1$. That is $-\hat x_1 \hat x_m/4 = \hat x_m/4$.

# %%
x = np.array([1.0, 1, 4, 4])
dy = np.array([1.0, 0, 0, 0])
std = x.std()
xhat = (x - x.mean()) / std
direct = dy / std
through_mean = np.full(4, -dy.mean() / std)
through_variance = -xhat * (dy * xhat).mean() / std
dx = direct + through_mean + through_variance

*_, cache = ops.batchnorm_forward(x[:, None], np.ones(1), np.zeros(1), 0.0)
assert np.allclose(dx, ops.batchnorm_backward(dy[:, None], cache)[0][:, 0], rtol=1e-15)
parts = {
    "direct": direct,
    "through the mean": through_mean,
    "through the variance": through_variance,
    "dx": dx,
}
table(
    ["in units of 1/1.5", "x₁", "x₂", "x₃", "x₄"],
    [[name, *(f"{v * std:g}" for v in a)] for name, a in parts.items()],
)

# %% [markdown]
# On the blackboard: direct $(1, 0, 0, 0)$; mean $-\tfrac14$ everywhere; variance $\tfrac14(-1, -1, 1, 1)$. Together $(\tfrac12, -\tfrac12, 0, 0)/1.5$. The neighbour $x_2$, which is as low as $x_1$, gets the opposite gradient. For the two others mean and variance cancel.

# %% [markdown]
# ## The equation
#
# For each channel, over the $M = N\,H\,W$ values in it:
#
# $$\mu = \frac1M\sum_m x_m, \qquad \sigma^2 = \frac1M\sum_m (x_m-\mu)^2, \qquad \hat x_m = \frac{x_m - \mu}{\sqrt{\sigma^2+\varepsilon}}, \qquad y_m = \gamma\,\hat x_m + \beta .$$
#
# - $\mu, \sigma^2$: mean and variance of the channel over the batch;
# - $\varepsilon$: a small number that keeps the root away from 0;
# - $\gamma, \beta$: trained; they give the channel the deviation and the mean that the network wants.
#
# Backward,
#
# $$dx_m = \frac{\gamma}{\sqrt{\sigma^2+\varepsilon}}\Big(\underbrace{dy_m}_{\text{direct}} \;\underbrace{-\;\overline{dy}}_{\text{mean}} \;\underbrace{-\;\hat x_m\,\overline{dy\,\hat x}}_{\text{variance}}\Big), \qquad d\gamma = \sum_m dy_m \hat x_m, \qquad d\beta = \sum_m dy_m,$$
#
# where the bar is the mean over the channel. **How to get there:** nine small steps forward, and the same nine backward, each a rule that fits on a line. The nine steps are those of Kratzert's derivation (2016), the most read one. The first half of the cell below is the forward pass, steps 1 to 9; the second half undoes them, from 9 to 1. Where one number was used in all rows, its gradient is a sum over the rows: the branch rule of lesson 2.


# %%
def nine_steps(x, gamma, beta, eps, dy):
    """Batch norm along its computational graph; x is (M, C)."""
    M = len(x)
    mean = x.sum(axis=0) / M  # 1
    centred = x - mean  # 2
    square = centred**2  # 3
    var = square.sum(axis=0) / M  # 4
    std = np.sqrt(var + eps)  # 5
    inverse = 1 / std  # 6
    xhat = centred * inverse  # 7
    scaled = gamma * xhat  # 8
    y = scaled + beta  # 9

    dscaled, dbeta = dy, dy.sum(axis=0)  # 9: beta was used in all rows
    dxhat, dgamma = dscaled * gamma, (dscaled * xhat).sum(axis=0)  # 8: so was gamma
    dcentred, dinverse = dxhat * inverse, (dxhat * centred).sum(axis=0)  # 7: and 1/std
    dstd = -dinverse / std**2  # 6
    dvar = dstd / (2 * std)  # 5
    dsquare = np.broadcast_to(dvar / M, x.shape)  # 4
    dcentred = dcentred + 2 * centred * dsquare  # 3, the path through the variance joins
    dx, dmean = dcentred, -dcentred.sum(axis=0)  # 2
    dx = dx + dmean / M  # 1, the path through the mean joins
    return y, dx, dgamma, dbeta


# %%
x, dy = rng.standard_normal((2, 50, 3)) * 2 + 1
gamma, beta = rng.standard_normal((2, 3))
y, mean, var, cache = ops.batchnorm_forward(x, gamma, beta, 1e-5)
closed = (y, *ops.batchnorm_backward(dy, cache))
for step_by_step, formula in zip(nine_steps(x, gamma, beta, 1e-5, dy), closed, strict=True):
    assert np.allclose(step_by_step, formula, rtol=1e-11, atol=1e-12)

# %% [markdown]
# The nine steps and the closed form agree on random input. To get from one to the other, write $g = \gamma\,dy$ (`dxhat`) and $s = \sqrt{\sigma^2 + \varepsilon}$ (`std`), and put each line into the next:
#
# - steps 7 to 5: $d\sigma^2 = -\dfrac{1}{2s^3}\sum_m g_m (x_m - \mu) = -\dfrac{M}{2s^2}\;\overline{g\,\hat x}$, since $x_m - \mu = s\,\hat x_m$;
# - steps 4 and 3: $x_m - \mu$ gets $\dfrac{g_m}{s} + \dfrac{2(x_m - \mu)}{M}\,d\sigma^2 = \dfrac1s\left(g_m - \hat x_m\,\overline{g\,\hat x}\right)$;
# - step 2: $d\mu$ is minus the sum of these, $-\dfrac{M}{s}\;\overline g$. The variance's part adds nothing, because the sum of $\hat x$ is 0;
# - step 1: $dx_m = \dfrac1s\left(g_m - \hat x_m\,\overline{g\,\hat x}\right) + \dfrac{d\mu}{M} = \dfrac1s\left(g_m - \overline g - \hat x_m\,\overline{g\,\hat x}\right)$, the closed form.
#
# Two means instead of nine arrays. The library writes it as three terms, one for each path from $x$ to the loss.

# %% [markdown]
# ## The code

# %%
source(ops.batchnorm_forward, ops.batchnorm_backward)

# %%
gradcheck.check_op(ops.batchnorm_forward, ops.batchnorm_backward, x, gamma, beta, eps=1e-5)

# %% [markdown]
# ## The experiment: three paths
#
# Eight values of one channel and a random cotangent: what does each path contribute?

# %%
x, dy = rng.standard_normal((2, 8, 1))
*_, cache = ops.batchnorm_forward(x, np.ones(1), np.zeros(1), 0.0)
dx, _, _ = ops.batchnorm_backward(dy, cache)
xhat, _, inv_std = cache
paths = {
    "direct": inv_std * dy,
    "through the mean": -inv_std * dy.mean() * np.ones((8, 1)),
    "through the variance": -inv_std * xhat * (dy * xhat).mean(),
}
assert np.allclose(sum(paths.values()), dx)

# %%
show(
    three_paths({name: part[:, 0] for name, part in paths.items()}, dx[:, 0], xhat[:, 0]),
    "Parts of dx by the value of x-hat, for eight values: the direct path (irregular), the path through the mean (a level line) and "
    "the path through the variance (a straight line that tilts with x-hat), and their sum as diamonds.",
)

# %% [markdown]
# The two corrections have one meaning. Seen as a vector of $M$ numbers, up to the factor in front and for $\varepsilon = 0$, $dx$ is what remains of $dy$ after its part along $(1, 1, \dots, 1)$ and its part along $\hat x$ are taken away: a projection. It has to be so. Adding a constant to the channel, or stretching it, does not change the output of batch norm; so there can be no gradient in these two directions.

# %% jupyter={"source_hidden": true}
x, dy = rng.standard_normal((2, 16, 5, 5, 4))
*_, cache = ops.batchnorm_forward(x, rng.standard_normal(4), np.zeros(4), 0.0)
dx, _, _ = ops.batchnorm_backward(dy, cache)
assert np.allclose(dx.sum(axis=(0, 1, 2)), 0, atol=1e-12)
assert np.allclose((dx * x).sum(axis=(0, 1, 2)), 0, atol=1e-12)

pair = rng.standard_normal((2, 3))  # two pictures, one value in each channel
*_, cache = ops.batchnorm_forward(pair, np.ones(3), np.zeros(3), 0.0)
nothing = abs(ops.batchnorm_backward(rng.standard_normal((2, 3)), cache)[0]).max()
say(f"""
    A strange consequence: with *two* values in a channel, the two directions are all there is, and nothing remains.
    Largest |dx| for a batch of two numbers: **{nothing:.0e}**. Every pair becomes (-1, 1) or (1, -1), whatever it was,
    so no layer below can learn anything from it.
""")
assert nothing < 1e-12

# %% [markdown]
# ## The experiment: signals by depth
#
# Fifty convolutions with ReLUs in a row, on pictures of shapes10. The weights are He's initialisation (random numbers of variance $2/n$, with $n$ = 3·3 times the number of filters; He and others (2015) allow the number of input channels as well, and from the second layer on both are 16) times a factor: slightly too small, right, slightly too large; each with eight seeds. How strong is the signal after each layer?

# %%
pictures, _ = shapes10.images(32, np.random.default_rng(0))
signal = ((pictures[:, ::2, ::2] - pictures.mean()) / pictures.std()).astype(
    np.float32
)  # (32, 16, 16, 3)


def deviations(factor, normalise, seed, depth=50):
    """Standard deviation of the output of each convolution."""
    x, found, weights = signal, [], np.random.default_rng(seed)
    for _ in range(depth):
        conv = Conv2d(x.shape[-1], 16, pad=1, rng=weights)
        x = conv.forward(x) * np.float32(factor)
        found.append(x.std())
        x = BatchNorm(16).forward(x, train=True) if normalise else x
        x = ReLU().forward(x)
    return np.array(found)


factors, seeds = (0.8, 1.0, 1.25), range(8)
found = {
    (f, n): np.array([deviations(f, n, seed) for seed in (seeds if not n else seeds[:1])])
    for f in factors
    for n in (False, True)
}

# %%
kept = sorted(found[1.0, False][:, -1] / found[1.0, False][:, 0])
fold = kept[-1] / kept[0]
show(
    by_depth(
        found, f"With He's weights and no batch norm, nets of 50 layers differ {fold:.0f}-fold"
    ),
    "Standard deviation by layer on a logarithmic axis. Dashed, without batch norm: three bands of eight nets that fall fast, fall slowly and rise, "
    "about exponentially, and widen with depth. Solid, with batch norm: three level lines near 1.",
)

# %% jupyter={"source_hidden": true}
ratio = {n: (found[1.25, n][0, -1] / found[0.8, n][0, -1]) for n in (False, True)}
border = (1 - 2 / (3 * 16)) ** 50  # a 3x3 window at an edge of 16 pixels lacks a third
say(f"""
    He's initialisation (× 1) is made so that a signal keeps its strength *on average over all nets*. A few nets make up for most others, which keep less. After 50 layers of 16 channels, these eight keep {", ".join(f"{v:.2g}" for v in kept)} of it. Two things are behind it: with few channels each layer multiplies the signal by a random factor, and the factors pile up; and the border of zeros takes some strength from every layer (alone it would leave {border:.2g}).
    A wrong factor adds to that. Without batch norm and biases, a factor at every layer multiplies the last signal by its 50th power, so between × 0.8 and × 1.25 lies (1.25/0.8)⁵⁰ = **{(1.25 / 0.8) ** 50:.0e}** (measured: {ratio[False]:.0e}). With batch norm it is {ratio[True]:.2f}, the factor of the last layer alone ({1.25 / 0.8:.2f}).
    In the words of the paper on residual networks, batch norm "ensures forward propagated signals to have non-zero variances" (section 4.1).
""")
assert kept[0] < 0.1 * kept[-1]
assert np.isclose(ratio[False], (1.25 / 0.8) ** 50, rtol=1e-2)
assert ratio[True] < 2

# %% [markdown]
# ## The experiment: a picture and its neighbour
#
# A ResNet-8 (a small network, see lesson 4b) with random weights looks at a picture *together with one other*. In training mode the statistics are those of the two; in evaluation mode they are the running statistics, gathered beforehand. Here are the ten scores of one and the same picture, with forty different neighbours.

# %%
pictures, _ = shapes10.images(256, np.random.default_rng(1))
data = ((pictures - pictures.mean()) / pictures.std()).astype(np.float32)
net = resnet(8, rng=0)
recompute_statistics(net, [data[i : i + 64] for i in range(0, 256, 64)])
alone = net.forward(data[:1])[0]
evaluated = np.array([net.forward(data[[0, n]])[0] for n in range(1, 41)])
trained = np.array([net.forward(data[[0, n]], train=True)[0] for n in range(1, 41)])

# %%
show(
    neighbours(trained, evaluated),
    "Ten scores of one picture. In training mode each score is a cloud of forty points, one for each neighbour; "
    "in evaluation mode all forty coincide in a short line.",
)

# %% jupyter={"source_hidden": true}
assert np.allclose(evaluated, alone, atol=1e-4)
top = len(set(trained.argmax(axis=1)))
spread = trained.std(axis=0).mean()
say(f"""
    With forty neighbours the score moves by {spread:.2f} on average (standard deviation), and {top} different classes come out on top for the same picture.
    In evaluation mode all forty agree to rounding, and with the picture alone. Their line may lie at the rim of a cloud: in training mode the picture is half of its own batch, so it moves the statistics towards itself.
""")

# %% [markdown]
# Evaluation mode is not "batch norm off". It is the same formula with fixed numbers, $y = a\,x + b$ with $a = \gamma/\sqrt{\sigma^2_{run}+\varepsilon}$ and $b = \beta - a\,\mu_{run}$, and so it can be moved into the convolution before it:

# %%
source(ops.batchnorm_inference)

# %%
x, w = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((3, 3, 3, 4))
gamma, beta, mean, var = *rng.standard_normal((3, 4)), rng.uniform(0.5, 2, 4)
y, _ = ops.conv2d_forward(x, w)
normalised = ops.batchnorm_inference(y, gamma, beta, mean, var, 1e-5)
scale = gamma / np.sqrt(var + 1e-5)
folded, _ = ops.conv2d_forward(x, w * scale)
as_convolution = folded + (beta - mean * scale)
assert np.allclose(normalised, as_convolution, rtol=1e-12, atol=1e-12)

# %% [markdown]
# ## The experiment: how slowly running statistics follow
#
# The running mean is moved a little towards each batch's: $r \leftarrow (1 - \rho)\,r + \rho\,\mu$. (PyTorch calls $\rho$ the momentum of the layer, Keras $1 - \rho$. The momentum of an optimiser, in lesson 4b, is another thing.) While a network trains, its statistics move under its feet. We feed a `BatchNorm` layer a channel whose mean jumps from 0 to 1, and one whose mean drifts.

# %%
shares = (0.01, 0.1, 0.5)
batches = 120
targets = {
    "a jump": np.where(np.arange(batches) < 20, 0.0, 1.0),
    "a drift": np.maximum(0, np.arange(batches) - 20) / 50,
}
followed = {}
for name, target in targets.items():
    for rho in shares:
        norm, seen, noise = BatchNorm(1, momentum=rho), [], np.random.default_rng(0)
        for value in target:
            norm.forward((value + noise.standard_normal((64, 1))).astype(np.float32), train=True)
            seen.append(float(norm.buffers["running_mean"][0]))
        followed[name, rho] = np.array(seen)

# %%
half = {rho: np.log(0.5) / np.log(1 - rho) for rho in shares}
lag = {rho: (1 - rho) / rho for rho in shares}
title = f"At ρ = 0.1 the running mean is half way after {half[0.1]:.0f} batches, and {lag[0.1]:.0f} batches behind a drift"
show(
    running_means(targets, followed, title),
    "Running mean by batch for ρ = 0.01, 0.1 and 0.5. Left, after a jump the curves approach 1 slowly, quickly, at once but noisily. "
    "Right, behind a drift those of 0.1 and 0.5 run parallel to the true mean at a distance; that of 0.01 falls ever further behind.",
)

# %% jupyter={"source_hidden": true}
late = (
    targets["a drift"][-1]
    - followed["a drift", 0.1][-40:].mean()
    - (targets["a drift"][-1] - targets["a drift"][-40:].mean())
)
say(f"""
    Half way after ln 0.5 / ln(1 - ρ) batches: {", ".join(f"{half[rho]:.0f} at ρ = {rho:g}" for rho in shares)}.
    Behind a drift the lag is (1 - ρ)/ρ = {lag[0.1]:.0f} batches at ρ = 0.1; measured {late * 50:.1f}.
    A large ρ follows quickly and hears the noise of single batches, a small one is calm and late. No value is both.
""")
assert abs(late * 50 - lag[0.1]) < 2.5

# %% [markdown]
# This is one reason why evaluation during training at a high learning rate is noisy: the weights move faster than the statistics. [Lesson 7a](07a_recipe.ipynb) evaluates one and the same network in both ways. For their published ImageNet models the paper's authors did not use running averages at all ([their notes](https://github.com/KaimingHe/deep-residual-networks)): after training they computed mean and variance over training images. The library can do that too (`recompute_statistics`), and does so before it reports an error.

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Evaluation mode means no batch norm",
            f"it equals a convolution with other weights and a bias, to {abs(normalised - as_convolution).max():.0e}",
            "no: the same formula with fixed numbers",
        ],
        [
            "Batch norm makes the initial scale of weights irrelevant",
            f"factor {ratio[True]:.2f} instead of {ratio[False]:.0e} after 50 layers",
            "for the forward signal, yes",
        ],
        [
            "A batch of two is a small batch, no more",
            f"with one value per picture and channel, |dx| is at most {nothing:.0e}",
            "no: nothing is learned through it",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - *Why* batch norm helps training. Its authors proposed that it reduces "internal covariate shift" (Ioffe, Szegedy 2015). Santurkar and others (2018) added noise after the normalisation, so that the distributions shifted more than without, and it trained as well; they propose a smoother loss instead. That it reduces covariate shift is a hypothesis, not a fact, and nothing above bears on it.
# - That gradients behave as well as signals. At initialisation they *grow* towards the input, by about a fifth per layer of ReLU and batch norm (Yang and others 2019). [Lesson 6](06_residual_learning.ipynb) measures it.
# - How small a batch may be in a real network, where a channel has many pixels per picture.

# %% [markdown]
# ## Exercises
#
# **Now.** In the first cell of *The surprise*, give two pictures a `dy`, 1 and -1. What happens to the others? Predict before you run.
#
# **To think about.** A convolution before a batch norm is often given a bias, a number added to each of its channels. What is the gradient of that bias, and why do the paper's networks have none?
#
# **For the weekend.** `minires exercise start batchnorm_backward`, first along the nine steps, then in closed form. Which is faster, and by how much?

# %% [markdown]
# ## Where to read on
#
# - Ioffe, Szegedy: *Batch Normalization*, [arXiv 1502.03167](https://arxiv.org/abs/1502.03167), section 3, 2015. Algorithms 1 and 2, and the gradients.
# - Kratzert: [*Understanding the backward pass through Batch Normalization Layer*](https://kratzert.github.io/2016/02/12/understanding-the-gradient-flow-through-the-batch-normalization-layer.html), 2016. The nine steps.
# - Santurkar, Tsipras, Ilyas, Madry: *How Does Batch Normalization Help Optimization?*, [arXiv 1805.11604](https://arxiv.org/abs/1805.11604), section 2, 2018.
# - Yang, Pennington, Rao, Sohl-Dickstein, Schoenholz: *A Mean Field Theory of Batch Normalization*, [arXiv 1902.08129](https://arxiv.org/abs/1902.08129), 2019. Gradients at initialisation.
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), sections 3.4 and 4.1, 2015.
# - [Lesson 4b](04b_whole_network.ipynb): the layers together, a network that can be trained.
