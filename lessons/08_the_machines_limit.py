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
# This course trains networks of 56 layers, in Python, on a laptop. Lesson 1 timed a convolution written as plain loops: at that pace a ResNet-20 would need half a minute or more for a single picture. Where does the time go, and how much of it can be won back without leaving Python?
#
# - **Time:** 60 minutes, and up to half a minute of compiling when it is run for the first time.
# - **You need:** [lesson 1](01_convolution.ipynb) for the convolution, [lesson 4](04_batch_norm.ipynb) for batch norm; Numba installed.
# - **Afterwards you can** say what bounds a computation, read a roofline, and explain why a fast routine keeps a tile of its result in registers.

# %% jupyter={"source_hidden": true}
import itertools
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
from minires.ops.compiled import conv, simd, tuning
from minires.runs.provenance import provenance

ops, compiled = get_ops("numpy"), get_ops("numba")
prepare("numba")  # compiles the routines, or finds them on the disk
rng = np.random.default_rng(8)
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

# %% [markdown]
# ## The surprise
#
# One layer of the first stage of a ResNet: 64 images of 32x32 with 16 channels, 16 filters of 3x3. Five ways to compute it, all from Python. The seven loops and the unrolled product (im2col) you know from lesson 1. Two others are the loops compiled by Numba: once as they stand, and once with the filters in the innermost loop. The last one is the library's compiled routine.

# %%
x = rng.standard_normal((64, 32, 32, 16)).astype(np.float32)
w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
xpad = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def seven_loops(x, w, y):
    (N, OH, OW, K), (KH, KW, C, _) = y.shape, w.shape
    for n, i, j, k in np.ndindex(N, OH, OW, K):
        for p, q, c in np.ndindex(KH, KW, C):
            y[n, i, j, k] += x[n, i + p, j + q, c] * w[p, q, c, k]


compiled_loops = numba.njit(seven_loops)  # as they stand


@numba.njit
def filters_innermost(x, w, y):
    (N, OH, OW, K), (KH, KW, C, _) = y.shape, w.shape
    for n, i, j in np.ndindex(N, OH, OW):
        for p, q, c in np.ndindex(KH, KW, C):
            for k in range(K):  # w and y are read in the order in which they lie in memory
                y[n, i, j, k] += x[n, i + p, j + q, c] * w[p, q, c, k]


# %% [markdown]
# All speeds of convolutions in this lesson have one definition: the multiplications and additions of the definition, one of each for every weight and place, divided by the shortest of many times. The layers are measured once, here, in five rounds; both figures show these numbers.

# %%
flops = 2 * w.size * 32 * 32  # per image
expected, _ = ops.conv2d_forward(x, w, pad=1)
layers = {"conv 16": (x, w)}
for C, side in ((32, 16), (64, 8)):
    layers[f"conv {C}"] = (
        rng.standard_normal((64, side, side, C)).astype(np.float32),
        rng.standard_normal((3, 3, C, C)).astype(np.float32),
    )
speed = {}  # (layer, whether compiled) -> GFLOP/s
for _, (name, (image, filters)), backend in itertools.product(
    range(5), layers.items(), (ops, compiled)
):
    spent = seconds(lambda f=backend.conv2d_forward, a=image, b=filters: f(a, b, pad=1), 20)
    rate = 2 * filters.size * image[..., 0].size / spent / 1e9
    speed[name, backend is compiled] = max(rate, speed.get((name, backend is compiled), 0))

# %%
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
gflops["im2col and @, NumPy"] = speed["conv 16", False]
gflops["the library, Numba"] = speed["conv 16", True]

# %%
show(
    ladder(gflops),
    "Bars of speed on a logarithmic axis for five ways to compute one convolution, from seven loops in Python, the slowest, "
    "over compiled loops and NumPy's matrix product to the library's compiled routine, the fastest.",
)

