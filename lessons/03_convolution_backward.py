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
# # 3. Where does a pixel's gradient come from?
#
# Forward, an output of a convolution looks at a window of pixels. Backward, a pixel must ask the other way round: which outputs looked at me, and with which weight? The answer is again a convolution, with the filter turned by half a circle. Textbooks state the flip; this lesson shows where it comes from, and what happens to those who forget it.
#
# - **Time:** 50 minutes.
# - **You need:** [lesson 1](01_convolution.ipynb) (im2col) and [lesson 2](02_backprop_and_checks.ipynb) (cotangents, $dx = J^{\mathsf T} dy$).
# - **Afterwards you can** derive both gradients of a convolution from one matrix product, for any stride, and explain the flip without remembering it.

# %%
import numpy as np
from draw_convolution import both_ends, covers, spread_out, without_flip
from style import claims, say, show, source, table

from minires import get_ops, gradcheck

ops = get_ops("numpy")
rng = np.random.default_rng(3)

# %% [markdown]
# ## The surprise
#
# Somebody computes the gradient of the input by sliding the *same* filter over `dy`, without flipping it. Four filters, all of 3x3, decide how that goes.


# %%
def slide_over(dy, w, flip):
    """Convolve dy with the filters, channels and filters exchanged; 3x3, stride 1, padding 1."""
    turned = w[::-1, ::-1] if flip else w
    # swapaxes: what was a filter forward is a channel here
    return ops.conv2d_forward(dy, turned.swapaxes(2, 3), pad=1)[0]


filters = {
    "blur": np.full((3, 3), 1 / 9),
    "spot": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 8,
    "edge": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "random": rng.standard_normal((3, 3)),
}

# %%
x, dy = rng.standard_normal((2, 1, 8, 8, 1))
wrong = {}
for name, f in filters.items():
    w = f.reshape(3, 3, 1, 1)
    true, _ = ops.conv2d_backward(dy, ops.conv2d_forward(x, w, pad=1)[1])
    assert np.allclose(slide_over(dy, w, flip=True), true)
    wrong[name] = np.linalg.norm(slide_over(dy, w, flip=False) - true) / np.linalg.norm(true)
table(
    ["filter", "error of dx without the flip, relative to dx"],
    [[name, f"{e:.0%}"] for name, e in wrong.items()],
)
assert max(wrong["blur"], wrong["spot"]) < 1e-14
assert np.isclose(wrong["edge"], 2)

# %% [markdown]
# On the blur and on the spot the mistake is *invisible*: these filters look the same after half a turn. On the edge filter the error is twice the gradient itself, because the result is exactly $-dx$: every pixel is pushed the wrong way. Whoever tests with a symmetric filter, and averages and Gaussians are what one reaches for, will find nothing.

# %% [markdown]
# ## By hand
#
# One row of four pixels, a filter of two weights $w = (3, 1)$, stride 1. Three windows, three outputs:
#
# $$y_0 = 3x_0 + x_1, \qquad y_1 = 3x_1 + x_2, \qquad y_2 = 3x_2 + x_3 .$$
#
# Let the cotangent be $dy = (1, 10, 100)$, so that every digit tells where it came from. Pixel $x_1$ appears in $y_0$ with weight 1 and in $y_1$ with weight 3. Its gradient is what each of the two brings back: $1\cdot 1 + 3\cdot 10$.

# %% jupyter={"source_hidden": true}
w = np.array([3.0, 1.0])
A = np.array([[3, 1, 0, 0], [0, 3, 1, 0], [0, 0, 3, 1]], float)  # y = A x
dy = np.array([1.0, 10, 100])
dx = A.T @ dy
row = np.concatenate([[0], dy, [0]])
slid = np.array(
    [row[i : i + 2] @ w[::-1] for i in range(4)]
)  # the filter backwards over the padded dy

_, cache = ops.conv2d_forward(rng.standard_normal((1, 1, 4, 1)), w.reshape(1, 2, 1, 1))
assert np.array_equal(dx, ops.conv2d_backward(dy.reshape(1, 1, 3, 1), cache)[0].ravel())
assert np.array_equal(dx, slid)
say(f"""
    Pixel by pixel: dx = ({", ".join(f"{v:g}" for v in dx)}). The two pixels at the ends are seen by one window only.

    Now put a zero at each end of dy, and slide the filter *read backwards*, (1, 3), over ({", ".join(f"{v:g}" for v in row)}):
    the results are ({", ".join(f"{v:g}" for v in slid)}), the same numbers.
""")

# %% [markdown]
# You need not remember the flip. In $y_0$ the pixel $x_1$ stands at the *right* end of the window; so from where the pixel stands, that output lies to the *left*. Looking back exchanges left and right.

