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
# # 8. How fast can Python be?
#
# This course trains networks of 56 layers, in Python, on a laptop. Lesson 1 timed a convolution written as plain loops: at that pace a ResNet-20 would need most of a minute, or more, for a single picture. Where does the time go, and how much of it can be had back without leaving Python?
#
# - **Time:** 60 minutes, and up to half a minute of compiling when it is run for the first time.
# - **You need:** [lesson 1](01_convolution.ipynb); Numba installed.
# - **Afterwards you can** say what bounds a computation, read a roofline, and explain why a kernel keeps a tile of its result in registers.

# %% jupyter={"source_hidden": true}
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
from draw_speed import ladder, roofline
from style import claims, say, seconds, show, source, table

from minires import get_ops, resnet
from minires.bench.nets import matrix_product_gflops
from minires.ops import prepare
from minires.ops.compiled import conv, register_tile, simd, tuning

ops, compiled = get_ops("numpy"), get_ops("numba")
prepare("numba")  # compiles the kernels, or finds them on the disk
rng = np.random.default_rng(8)
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

# %% [markdown]
# ## The surprise
#
# One layer of the first stage of a ResNet: 64 images of 32x32 with 16 channels, 16 filters of 3x3. Five ways to compute it, all from Python. The first two you know. The third and fourth are the seven loops again, compiled by Numba, with nothing changed but the order of the loops.

# %%
x = rng.standard_normal((64, 32, 32, 16)).astype(np.float32)
w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
xpad = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def seven_loops(x, w, y):
    (N, OH, OW, K), (KH, KW, C, _) = y.shape, w.shape
    for n, i, j, k in np.ndindex(N, OH, OW, K):
        for p, q, c in np.ndindex(KH, KW, C):
            y[n, i, j, k] += x[n, i + p, j + q, c] * w[p, q, c, k]


compiled_loops = numba.njit(seven_loops)  # not one letter changed


@numba.njit
def filters_innermost(x, w, y):
    (N, OH, OW, K), (KH, KW, C, _) = y.shape, w.shape
    for n, i, j in np.ndindex(N, OH, OW):
        for p, q, c in np.ndindex(KH, KW, C):
            for k in range(K):  # w and y are read in the order in which they lie in memory
                y[n, i, j, k] += x[n, i + p, j + q, c] * w[p, q, c, k]


# %%
flops = (
    2 * 9 * 16 * 16 * 32 * 32
)  # a multiplication and an addition for each weight and place, per image
expected, _ = ops.conv2d_forward(x, w, pad=1)
gflops = {}
y = np.zeros((1, 4, 4, 16), np.float32)
start = time.thread_time()
seven_loops(xpad[:1, :6, :6], w, y)  # a corner of one image; its rate stands for the rest
gflops["seven loops, Python"] = 2 * 9 * 16 * y.size / (time.thread_time() - start) / 1e9
assert np.allclose(y, expected[:1, :4, :4], rtol=1e-4, atol=1e-4)

# %%
for name, function in (
    ("seven loops, Numba", compiled_loops),
    ("filters innermost, Numba", filters_innermost),
):
    y = np.zeros((2, 32, 32, 16), np.float32)
    function(xpad[:2], w, y)
    assert np.allclose(y, expected[:2], rtol=1e-4, atol=1e-4)
    took = seconds(lambda f=function, y=y: f(xpad[:2], w, y), 15, time.thread_time)
    gflops[name] = 2 * flops / took / 1e9
assert np.allclose(compiled.conv2d_forward(x, w, pad=1)[0], expected, rtol=1e-4, atol=1e-4)
gflops["im2col and @, NumPy"] = (
    64 * flops / seconds(lambda: ops.conv2d_forward(x, w, pad=1), 15) / 1e9
)
gflops["the library's kernel, Numba"] = (
    64 * flops / seconds(lambda: compiled.conv2d_forward(x, w, pad=1), 15) / 1e9
)

