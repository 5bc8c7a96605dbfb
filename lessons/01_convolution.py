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
# # 1. How can a matrix product slide a window?
#
# A convolution moves a small window over an image and multiplies, at every place, what it sees with the same few weights. Written down as it is said, that is seven nested loops. Yet many fast libraries do it with one matrix product, and a matrix product slides nothing. Where did the window go?
#
# - **Time:** 45 minutes.
# - **You need:** Python, NumPy arrays and their shapes, matrix products.
# - **Afterwards you can** write a convolution as a matrix product, say what it costs in time and in memory, and read `conv2d_forward` line by line.

# %% jupyter={"source_hidden": true}
import itertools
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # loops and products each have one core
import numpy as np
from draw_convolution import answers, as_product, costs
from style import claims, say, seconds, show, source

from minires import get_ops, resnet
from minires.data import shapes10
from minires.nets.audit import macs
from minires.ops import parts

ops = get_ops("numpy")
rng = np.random.default_rng(0)

# %% [markdown]
# ## The surprise
#
# Here is the definition, as plain as it gets. For every image `n`, every place `i, j` and every filter `k`, look at all rows `p`, columns `q` and channels `c` of the window. (A *channel* is one number at every pixel: a picture has three, red, green and blue; inside a network there are more.)


# %%
def seven_loops(x, w):
    """Convolution by its definition: stride 1, no padding."""
    (N, H, W, C), (KH, KW, _, K) = x.shape, w.shape
    y = np.zeros((N, H - KH + 1, W - KW + 1, K), x.dtype)
    for n, i, j, k in np.ndindex(y.shape):
        for p, q, c in itertools.product(range(KH), range(KW), range(C)):
            y[n, i, j, k] += x[n, i + p, j + q, c] * w[p, q, c, k]
    return y


picture = (
    shapes10.images(12, np.random.default_rng(5))[0][:1].astype(np.float64) / 255
)  # (1, 32, 32, 3)
w = rng.standard_normal((3, 3, 3, 16))
start = time.thread_time()
by_loops = seven_loops(picture, w)
loop_seconds = time.thread_time() - start

# %% [markdown]
# The same 3x3 windows can be copied into the rows of a matrix, and the filters into the columns of another. Then Python's `@` does the rest. `im2col` ("image to columns", the traditional name) is the function that copies.

# %%
rows = ops.im2col(picture, 3, 3).reshape(-1, 27)  # a row per window: 3 * 3 * 3 values
by_product = (rows @ w.reshape(27, 16)).reshape(by_loops.shape)
product_seconds = seconds(
    lambda: ops.im2col(picture, 3, 3).reshape(-1, 27) @ w.reshape(27, 16),
    clock=time.thread_time,
)

assert np.allclose(by_loops, by_product, rtol=1e-13, atol=1e-13)

# %% jupyter={"source_hidden": true}
network_macs = macs(resnet(20))
rate = by_loops.size * 27 / loop_seconds
say(f"""
    One picture of 32x32 pixels, 16 filters: the loops took **{loop_seconds:.2f} s**, the matrix product **{1e3 * product_seconds:.2f} ms**,
    {loop_seconds / product_seconds:,.0f} times less, and the numbers agree to rounding.

    At the pace of these loops ({rate / 1e6:.1f} million multiplications a second) the {network_macs / 1e6:.1f} million multiplications
    of a ResNet-20 would take {network_macs / rate:.0f} s for one picture, and **{128 * network_macs / rate / 60:.0f} minutes** for one batch of 128, forward only.
    All times in this lesson are what one core of the machine that last executed it computed; the work of other programs does not count.
""")

# %% [markdown]
# ## By hand
#
# Take an image of four rows and four columns with one channel, and a filter of two by two. The window has three places in each direction, so there are nine windows, and each window holds four numbers. Write each window as one row, from left to right and from top to bottom.

# %%
image = np.array([[1, 2, 0, 1], [3, 1, 2, 0], [0, 2, 1, 3], [1, 0, 2, 1]], float)
filter_ = np.array([[1, -1], [2, 0]], float)
matrix = ops.im2col(image[None, :, :, None], 2, 2).reshape(9, 4)
column = filter_.reshape(4, 1)
answer = matrix @ column
by_library, _ = ops.conv2d_forward(image[None, :, :, None], filter_[:, :, None, None])
assert np.array_equal(answer.ravel(), by_library.ravel())

# %%
show(
    as_product(image, matrix, column, answer, followed=(0, 1, 4, 8)),
    "A 4x4 image with four coloured 2x2 windows, the 9x4 matrix whose rows of the same colours hold these windows, "
    "the filter as a column of 4, and their product, a column of 9.",
)