# %% [markdown]
# ## The equation
#
# Lesson 1 wrote a convolution as $Y = \mathrm{im2col}(x)\,W$, with a row per output pixel and a column per filter. The rule of lesson 2, $dx = J^{\mathsf T} dy$, does the rest. For a product $Y = XW$ the gradients are $dX = dY\,W^{\mathsf T}$ and $dW = X^{\mathsf T} dY$. And im2col is linear, so its backward pass is its transpose, called col2im:
#
# $$dw = \mathrm{im2col}(x)^{\mathsf T}\, dy, \qquad\qquad dx = \mathrm{col2im}\big(dy\, w^{\mathsf T}\big).$$
#
# - $dy$ of shape $(N\,OH\,OW,\,K)$: a row per output pixel;
# - $dy\,w^{\mathsf T}$ of shape $(N\,OH\,OW,\,KH\,KW\,C)$: for each output, what it sends back to every pixel of its window;
# - $\mathrm{col2im}$ adds each of these numbers to the pixel from which im2col had copied.
#
# What "transpose" means for a function that copies: $\langle \mathrm{im2col}(x), z\rangle = \langle x, \mathrm{col2im}(z)\rangle$ for all $x$ and $z$. Copying a number to $k$ places has the transpose "add up what stands in those $k$ places".
#
# Written out for the pixel in row $r$ and column $u$, with stride $s$, and $\hat r = r + \mathrm{pad}$, $\hat u = u + \mathrm{pad}$:
#
# $$dx_{n,r,u,c} = \sum_{p,q,k}\; w_{p,q,c,k}\; dy_{n,\,(\hat r-p)/s,\,(\hat u-q)/s,\,k} \qquad\text{where the divisions come out even and hit a place of dy.}$$
#
# The index of $dy$ *falls* when $p$ grows. That minus sign is the flip. And "where the divisions come out even" says that with a stride, $dy$ is to be spread out with $s-1$ zeros between its values; where they hit no place of it, there is a zero around it.

# %% [markdown]
# ## The code

# %%
source(ops.conv2d_backward, ops.col2im)

# %% [markdown]
# No flip is to be seen. `col2im` adds window by window (each `p, q` at once for all windows) to where it was read, and the geometry takes care of itself: padding is cropped at the end, and the stride is the step of the slice. First we check that col2im is the transpose of im2col, on two hundred random shapes.

# %% jupyter={"source_hidden": true}
worst = 0.0
for _ in range(200):
    N, C, KH, KW, stride = rng.integers(1, 4, 5)
    pad = rng.integers(0, min(KH, KW))
    H, W = rng.integers(max(KH, KW), 9, 2)
    x = rng.standard_normal((N, H, W, C))
    cols = ops.im2col(x, KH, KW, stride, pad)
    z = rng.standard_normal(cols.shape)
    left, right = (cols * z).sum(), (x * ops.col2im(z, H, W, stride, pad)).sum()
    worst = max(worst, abs(left - right) / np.linalg.norm(cols) / np.linalg.norm(z))
say(
    f"Largest difference of the two sides, relative to the lengths of the vectors: **{worst:.0e}**. That is rounding."
)
assert worst < 1e-14


# %% [markdown]
# Then that dx is, for every stride, a convolution: spread dy out with zeros, surround it with zeros, and slide the flipped filters over it.


# %%
def spread(dy, w, H, W, stride, pad):
    """dy with stride - 1 zeros between its values, and zeros around, so that a full slide gives H x W."""
    (N, OH, OW, K), (KH, KW) = dy.shape, w.shape[:2]
    wide = np.zeros((N, H + KH - 1, W + KW - 1, K))
    top, left = KH - 1 - pad, KW - 1 - pad
    wide[:, top : top + stride * OH : stride, left : left + stride * OW : stride] = dy
    return wide


for stride, pad in ((1, 0), (1, 1), (2, 0), (2, 1), (3, 2)):
    x, w = rng.standard_normal((2, 9, 8, 3)), rng.standard_normal((3, 3, 3, 4))
    y, cache = ops.conv2d_forward(x, w, stride, pad)
    dy = rng.standard_normal(y.shape)
    dx, dw = ops.conv2d_backward(dy, cache)
    as_convolution, _ = ops.conv2d_forward(
        spread(dy, w, 9, 8, stride, pad), w[::-1, ::-1].swapaxes(2, 3)
    )
    assert np.allclose(dx, as_convolution, rtol=1e-12, atol=1e-12)
    rows = ops.im2col(x, 3, 3, stride, pad).reshape(-1, 27)
    assert np.allclose(dw.reshape(27, 4), rows.T @ dy.reshape(-1, 4), rtol=1e-12, atol=1e-12)