# %%
show(
    ladder(gflops),
    "Bars of speed on a logarithmic axis for five ways to compute one convolution, from seven loops in Python, the slowest, "
    "over compiled loops and NumPy's matrix product to the library's compiled kernel, the fastest.",
)

# %% jupyter={"source_hidden": true}
fastest, slowest = max(gflops.values()), min(gflops.values())
say(f"""
    All five give the same numbers. From the slowest to the fastest it is a factor of **{fastest / slowest:,.0f}**.
    Compiling the loops as they stand gives {gflops["seven loops, Numba"] / gflops["seven loops, Python"]:,.0f}; putting the filters innermost another {gflops["filters innermost, Numba"] / gflops["seven loops, Numba"]:.1f};
    the library's kernel another {gflops["the library's kernel, Numba"] / gflops["filters innermost, Numba"]:.1f} on top, with {cores} cores where the loops use one, and with about a quarter of the multiplications (its speed counts those of the definition; see below).
    The three loops are timed by the processor time of their thread, the last two by the clock on the wall.
    Measured, like all times below, on the machine that last executed this notebook: {cores} cores, vectors of {tuning.VECTOR_BYTES} bytes.
""")

# %% [markdown]
# ## By hand
#
# A processor multiplies only what lies in its *registers*, a few dozen places. Everything else must be loaded first. Take a computation of two pixels and two filters, $y_{jk} = \sum_r x_{jr}\, w_{rk}$, and count.
#
# - **One product at a time:** to add $x_{jr} w_{rk}$ to $y_{jk}$, load $x_{jr}$ and load $w_{rk}$. Two loads for one multiplication.
# - **A tile of 2x2:** load $x_{1r}, x_{2r}$ and $w_{r1}, w_{r2}$. Four loads, and all four products of them are needed. One load for one multiplication.
# - **A tile of $R \times F$:** $R + F$ loads for $R\cdot F$ multiplications.
#
# So keep a tile of the *result* in the registers, and add outer products to it. Here is a whole tile, in eight lines of NumPy:

# %%
rows, i, j = (
    4,
    5,
    8,
)  # the tile: pixels j .. j + rows - 1 of output row i of the first image, all filters
tile = np.zeros((rows, 16), np.float32)
for p in range(3):
    line = xpad[0, i + p].reshape(-1)  # a row of the padded image: its channels follow each other
    for r in range(3 * 16):  # the values under one row of the kernel are neighbours in memory
        values = line[(j + np.arange(rows)) * 16 + r]  # one for each window
        tile += np.outer(values, w[p].reshape(48, 16)[r])
assert np.allclose(tile, expected[0, i, j : j + rows], rtol=1e-4, atol=1e-4)

tile_rows, vectors = tuning.PIXEL_TILE
width = vectors * simd.lane_count(np.float32)
table(
    ["tile", "loads", "multiplications", "multiplications per load"],
    [
        [f"{R} x {F}", R + F, R * F, f"{R * F / (R + F):.2g}"]
        for R, F in ((1, 1), (2, 2), (4, 4), (tile_rows, width))
    ],
)

# %% [markdown]
# The last row is the tile that the library uses on this machine. Its filters are loaded a whole *vector* at a time (4 to 16 numbers that one instruction handles together), so the number of *instructions* is smaller still. It cannot grow at will: when the tile does not fit into the registers any more, the compiler puts parts of it into memory, and the speed breaks down; [LOG.md](../LOG.md) has measurements. `PIXEL_TILE` in `minires/ops/compiled/tuning.py` is the tile.