# %% [markdown]
# Follow the first (blue) window from left to right: its four numbers are a row of the matrix, the row times the filter is the first number of `y`. Nothing slides any more. The sliding happened when the matrix was filled.

# %% jupyter={"source_hidden": true}
first = " + ".join(f"{a:g}·({b:g})" for a, b in zip(matrix[0], column[:, 0], strict=True))
copies = [int((ops.im2col(np.eye(16)[k].reshape(1, 4, 4, 1), 2, 2)).sum()) for k in (0, 1, 5)]
assert copies == [1, 2, 4]
say(f"""
    The blue window: {first} = **{answer[0, 0]:g}**. Read the nine answers row by row and you have the 3x3 output.

    Now count: {image.size} numbers went in, {matrix.size} stand in the matrix. The corner pixel was copied {copies[0]} time,
    its neighbour on the edge {copies[1]} times, a pixel in the middle {copies[2]} times, once for each window that sees it.
    That is the price of the trick, and we will measure it.
""")

# %% [markdown]
# ## The equation
#
# $$y_{n,i,j,k} \;=\; \sum_{p=0}^{KH-1}\;\sum_{q=0}^{KW-1}\;\sum_{c=0}^{C-1} x^{\mathrm{pad}}_{n,\;i s+p,\;j s+q,\;c}\; w_{p,q,c,k}$$
#
# - $x$ is a batch of $N$ images with $H$ rows, $W$ columns and $C$ channels, an array of shape $(N, H, W, C)$; $x^{\mathrm{pad}}$ is the same with `pad` rows and columns of zeros on every side;
# - $w$ of shape $(KH, KW, C, K)$ holds $K$ filters, each as large as one window: $KH$ rows, $KW$ columns, all channels;
# - $s$ is the *stride*, how far the window moves at each step;
# - $y$ has shape $(N, OH, OW, K)$ with $OH = \lfloor (H + 2\,\mathrm{pad} - KH)/s \rfloor + 1$, and $OW$ alike.
#
# In words: for every image, place and filter, the sum of products of a window with the filter. Call $(n,i,j)$ a row number and $(p,q,c)$ a column number, and the three sums are one: $Y = \mathrm{im2col}(x)\, W$.
#
# Mathematicians call this a *cross-correlation*; their convolution reads the filter backwards. Since the weights are learned, it makes no difference forward. Lesson 3 shows where the backward reading turns up by itself.

# %% [markdown]
# ## The code
#
# This is the library, read from its source as it is installed here.

# %%
source(ops.im2col, ops.conv2d_forward)

# %% [markdown]
# Three things are worth a second look.
#
# - `sliding_window_view` makes all windows *without copying a number*: it returns a view of the image, in which one number in memory stands in several windows. Only `.copy()` at the end copies.
# - Images are stored as (N, H, W, C), channels last. So the product, of shape (windows, filters), **is** the next image as it lies in memory. With channels first it would have to be turned around.
# - `forward_in_parts` calls the function for a few images at a time: the matrix is never made for the whole batch. Why not? See the experiment.

# %%
x = rng.standard_normal((2, 7, 6, 5))
w = rng.standard_normal((3, 2, 5, 4))
assert np.allclose(ops.conv2d_forward(x, w)[0], seven_loops(x, w), rtol=1e-12, atol=1e-12)

xpad = np.pad(
    x, ((0, 0), (1, 1), (1, 1), (0, 0))
)  # padding is zeros around the image, stride leaves out windows
assert np.allclose(ops.conv2d_forward(x, w, stride=2, pad=1)[0], seven_loops(xpad, w)[:, ::2, ::2])

# %% [markdown]
# The two assertions say: on random numbers, the library's convolution is the seven loops; padding is zeros put around the image first; a stride of 2 is every second window.

# %% [markdown]
# ## The experiment: what does it cost?
#
# We convolve one square image of 16 channels with 16 filters of 3x3, at growing sizes. The loops run on the three smallest only.

# %%
sides = [4, 8, 16, 32, 64, 128]
w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
images = {side: rng.standard_normal((1, side, side, 16)).astype(np.float32) for side in sides}
product_time = [
    seconds(lambda x=x: ops.conv2d_forward(x, w, pad=1), repeats=20, clock=time.thread_time)
    for x in images.values()
]
loop_time = []
for side in sides[:3]:
    start = time.thread_time()
    seven_loops(np.pad(images[side], ((0, 0), (1, 1), (1, 1), (0, 0))), w)
    loop_time.append(time.thread_time() - start)
megabytes = {side: (x.nbytes / 1e6, 9 * x.nbytes / 1e6) for side, x in images.items()}

# %%
show(
    costs(sides, loop_time, product_time, megabytes, parts.PART_BYTES / 1e6),
    "Left: seconds against image side, seven loops far above im2col with a matrix product. Right: memory of the image and of the im2col matrix, nine times as large, with the library's chunk size as a dotted line.",
)