# %% jupyter={"source_hidden": true}
fastest, slowest = max(gflops.values()), min(gflops.values())
here = provenance()
machine, versions = here["machine"], here["versions"]
say(f"""
    All five give the same numbers, up to rounding. From the slowest to the fastest it is a factor of **{fastest / slowest:,.0f}**.
    Compiling the loops as they stand gives {gflops["seven loops, Numba"] / gflops["seven loops, Python"]:,.0f}; putting the filters innermost another {gflops["filters innermost, Numba"] / gflops["seven loops, Numba"]:.1f};
    the library's routine another {gflops["the library, Numba"] / gflops["filters innermost, Numba"]:.1f} on top, with {cores} cores where the loops use one, and with about a quarter of the multiplications (its speed counts those of the definition; see below).
    The three loops are timed by the processor time of their thread, the other two by the clock on the wall.
    Measured, like all times below, on the machine that last executed this notebook: {machine["processor"]}, {cores} cores, vectors of {tuning.VECTOR_BYTES} bytes; Numba {versions["numba"]}, NumPy {versions["numpy"]}. Where other programs run at the same time, the two that use all cores are slower than they could be.
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
    for r in range(3 * 16):  # the values under one row of the filter are neighbours in memory
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
# $$\text{time} \ge \frac FP, \qquad \text{time} \ge \frac DB, \qquad\text{so}\qquad \text{speed} = \frac{F}{\text{time}} \;\le\; \min(P,\; I\cdot B).$$
#
# - $P$, *peak*: we take NumPy's best large matrix product, which comes near to it;
# - $B$, *bandwidth*: we take the better of two, NumPy's copy of a large array and the compiled ReLU, which reads and writes as a copy does;
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
# Layers with a stride, and filters of other sizes, are computed in this way. For 3x3 at stride 1, which is most of a ResNet and the layers measured one by one in this lesson, the library first adds up neighbouring pixels, and neighbouring weights, in a way that leaves 36 multiplications of 144 (Winograd's algorithm); what is left are matrix products again, computed from the same tiles. The detour costs precision:

# %% jupyter={"source_hidden": true}
exact, _ = ops.conv2d_forward(x[:4].astype(float), w.astype(float), pad=1)
lost = {
    backend: abs(get_ops(backend).conv2d_forward(x[:4], w, pad=1)[0] - exact).max()
    / abs(exact).max()
    for backend in ("numpy", "numba")
}
say(
    f"Largest error in float32, as a share of the largest value: {lost['numpy']:.0e} for im2col and @, {lost['numba']:.0e} for Winograd's algorithm."
)
assert lost["numba"] < 1e-5

# %% [markdown]
# `tile_outer` is where the vectors are. It is not Python that runs, but Python that *writes instructions* for LLVM, the compiler below Numba: load a row of filters, spread one pixel over a vector, multiply and add. It stands in `minires/ops/compiled/register_tile.py`, and is of interest to those who know LLVM.

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


peak = max(matrix_product_gflops() for _ in range(3))
large = rng.standard_normal((1024, 32, 32, 16)).astype(np.float32)
relu = {  # seconds
    backend is compiled: seconds(lambda f=backend.relu_forward: f(large), 20)
    for backend in (ops, compiled)
}
bandwidth = max(copy_bandwidth(), 2 * large.nbytes / relu[True]) / 1e9
points = []  # name, whether compiled, operations per byte, GFLOP/s
for name, (image, filters) in layers.items():
    intensity = 2 * filters.size * image[..., 0].size / (2 * image.nbytes + filters.nbytes)
    points += [(name, fast, intensity, speed[name, fast]) for fast in (False, True)]
ones = np.ones(16, np.float32)
for backend in (ops, compiled):
    points.append(
        ("ReLU", backend is compiled, 1 / 8, large.size / relu[backend is compiled] / 1e9)
    )
    t = seconds(lambda f=backend.batchnorm_forward: f(large, ones, ones, 1e-5), 10)
    points.append(("batch norm", backend is compiled, 7 / 8, 7 * large.size / t / 1e9))

# %%
show(
    roofline(points, peak, bandwidth),
    "A roofline: a slope of memory bandwidth that ends in a flat roof of peak arithmetic. ReLU and batch norm lie under the slope, "
    "three convolutions at the flat part; circles are the compiled backend, squares NumPy. "
    + "; ".join(
        f"{name}, {'compiled' if fast else 'NumPy'} {rate:.3g}" for name, fast, _, rate in points
    )
    + " GFLOP/s.",
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

# %% jupyter={"source_hidden": true}
above = [f"{name} ({value:.0%})" for (name, fast), value in share.items() if fast and value > 1]
say(f"""
    {"Above the bound: " + ", ".join(above) + "." if above else "No point lies above its bound."} The bounds are measured, and so no laws of nature. Bytes are counted as if each array were read and written once; most processors also read the memory that they are about to overwrite, in a copy as in a ReLU. A convolution is counted by its definition; since the library's 3x3 routine multiplies less often than that, it may lie above the flat roof.
""")

# %% [markdown]
# Read the figure twice. Left: a faster multiplier would not help ReLU or batch norm, they wait for memory; what helps is to touch memory fewer times, and the compiled batch norm does it in few passes where NumPy writes an array for every operation of the formula. Right: convolutions have all the data they need, and there the instructions decide.
#
# The operations of batch norm are counted as seven per value.

# %% [markdown]
# ## The experiment: threads and bits
#
# Sums in floating point depend on their order. If each thread adds up its own share, then two threads give other bits than one, and a run ends differently with another number of threads. The compiled routines split the work into chunks by the *arguments* alone, and add the chunks in a fixed order.

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
# The paper trained on two GPUs. Cut a batch into $S$ parts; worker $k \bmod R$ gets part $k$, and all $R$ workers exchange their gradients. A step then takes the time of computing, divided by $R$, plus the time of the exchange. More workers compute faster, but the exchange takes longer. To add the parts in one fixed order, one worker in the middle receives the gradients of the $R - 1$ others and sends all $R$ to each of them: $(R - 1)(R + 1)$ gradients pass in each step. (Adding in the middle and sending back the sum would need $2(R - 1)$.) `minires bench --ranks 1,2` measures both times and predicts those of 8 and 64 workers.
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
# In a plain network such a difference grows with every step ([lesson 6](06_residual_learning.ipynb)). So minires gathers the parts and adds them in their order, and any number of workers ends with the same bits. The number of parts does matter: batch norm takes its statistics over one part, as is usual with several GPUs.

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
    bench = json.loads(record.read_text(encoding="utf-8"))
    timings, then = bench["timings"], bench["provenance"]
    rates = [(t["net"], t["contender"], t["batch_size"] / np.array(t["train"])) for t in timings]
    rows_ = [
        [net, who, f"{np.median(r):.0f}", f"{r.min():.0f}-{r.max():.0f}"] for net, who, r in rates
    ]
    table(["network", "contender", "training, images/s (median)", "range"], rows_)
    with_ = ", ".join(f"{k} {v}" for k, v in then["versions"].items())
    say(
        f"Recorded by `{command}` on another day than the cells above: {then['machine']['processor']}, {then['machine']['cores']} cores, as many threads for each contender; {with_}. {'' if 'torch' in then['versions'] else 'The version of PyTorch was not recorded. '}The order of the contenders is that of this machine: on 16 cores PyTorch was faster (README, *Speed*)."
    )
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
# - That Numba is needed for such routines, or Python. C with intrinsics does the same; here everything stays in one language.
# - How Winograd's algorithm comes to its 36 multiplications (`minires/ops/compiled/winograd.py` has the equations), and graphics processors.

# %% [markdown]
# ## Exercises
#
# **Now.** In the eight lines, change `rows` to 1 and to 16. The result must not change. Which of the two needs fewer loads per multiplication?
#
# **To think about.** Batch norm needs the mean before it can subtract it. How many times must it read its input? Can the variance be had in the same pass as the mean, and what does that cost in precision?
#
# **For the weekend.** Write `conv2d_forward` in Numba with a tile of 4 pixels by 16 filters held in a small local array, without the intrinsics of `simd.py`. How near do you come to the library's routine, which needs a quarter of the multiplications, and does the compiler keep your tile in registers?

# %% [markdown]
# ## Where to read on
#
# - Williams, Waterman, Patterson: *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, Communications of the ACM 52(4), 2009.
# - Goto, van de Geijn: *Anatomy of High-Performance Matrix Multiplication*, ACM Transactions on Mathematical Software 34(3), sections 3 to 5, 2008. Tiles for registers and caches.
# - Georganas et al.: *Anatomy of High-Performance Deep Learning Convolutions on SIMD Architectures*, [arXiv 1808.05567](https://arxiv.org/abs/1808.05567), section II, 2018.
# - Lavin, Gray: *Fast Algorithms for Convolutional Neural Networks*, [arXiv 1509.09308](https://arxiv.org/abs/1509.09308), section 4, 2015. Winograd's algorithm.
# - [Lesson 1](01_convolution.ipynb), read again.