# %% [markdown]
# ## The equation
#
# How fast can a computation be at all? It does $F$ operations, and moves $D$ bytes between memory and processor. Call $I = F/D$ its *intensity*. If the processor does at most $P$ operations a second, and the memory delivers at most $B$ bytes a second, then
#
# $$\text{speed} \;\le\; \min(P,\; I\cdot B).$$
#
# - $P$, *peak*: we take NumPy's best large matrix product, which comes near to it;
# - $B$, *bandwidth*: we take the best large copy;
# - $I$, in operations per byte: a ReLU reads 4 bytes, writes 4 and does one comparison; a convolution does hundreds of multiplications with every value it reads.
#
# Drawn against $I$ with logarithmic axes, the bound is a slope that ends in a flat roof: a *roofline* (Williams, Waterman, Patterson 2009).

# %% [markdown]
# ## The code
#
# The tile of the compiled backend is the eight lines above, with the tile as a value of its own that Numba keeps in registers:

# %%
source(conv._filter_pixels)

# %% [markdown]
# Layers with a stride, and kernels of other sizes, are computed in this way. For 3x3 at stride 1, which is most of a ResNet and the layers measured one by one in this lesson, the library first adds up neighbouring pixels, and neighbouring weights, in a way that leaves 36 multiplications of 144 (Winograd's algorithm); what is left are matrix products again, computed from the same tiles.
#
# `tile_outer` is where the vectors are. It is not Python that runs, but Python that *writes instructions* for LLVM, the compiler below Numba: load a row of filters, spread one pixel over a vector, multiply and add.

# %%
source(register_tile.tile_outer)

# %% [markdown]
# Why not leave that to the compiler? The ladder shows what it made of the plain loops on one core. Written in this way, the code says what the registers hold, and nothing is left to the compiler's analysis.

# %% [markdown]
# ## The experiment: under the roof