# %% jupyter={"source_hidden": true}
gain = [a / b for a, b in zip(loop_time, product_time, strict=False)]
batch = 128 * 32 * 32 * 16 * 4 / 1e6
say(f"""
    At side {sides[2]} the product is **{gain[2]:,.0f} times** faster than the loops. It does not multiply less: both do
    {16 * 16 * 9 * 16 * 16 / 1e6:.1f} million multiplications. It spends them inside one call of compiled code.

    The matrix is KH·KW = 9 times the image. For the first stage of a ResNet, 128 images of 32x32x16 in float32, that is
    {9 * batch:.0f} MB beside {batch:.0f} MB of images, for one layer out of twenty. So `conv2d_forward` unrolls as many
    images at a time as fit into {parts.PART_BYTES / 2**20:.0f} MiB, but at least one, multiplies, and uses the space again.
""")

# %% [markdown]
# ## The experiment: what does a filter answer?
#
# A filter answers strongly where the picture looks like the filter, and where it is bright. The four filters below are *made by hand*, not trained. Each gets the mean of the three colours.

# %%
by_hand = {
    "blur": np.full((3, 3), 1 / 9),
    "left-right edge": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4,
    "up-down edge": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]) / 4,
    "spot": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]) / 8,
}
w = np.stack(
    [np.repeat(f[:, :, None], 3, axis=2) / 3 for f in by_hand.values()], axis=3
)  # (3, 3, 3, 4)
y, _ = ops.conv2d_forward(picture, w, pad=1)  # (1, 32, 32, 4)

# %%
show(
    answers(picture[0], by_hand, y[0]),
    "A picture of shapes10 and its grey version, four hand-made 3x3 filters (blur, left-right edge, up-down edge, spot), and below each its answer: a blurred picture, vertical outlines, horizontal outlines, points and outlines.",
)

# %% [markdown]
# Each of the four answers is one column of the same matrix product. Each edge filter answers most where the brightness changes in its direction, and a slanted outline shows in both; the spot filter sees whatever differs from its surroundings, noise included.

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
error = abs(by_loops - by_product).max()
claims(
    [
        [
            "A convolution needs a routine of its own",
            f"`im2col` and `@` agree with the loops to {error:.0e}",
            "no: one copy and one product do",
        ],
        [
            "im2col is free, it only rearranges",
            f"{megabytes[128][1]:.1f} MB for an image of {megabytes[128][0]:.1f} MB",
            "no: KH·KW times the memory, and the time to write it",
        ],
    ]
)

# %% [markdown]
# ## What this does not show
#
# - That im2col is the fastest way. It is a good one in NumPy; lesson 8 keeps a tile of the result in the processor's registers and never writes the matrix.
# - Ways that multiply less: Winograd's algorithm for small filters, the Fourier transform for large ones.
# - What *trained* filters look like. The four here were chosen because they are easy to read.

# %% [markdown]
# ## Exercises
#
# **Now.** What is the output size for a 32x32 image, a 3x3 filter, stride 2 and padding 1? Write your answer down, then look: `ops.conv2d_forward(np.zeros((1, 32, 32, 1)), np.zeros((3, 3, 1, 1)), stride=2, pad=1)[0].shape`. Does it agree with the equation?
#
# **To think about.** A 1x1 convolution has KH = KW = 1. Which of the copies of `im2col` are needed then? What would you do instead of copying?
#
# **For the weekend.** Write `conv2d_forward` without `sliding_window_view`: two loops over `p` and `q`, each adding one matrix product of a shifted image. `minires exercise start conv2d_forward` gives you a file with the signature, `minires exercise check conv2d_forward.py` looks for the smallest case in which you are wrong.

# %% [markdown]
# ## Where to read on
#
# - Chellapilla, Puri, Simard: *High Performance Convolutional Neural Networks for Document Processing*, section 3, 2006. The idea of unrolling.
# - Chetlur et al.: *cuDNN: Efficient Primitives for Deep Learning*, [arXiv 1410.0759](https://arxiv.org/abs/1410.0759), section 3, 2014. The same product without storing the matrix.
# - Dumoulin, Visin: *A guide to convolution arithmetic for deep learning*, [arXiv 1603.07285](https://arxiv.org/abs/1603.07285), chapter 2, 2016. All cases of size, stride and padding.
# - He, Zhang, Ren, Sun: *Deep Residual Learning*, [arXiv 1512.03385](https://arxiv.org/abs/1512.03385), section 4.2, 2015. The networks of 3x3 filters that this course builds.
# - [Lesson 2](02_backprop_and_checks.ipynb): gradients, and how to know that they are right.