gradcheck.check_op(ops.conv2d_forward, ops.conv2d_backward, x, w, stride=2, pad=1)

# %% [markdown]
# Here is one such slide with stride 2 to follow with a finger: dy of 2x2, a filter of 3x3, an image of 5x5.

# %%
dy = np.array([[1.0, 2], [3, 4]]).reshape(1, 2, 2, 1)
w = np.arange(1.0, 10).reshape(3, 3, 1, 1)
wide = spread(dy, w, 5, 5, 2, 0)
dx, _ = ops.conv2d_forward(wide, w[::-1, ::-1])
assert np.array_equal(
    dx, ops.conv2d_backward(dy, ops.conv2d_forward(np.zeros((1, 5, 5, 1)), w, 2)[1])[0]
)
show(
    spread_out(dy[0, ..., 0], wide[0, ..., 0], w[::-1, ::-1, 0, 0], dx[0, ..., 0]),
    "dy of 2x2; the same numbers spread out with zeros into 7x7, with three coloured 3x3 windows; the flipped filter 9 to 1; "
    "and dx of 5x5 with the pixels that these windows give in the same colours.",
)

# %% [markdown]
# ## The experiment: both directions as maps
#
# A library that has a forward and a backward pass can be asked for both lines of sight. Send back a single 1 from one output: the pixels that light up are its window, with their weights. Send forward a single 1 at one pixel: the outputs that light up are those that look at it.

# %%
w = np.arange(1.0, 10).reshape(3, 3, 1, 1)
one = np.zeros((1, 7, 7, 1))
one[0, 3, 3, 0] = 1
answers, cache = ops.conv2d_forward(one, w, pad=1)
reads, _ = ops.conv2d_backward(one, cache)
show(
    both_ends(reads[0, ..., 0], answers[0, ..., 0]),
    "Two 7x7 maps. Left, the pixels that the middle output reads, weights 1 to 9 in reading order. "
    "Right, the outputs that read the middle pixel, weights 9 to 1: the same turned by 180 degrees.",
)

# %%
assert np.array_equal(reads[:, ::-1, ::-1], answers)

# %% [markdown]
# On the left, weight 1 is at the top left: an output reads its upper left neighbour with weight 1. On the right, weight 1 is at the bottom right: the output to the lower right reads *me* with weight 1, since I am its upper left neighbour.

# %% [markdown]
# ## The experiment: how many windows see a pixel?
#
# If every window sends back a 1 to each of its pixels, col2im counts.

# %%
counts = {}
for stride, pad, H in ((1, 1, 9), (2, 1, 9), (3, 0, 9)):
    OH = (H + 2 * pad - 3) // stride + 1
    counts[stride] = ops.col2im(np.ones((1, OH, OH, 3, 3, 1)), H, H, stride, pad)[0, ..., 0]
show(
    covers(counts),
    "Number of 3x3 windows that cover each pixel of a 9x9 image. Stride 1: 9 inside, fewer at the border. "
    "Stride 2: a regular pattern of 1, 2 and 4. Stride 3: 1 everywhere.",
)

# %%
x = rng.standard_normal((1, 9, 9, 1))
there_and_back = ops.col2im(ops.im2col(x, 3, 3, 2, 1), 9, 9, 2, 1)
assert np.allclose(there_and_back[0, ..., 0], counts[2] * x[0, ..., 0])

# %% [markdown]
# The assertion says that going there and back multiplies each pixel by its count. The transpose is therefore **not** the inverse. With stride 2 the counts make a regular pattern of 1, 2 and 4, and so does what a network sends back through such a layer: in pictures made by transposed convolutions this is seen as *checkerboard artifacts* (Odena, Dumoulin, Olah 2016).

# %% [markdown]
# ## The experiment: would training notice a missing flip?
#
# A gradient that is only roughly right can still go downhill. We take filters between symmetric and fully random, $w_t = \tfrac12(w + \text{flipped } w) + \tfrac t2 (w - \text{flipped } w)$, and compare the direction of the gradient without flip to the true one: a cosine of 1 is the same direction, 0 is a right angle.

# %%
w = np.sqrt(2 / (9 * 16)) * rng.standard_normal((3, 3, 16, 16))
dy = rng.standard_normal((4, 16, 16, 16))
ts = np.linspace(0, 1, 11)
cosines, lengths = [], []
for t in ts:
    w_t = ((1 + t) * w + (1 - t) * w[::-1, ::-1]) / 2
    a, b = slide_over(dy, w_t, flip=True), slide_over(dy, w_t, flip=False)
    cosines.append((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))
    lengths.append(np.linalg.norm(a - b) / np.linalg.norm(a))