# %%
def copy_bandwidth(bytes_=1 << 26):
    """Bytes read and written a second by a large copy, a thread for each core."""
    a, b = np.ones((2, cores, bytes_ // 8 // cores))
    with ThreadPoolExecutor(cores) as pool:
        return 2 * a.nbytes / seconds(lambda: list(pool.map(np.copyto, b, a)), repeats=20)


peak, bandwidth = matrix_product_gflops(), copy_bandwidth() / 1e9
points = []  # name, whether compiled, operations per byte, GFLOP/s
for C, side in ((16, 32), (32, 16), (64, 8)):
    image, filters = (
        rng.standard_normal((64, side, side, C)).astype(np.float32),
        rng.standard_normal((3, 3, C, C)).astype(np.float32),
    )
    work, moved = 2 * image.size * 9 * C, 2 * image.nbytes + filters.nbytes
    for backend in (ops, compiled):
        t = seconds(lambda f=backend.conv2d_forward, a=image, b=filters: f(a, b, pad=1), repeats=20)
        points.append((f"conv {C}", backend is compiled, work / moved, work / t / 1e9))
large, ones = rng.standard_normal((1024, 32, 32, 16)).astype(np.float32), np.ones(16, np.float32)
for backend in (ops, compiled):
    t = seconds(lambda f=backend.relu_forward: f(large))
    points.append(("ReLU", backend is compiled, 1 / 8, large.size / t / 1e9))
    t = seconds(lambda f=backend.batchnorm_forward: f(large, ones, ones, 1e-5))
    points.append(("batch norm", backend is compiled, 7 / 8, 7 * large.size / t / 1e9))

# %%
show(
    roofline(points, peak, bandwidth),
    "A roofline: a slope of memory bandwidth that ends in a flat roof of peak arithmetic. ReLU and batch norm lie under the slope, "
    "three convolutions near the flat part, on either side of it; circles are the compiled backend, squares NumPy.",
)

# %%
share = {
    (name, is_compiled): rate / min(peak, at * bandwidth) for name, is_compiled, at, rate in points
}
table(
    ["op", "NumPy backend, of its bound", "compiled backend, of its bound"],
    [
        [name, f"{share[name, False]:.0%}", f"{share[name, True]:.0%}"]
        for name in dict.fromkeys(p[0] for p in points)
    ],
)

# %% [markdown]
# Read the figure twice. Left: a faster multiplier would not help ReLU or batch norm, they wait for memory; what helps is to touch memory fewer times, and the compiled batch norm does it in few passes where NumPy writes an array for every operation of the formula. Right: convolutions have all the data they need, and there the instructions decide.
#
# The operations of batch norm are counted as seven per value, and bytes as if each array were read and written once. The slope is a measured copy, not a law of nature: a kernel that moves memory better than `copyto` may lie a little above it. A convolution is counted by its definition; since the library's 3x3 kernel multiplies less than that, it may lie *above* the roof.

# %% [markdown]
# ## The experiment: threads and bits
#
# Sums in floating point depend on their order. If each thread adds up its own share, then two threads give other bits than one, and a run ends otherwise with another number of threads. The compiled kernels split the work into chunks by the *arguments* alone, and add the chunks in a fixed order.

# %%
y, cache = compiled.conv2d_forward(x, w, pad=1)
everything = numba.get_num_threads()
results, times = {}, {}
for threads in sorted({1, everything}):
    numba.set_num_threads(threads)
    results[threads] = compiled.conv2d_backward(y, cache)
    times[threads] = seconds(lambda: compiled.conv2d_backward(y, cache), repeats=5)
numba.set_num_threads(everything)
assert all(a.tobytes() == b.tobytes() for a, b in zip(results[1], results[everything], strict=True))

total = np.float32(0)
for value in y.ravel()[:4096]:
    total += value
pairwise = y.ravel()[:4096].sum()
table(
    ["threads", "backward pass, ms", "bits of dx and dw"],
    [[n, f"{1e3 * t:.1f}", "the same"] for n, t in times.items()],
)

# %% jupyter={"source_hidden": true}
say(
    f"The same 4096 numbers, added from left to right and in NumPy's order, in float32: {total:.6f} and {pairwise:.6f}."
)

# %% [markdown]
# ## The experiment: a second worker
#
# The paper trained on two GPUs. Cut a batch into $S$ parts; worker $k \bmod R$ gets part $k$, and all $R$ workers exchange their gradients. A step then takes the time of computing, divided by $R$, plus the time of the exchange. More workers compute faster, but the exchange takes longer: through one worker in the middle, $(R - 1)(R + 1)$ gradients pass in each step. `minires bench --ranks 1,2` measures both times and predicts those of 8 and 64 workers.
#
# In which order are the gradients added? Here are the gradients of four quarters of a batch, added in the order of the quarters, and in the order in which workers might have finished.

# %%
quarters = [
    compiled.conv2d_backward(*compiled.conv2d_forward(images, w, pad=1))[1]
    for images in np.split(x, 4)
]
in_order = quarters[0] + quarters[1] + quarters[2] + quarters[3]
as_they_finish = quarters[2] + quarters[0] + quarters[3] + quarters[1]
differ = (in_order != as_they_finish).mean()
say(f"Elements of the gradient that differ: {100 * differ:.0f} %.")
assert differ > 0
np.testing.assert_allclose(in_order, as_they_finish, rtol=0, atol=1e-6 * np.abs(in_order).max())

# %% [markdown]
# In a plain network such a difference grows with every step ([lesson 6](06_residual_learning.ipynb)). So minires gathers the parts and adds them in their order, and any number of workers ends with the same bits. The number of parts does matter: batch norm takes its statistics over one part, as on the paper's two GPUs.

# %% [markdown]
# ## The experiment: a whole training step

# %%
labels = rng.integers(0, 10, 64)
batch = rng.standard_normal((64, 32, 32, 3)).astype(np.float32)
images_per_second = {}
for backend in ("numpy", "numba"):
    net = resnet(20).use(backend)

    def step(net=net):
        _, dlogits = net.ops.softmax_cross_entropy(net.forward(batch, train=True), labels)
        net.backward(dlogits)

    images_per_second[backend] = 64 / seconds(step, repeats=3)
table(
    ["ResNet-20, forward and backward", "images a second"],
    [[k, f"{v:.0f}"] for k, v in images_per_second.items()],
)

# %% [markdown]
# How does that compare with a framework? One notebook cell would not be fair: other threads, other memory, a cold cache. `minires bench` gives each contender its own process and lets them run in turn. Its record is shown here if there is one.

# %% jupyter={"source_hidden": true}
record = Path("bench.json")
command = "minires bench --peer torch,torch.compile --out lessons/bench.json"
if record.exists():
    timings = json.loads(record.read_text(encoding="utf-8"))["timings"]
    rates = [(t["net"], t["contender"], t["batch_size"] / np.array(t["train"])) for t in timings]
    rows_ = [
        [net, who, f"{np.median(r):.0f}", f"{r.min():.0f}-{r.max():.0f}"] for net, who, r in rates
    ]
    table(["network", "contender", "training, images/s (median)", "range"], rows_)
    say(f"Recorded by `{command}` on the machine that the file names.")
else:
    say(
        f"There is no record beside this notebook. Make one, in some minutes on a machine that does nothing else: `{command}`. The README's table *Speed* is such a record."
    )

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "Python is slow",
            f"{fastest / slowest:,.0f} times between two programs in Python",
            "loops in the interpreter are; Python that calls or writes compiled code is not",
        ],
        [
            "A compiler makes fast code from plain loops",
            f"on one core: {gflops['seven loops, Numba']:.2g} GFLOP/s, with the filters innermost {gflops['filters innermost, Numba']:.2g}; a core's share of the peak is {peak / cores:.0f}",
            "in part: the order of the loops is left to you, and so are vectors and registers",
        ],
        [
            "More threads change results",
            "one and all threads: the same bits",
            "only if the work is split by threads",
        ],
    ]
)

# %% [markdown]
# A fourth one, "to see degradation one needs a GPU", is answered by the first picture of the [README](../README.md): four networks, up to 56 layers, on CIFAR-10, on two cores. `minires degradation` shows it in some minutes.

# %% [markdown]
# ## What this does not show
#
# - The speed on *your* machine, until you run it. Vectors of 64 bytes, more cores or another memory move every point of the roofline.
# - That Numba is needed for such kernels, or Python. C with intrinsics does the same; here everything stays in one language.
# - How Winograd's algorithm comes to its 36 multiplications (`minires/ops/compiled/winograd.py` has the equations), and graphics processors.

# %% [markdown]
# ## Exercises
#
# **Now.** In the eight lines, change `rows` to 1 and to 16. The result must not change. Which of the two needs fewer loads per multiplication?
#
# **To think about.** Batch norm needs the mean before it can subtract it. How many times must it read its input? Can the variance be had in the same pass as the mean, and what does that cost in precision?
#
# **For the weekend.** Write `conv2d_forward` in Numba with a tile of 4 pixels by 16 filters held in a small local array, without the intrinsics of `simd.py`. How near do you come to the library's kernel, which multiplies once where you do it four times, and does the compiler keep your tile in registers?

# %% [markdown]
# ## Where to read on
#
# - Williams, Waterman, Patterson: *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, Communications of the ACM 52(4), 2009.
# - Goto, van de Geijn: *Anatomy of High-Performance Matrix Multiplication*, ACM Transactions on Mathematical Software 34(3), sections 3 to 5, 2008. Tiles for registers and caches.
# - Georganas et al.: *Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures*, [arXiv 1808.05567](https://arxiv.org/abs/1808.05567), section II, 2018.
# - Lavin, Gray: *Fast Algorithms for Convolutional Neural Networks*, [arXiv 1509.09308](https://arxiv.org/abs/1509.09308), section 4, 2015. Winograd's algorithm.
# - [Lesson 1](01_convolution.ipynb), with other eyes.