# %%
show(
    without_flip(ts, cosines, lengths),
    "Against the asymmetry of the filters, the cosine between wrong and true dx falls from 1 to about 0.1, and the relative error rises from 0 to about 1.3.",
)


# %% jupyter={"source_hidden": true}
def agreement(layers):
    """Share of the paths through layers whose taps, from -1 to 1 in both directions, add up to 0."""
    sums = np.ones(1)
    for _ in range(layers):
        sums = np.convolve(sums, np.ones(3) / 3)
    return sums[layers] ** 2


DRAWS, LAYERS = 20, 4
through = np.zeros((DRAWS, LAYERS))
for draw in range(DRAWS):
    a = b = dy
    for layer in range(LAYERS):  # from the loss downwards
        w_l = np.sqrt(2 / (9 * 16)) * rng.standard_normal((3, 3, 16, 16))
        a, b = slide_over(a, w_l, flip=True), slide_over(b, w_l, flip=False)
        through[draw, layer] = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
measured = through.mean(axis=0)
expected = [agreement(k) for k in range(1, LAYERS + 1)]
say(f"""
    Without the flip, only the middle weight of nine is in its right place. The other eight meet a random weight in place of their own, and such products are 0 on average. So the cosine should be about 1/9 = {1 / 9:.2f}; in the figure it is {cosines[-1]:.2f}.
    Through one, two, three and four such layers in a row it is {", ".join(f"{c:.3f}" for c in measured)} (mean of {DRAWS} draws): almost a right angle to the true gradient. It is not (1/9)², (1/9)³ and so on, because displacements can cancel: a wrong tap one pixel to the left and one to the right lead back to the right place. Counting the paths that do so gives {", ".join(f"{c:.3f}" for c in expected)}.
    The layers next to the loss still get right gradients, so the loss may well fall. That is how such a mistake survives.
""")
assert abs(cosines[-1] - 1 / 9) < 0.05
assert np.isclose(cosines[0], 1)
assert np.allclose(measured, expected, atol=0.04)

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Backward flips the filter because convolution is defined so",
            "our forward never flips; `conv2d_backward` agrees with it and shows no flip either",
            "no: flipping is what the transpose looks like, written as a sliding window",
        ],
        [
            "A transposed convolution undoes a convolution",
            f"im2col, then col2im, multiplies pixels by {counts[2].min():g} to {counts[2].max():g} at stride 2",
            "no: it is the transpose, not the inverse",
        ],
        [
            "It trains, so the gradient is right",
            f"cosine {cosines[-1]:.2f} through one layer without the flip",
            "no: check it (lesson 2) with random, asymmetric filters",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - How training with the wrong dx ends. We measured directions in up to four layers, not a training; an exercise asks you to try.
# - That adding up window by window is the fastest way. The compiled backend does slide the flipped filters, and for a stride it makes several small convolutions instead of multiplying the zeros between: `backward_input` in `minires/ops/compiled/conv.py`.

# %% [markdown]
# ## Exercises
#
# **Now.** In the figure with stride 2, compute the orange pixel of dx by hand: four values of dy meet the middle of the image. With which four weights?
#
# **To think about.** A layer with stride 3 and a 2x2 filter never looks at some pixels. What is their gradient, and which line of `col2im` makes it so?
#
# **For the weekend.** `minires exercise start conv2d_backward`. Then put the mistake of this lesson in, and train plain-8 on shapes10 with both: how far apart are the losses after 200 steps? These lines put your function into a network and take one step (lesson 4b explains them; `x` is a batch of 64 prepared pictures):
#
# ```python
# from minires import plain
# from minires.optim import SGD
# from minires.train.step import train_step
#
# net = plain(8, rng=0).use("numpy", conv2d_backward=yours)
# sgd = SGD(net.parameters())
# loss, error = train_step(net, sgd, x, labels, lr=0.01)
# ```

# %% [markdown]
# ## Where to read on
#
# - Dumoulin, Visin: *A guide to convolution arithmetic for deep learning*, [arXiv 1603.07285](https://arxiv.org/abs/1603.07285), chapter 4, 2016. Transposed convolutions, with pictures of every case.
# - Odena, Dumoulin, Olah: [*Deconvolution and Checkerboard Artifacts*](https://distill.pub/2016/deconv-checkerboard/), Distill, 2016.
# - LeCun, Bottou, Bengio, Haffner: *Gradient-Based Learning Applied to Document Recognition*, Proceedings of the IEEE 86(11), section II, 1998. Convolutional networks and their gradients.
# - [Lesson 4](04_batch_norm.ipynb): a layer in which the gradient of one picture depends on all others.
