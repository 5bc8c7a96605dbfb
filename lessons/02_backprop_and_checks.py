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
# # 2. How do you know that a gradient is right?
#
# A forward pass can be compared with another program, number by number. A wrong backward pass often trains, only worse, and nobody notices. The usual remedy is to compare it with a numerical derivative. But that check can be fooled too, and how easily is the subject of this lesson.
#
# - **Time:** 90 minutes; stop before *mistakes against checks* to make it two sessions.
# - **You need:** lesson 1 for the names, derivatives, the chain rule for functions of one variable.
# - **Afterwards you can** derive a backward pass, choose step, precision and cotangent for checking it, and say which mistakes a given check cannot see.

# %%
import inspect

import numpy as np
from draw_checks import chain, kink, step_sizes
from style import claims, say, show, source, table
from weak import weak_checks

from minires import get_ops, gradcheck
from minires.ops import numpy_ops

ops = get_ops("numpy")
rng = np.random.default_rng(2)

# %% [markdown]
# ## The surprise
#
# *Batch normalisation* (lesson 4) shifts and scales the values of each channel so that they have mean `beta` and standard deviation `gamma`. Its forward pass returns the output first and, last, its *cache*: what the backward pass needs.
#
# `broken` takes a function of the library and changes one fragment of its source. With it we make a batch norm whose backward pass returns zeros for the images: it will never train anything below it.


# %%
def broken(function, old, new):
    """The library's function with one fragment of its source replaced."""
    text = inspect.getsource(function)
    assert text.count(old) == 1
    namespace = dict(vars(numpy_ops))
    exec(text.replace(old, new), namespace)
    return namespace[function.__name__]


formula = "gamma * inv_std * (direct + through_mean + through_var)"
backward_of_zeros = broken(ops.batchnorm_backward, formula, "0 * dy")


# %% [markdown]
# And here is a numerical check as one writes it the first time: wiggle every element of the input by a small $h$, watch a number that the output gives, and compare the slope with what backward said. The number to watch is $\langle dy, y\rangle$, the sum of all outputs weighed by some numbers $dy$, called the *cotangent*. The $dy$ that comes to mind first is all ones: then it is the sum of the outputs.


# %%
def errors(forward, backward, inputs, dy, h=1e-5):
    """Error of each element, relative to the largest of its array (or to 1 if that is larger)."""
    gradients = backward(dy, forward(*inputs)[-1])
    found = []
    for k, (a, g) in enumerate(
        zip(
            inputs,
            gradients if isinstance(gradients, tuple) else (gradients,),
            strict=True,
        )
    ):
        numeric = np.zeros(a.shape)
        for i in np.ndindex(a.shape):
            up, down = a.copy(), a.copy()
            up[i], down[i] = a[i] + h, a[i] - h
            y_up, y_down = (
                forward(*inputs[:k], moved, *inputs[k + 1 :])[0] for moved in (up, down)
            )
            numeric[i] = (dy * (y_up - y_down)).sum() / (2 * h)
        found.append(abs(g - numeric) / max(1, abs(numeric).max()))
    return found


# %%
def norm(x, gamma, beta):
    return ops.batchnorm_forward(x, gamma, beta, 1e-5)


inputs = [
    rng.standard_normal((4, 3, 3, 2)),
    rng.standard_normal(2),
    rng.standard_normal(2),
]
cotangents = {
    "all ones": np.ones((4, 3, 3, 2)),
    "random": rng.standard_normal((4, 3, 3, 2)),
}
worst = {
    (which, name): max(e.max() for e in errors(norm, backward, inputs, dy))
    for which, backward in (
        ("right", ops.batchnorm_backward),
        ("zeros", backward_of_zeros),
    )
    for name, dy in cotangents.items()
}
table(
    ["backward of batch norm", "error with dy all ones", "error with dy random"],
    [
        [name, f"{worst[key, 'all ones']:.0e}", f"{worst[key, 'random']:.0e}"]
        for key, name in (("right", "the library's"), ("zeros", "returns dx = 0"))
    ],
)
assert worst["zeros", "all ones"] < 1e-8 < 1e-2 < worst["zeros", "random"]

# %% [markdown]
# With ones, a backward pass that does nothing at all is as right as the true one. It is not a weakness of the arithmetic: batch norm gives every channel the mean `beta`, whatever the input, so the sum of its outputs *never moves*, and its true gradient **is** zero. The check asked a question to which "0" is the right answer.

# %% [markdown]
# ## By hand
#
# Two layers, one number each. Forward, from left to right: $a = w_1 x$, then $h = \max(a, 0)$, then $s = w_2 h$, and the loss $L = (s - t)^2/2$ with the target $t = 1$. Take $x = 2$, $w_1 = \tfrac12$, $w_2 = 3$. Backward, from right to left: each step multiplies what arrives by its own slope.

# %%
x, w1, w2, t = 2.0, 0.5, 3.0, 1.0
a = w1 * x
h = max(a, 0.0)
s = w2 * h
L = (s - t) ** 2 / 2
ds = s - t  # slope of (s - t)^2 / 2
dw2, dh = ds * h, ds * w2
da = dh * (a > 0)
dw1, dx = da * x, da * w1

# %%
stations = [("x", x, dx), ("a", a, da), ("h", h, dh), ("s", s, ds), ("L", L, 1.0)]
steps = ["times w1", "max(a, 0)", "times w2", "(s - t)²/2"]
show(
    chain(stations, steps, weights={0: ("dw1", dw1), 2: ("dw2", dw2)}),
    "A chain x, a, h, s, L with the values 2, 1, 1, 3, 2 above and the gradients dx 3, da 6, dh 6, ds 2, dL 1 below; "
    "the weights get dw1 12 and dw2 2.",
)


# %%
def loss(x, w1, w2):
    return (w2 * max(w1 * x, 0.0) - t) ** 2 / 2


by_hand, step = np.array([dx, dw1, dw2]), 1e-5
point = np.array([x, w1, w2])
wiggled = np.array(
    [(loss(*(point + step * e)) - loss(*(point - step * e))) / (2 * step) for e in np.eye(3)]
)
assert np.allclose(by_hand, wiggled, rtol=1e-9)

# %% jupyter={"source_hidden": true}
say(f"""
    Read the red numbers from the right: ds = s - t = {ds:g}. A change of h changes s {w2:g} times as much, so dh = {ds:g}·{w2:g} = {dh:g}.
    The ReLU passes it on because a is positive. x enters times w1, so dx = {da:g}·{w1:g} = **{dx:g}**, and w1 enters times x, so dw1 = {da:g}·{x:g} = **{dw1:g}**.
    Wiggling each of the three by {step:g} gives {wiggled[0]:.6f}, {wiggled[1]:.6f} and {wiggled[2]:.6f}.
""")

# %% [markdown]
# Now two inputs and two outputs: $y_1 = 2a + b$ and $y_2 = ab$, at $a = 3$, $b = 4$. The four slopes make a matrix, the *Jacobian*. Its rows belong to the outputs, its columns to the inputs:
#
# $$J = \begin{pmatrix} \partial y_1/\partial a & \partial y_1/\partial b \\ \partial y_2/\partial a & \partial y_2/\partial b \end{pmatrix} = \begin{pmatrix} 2 & 1 \\ b & a \end{pmatrix} = \begin{pmatrix} 2 & 1 \\ 4 & 3 \end{pmatrix} .$$
#
# - **Forward, along a row.** Move the inputs by a small $v = (v_a, v_b)$: the outputs move by $Jv = (2v_a + v_b,\; 4v_a + 3v_b)$.
# - **Backward, down a column.** The loss has the gradient $dy = (1, 10)$ with respect to the outputs. The input $a$ is used **twice**, in $y_1$ and in $y_2$, and so its gradient has two terms: $da = 2\cdot 1 + 4\cdot 10 = 42$. Likewise $db = 1\cdot 1 + 3\cdot 10 = 31$. Together: $J^{\mathsf T} dy = (42, 31)$.
#
# That is the **branch rule**: where a value goes two ways forward, its gradient is the *sum* of what comes back on both.


# %%
def two_outputs(a, b):
    return np.array([2 * a + b, a * b])


J = np.array([[2.0, 1.0], [4.0, 3.0]])
cotangent, v = np.array([1.0, 10.0]), np.array([0.5, -2.0])
moved = (two_outputs(*(np.array([3, 4]) + 1e-6 * v)) - two_outputs(3, 4)) / 1e-6
assert np.allclose(J @ v, moved, rtol=1e-5)
assert np.array_equal(J.T @ cotangent, [42, 31])
assert np.isclose((J.T @ cotangent) @ v, cotangent @ (J @ v))  # the equation of this lesson

# %% [markdown]
# ## The equation
#
# Let $y = f(x)$ be any op, with many inputs and many outputs, and $J$ the matrix of its slopes, $J_{ij} = \partial y_i / \partial x_j$. The loss sees $x$ through $y$ alone, so
#
# $$dx \;=\; J^{\mathsf T} dy .$$
#
# - $dy$, the *cotangent*, is the gradient of the loss with respect to the output: it arrives from above, one number per output;
# - $dx$ is the gradient with respect to the input, one number per input;
# - $J$ is never written down. A backward pass computes the product with it.
#
# To check the product we need no $J$ either. For any direction $v$ in which the input may move,
#
# $$\langle dx, v\rangle \;=\; \langle dy, J v\rangle \;\approx\; \Big\langle dy,\; \frac{f(x + h v) - f(x - h v)}{2h}\Big\rangle .$$
#
# The right side is a *central difference*. If $v$ moves one element only, the left side is that element of $dx$. If $v$ moves all elements at once, one comparison looks at all of them. And $dy$ must be random: it decides which combinations of the rows of $J$ are looked at, and with ones only their sum is.

# %% [markdown]
# With this a backward pass can be derived, one element at a time. The **linear layer** has $N$ rows of $C$ inputs and $K$ outputs:
#
# $$y_{nk} = \sum_{c} x_{nc}\, w_{ck} + b_k .$$
#
# - Where is $w_{ck}$ used? In $y_{nk}$ for every row $n$, each time with the slope $x_{nc}$. The branch rule adds up: $dw_{ck} = \sum_n x_{nc}\, dy_{nk}$, which is the matrix product $dw = x^{\mathsf T} dy$.
# - Where is $x_{nc}$ used? In $y_{nk}$ for every output $k$, with the slope $w_{ck}$: $dx_{nc} = \sum_k dy_{nk}\, w_{ck}$, or $dx = dy\, w^{\mathsf T}$.
# - $b_k$ is used in every row, with the slope 1: $db_k = \sum_n dy_{nk}$.

# %%
rows, weights, from_above = rng.standard_normal((3, 2, 2))  # N = C = K = 2
_, cache = ops.linear_forward(rows, weights, np.zeros(2))
dx_linear, dw_linear, db_linear = ops.linear_backward(from_above, cache)
assert np.isclose(dw_linear[0, 1], sum(rows[n, 0] * from_above[n, 1] for n in (0, 1)))
assert np.allclose(dw_linear, rows.T @ from_above)
assert np.allclose(dx_linear, from_above @ weights.T)
assert np.allclose(db_linear, from_above.sum(axis=0))
source(ops.linear_backward, ops.relu_backward)

# %% [markdown]
# ## The code
#
# This is the library's answer to the surprise. Before it believes any comparison it asks whether the numeric gradient is distinguishable from 0 at all.

# %%
source(gradcheck.Check.refuse_vacuous)


# %%
def complaint(*args, **kwargs):
    """Return the error that the checker raises."""
    try:
        gradcheck.check_op(*args, **kwargs)
    except gradcheck.GradientError as error:
        return error
    raise AssertionError("the checker has no objection")


with_ones = complaint(ops.batchnorm_forward, backward_of_zeros, *inputs, eps=1e-5, cotangent=1.0)
with_random = complaint(ops.batchnorm_forward, backward_of_zeros, *inputs, eps=1e-5)
assert (with_ones.kind, with_random.kind) == ("vacuous", "wrong")
say(f"**dy all ones:** {with_ones}\n\n**dy random:** {with_random}")

# %% [markdown]
# With ones the checker refuses to vouch for anything. With a random cotangent it names a wrong element, the first of those it looked at. The true backward passes, and the report says how well:

# %%
gradcheck.check_op(ops.batchnorm_forward, ops.batchnorm_backward, *inputs, eps=1e-5)

# %% [markdown]
# ## The experiment: how small a step?
#
# A smaller step $h$ approximates the slope better. So take the smallest step there is? We measure the median error of 25 directional derivatives of batch norm for steps from large to tiny, in both precisions.

# %%
x, gamma, beta = rng.standard_normal((8, 4, 4, 3)), np.ones(3), np.zeros(3)
dy = rng.standard_normal(x.shape)
directions = rng.standard_normal((25, *x.shape))


def watched(x):
    """The number that is watched, in the precision of x."""
    return (
        dy.astype(x.dtype)
        * ops.batchnorm_forward(x, gamma.astype(x.dtype), beta.astype(x.dtype), 1e-5)[0]
    ).sum()


dx, _, _ = ops.batchnorm_backward(dy, ops.batchnorm_forward(x, gamma, beta, 1e-5)[3])
exact = np.array([(dx * v).sum() for v in directions])
scale = abs(exact).max()


# %%
def central(h, dtype):
    """Median error of the central difference over all directions."""
    x_, h = x.astype(dtype), dtype(h)
    slopes = [
        (watched(x_ + h * v.astype(dtype)) - watched(x_ - h * v.astype(dtype))) / (2 * h)
        for v in directions
    ]
    return np.median(abs(slopes - exact)) / scale


def complex_step(h):
    slopes = [watched(x + 1j * h * v).imag / h for v in directions]
    return np.median(abs(slopes - exact)) / scale


steps = np.logspace(-13, 0, 40)
curves = {dtype: np.array([central(h, dtype) for h in steps]) for dtype in (np.float32, np.float64)}
complex_curve = np.array([complex_step(h) for h in steps])


# %%
show(
    step_sizes(steps, curves, complex_curve),
    "Error against step size on logarithmic axes: two V shapes, float32 with its lowest point near 1e-2 and float64 near "
    "1e-5 and far lower; the complex step stays at 1e-16 for all small steps.",
)


# %%
def slope(curve, low, high):
    """Exponent of h on the stretch between two steps."""
    part = (steps >= low) & (steps <= high) & (curve > 0)
    return np.polyfit(np.log(steps[part]), np.log(curve[part]), 1)[0]


stretches = {
    np.float32: ((1e-6, 1e-3), (3e-2, 0.3)),
    np.float64: ((1e-12, 1e-7), (1e-4, 0.3)),
}
exponents = {
    dtype: [slope(curves[dtype], *part) for part in parts] for dtype, parts in stretches.items()
}
best = {dtype: (steps[c.argmin()], c.min()) for dtype, c in curves.items()}
assert abs(exponents[np.float64][0] + 1) < 0.25
assert abs(exponents[np.float64][1] - 2) < 0.25
table(
    ["precision", "left branch", "right branch", "best step", "error there"],
    [
        [
            d.__name__,
            f"h^{e[0]:.2f}",
            f"h^{e[1]:.2f}",
            f"{best[d][0]:.0e}",
            f"{best[d][1]:.0e}",
        ]
        for d, e in exponents.items()
    ],
)

# %% [markdown]
# Two errors work against each other.
#
# - **Right branch, slope +2.** Expand $f(x \pm hv)$ in $h$, with $f', f'', f'''$ the derivatives along $v$, of $h \mapsto f(x + hv)$ at 0. The even terms cancel, and what is left of the difference quotient is $f' + \tfrac{h^2}{6} f''' + \dots$ The error is *truncation*, what the formula leaves out, and falls with $h^2$.
# - **Left branch, slope -1.** Each evaluation is wrong by about $\varepsilon |f|$, with $\varepsilon$ the precision of the numbers. The difference keeps that error and is divided by $2h$. The error is *rounding*, and grows with $\varepsilon/h$.
#
# In float32 the curve is flat left of about $10^{-8}$: $x + hv$ rounds to $x$, and the measured slope is 0.
#
# Truncation and rounding are equal where $h^3 \approx \varepsilon$. So the best step is about $\varepsilon^{1/3}$, and the best error about $\varepsilon^{2/3}$.

# %% jupyter={"source_hidden": true}
digits = {d: -np.log10(error) for d, (_, error) in best.items()}
say(f"""
    At its best, the central difference has {digits[np.float64]:.0f} correct digits in float64 and **{digits[np.float32]:.0f} in float32**.
    And a step ten times too small costs float32 one of those. A check in float32 cannot tell a small mistake from its own noise.
""")

# %% [markdown]
# The *complex step* avoids the subtraction: for a smooth $f$, $f(x + ihv) = f(x) + i h f' - \tfrac{h^2}{2} f'' - \dots$, so the imaginary part divided by $h$ is the slope, with nothing to cancel, at any small $h$. It needs ops that take complex numbers. The library's smooth ones do; a ReLU cannot.

# %% [markdown]
# ## The experiment: a kink
#
# A ReLU has no slope at 0, and near 0 a step may jump over the corner. Put one input at a distance of $10^{-4}$ from it.

# %%
near = np.array([[1e-4]])
hs = np.logspace(-7, 0, 60)
measured = [
    float((ops.relu_forward(near + h)[0] - ops.relu_forward(near - h)[0])[0, 0] / (2 * h))
    for h in hs
]
show(
    kink(hs, measured, near[0, 0]),
    "The measured slope is 1 for steps up to 1e-4, then falls towards one half: the step has crossed the kink of the ReLU.",
)

# %% [markdown]
# Such an error looks like a mistake of the backward pass and is none. So the library's checker measures each slope with the steps $h$ and $h/2$, and tries other steps until one has a small error:
#
# 1. The slopes from $h$ and from $h/2$ differ: that is the truncation. A better value combines both, $(4 \cdot \text{slope}(h/2) - \text{slope}(h))/3$.
# 2. The outputs at $\pm h$, $\pm h/2$ and 0 are combined so that any cubic gives 0: what remains is rounding.
# 3. Take the step with the smallest sum of both.
# 4. If that is still too large: look at the slope on the right minus the slope on the left. For a smooth curve this difference halves with the step. On a kink it is the same at $h$ and at $h/2$.
# 5. Then the checker says "kink" instead of passing or failing.

# %% jupyter={"source_hidden": true}
gradcheck.check_op(
    ops.relu_forward, ops.relu_backward, np.array([[1e-4, 1.0, -2.0]])
)  # smaller steps helped
on_the_kink = complaint(ops.relu_forward, ops.relu_backward, np.array([[0.0, 1.0, -2.0]]))
assert on_the_kink.kind == "kink"
say(
    f"> {on_the_kink}\n\nThe slopes of a ReLU are 0 and 1; the checker sees them times the random dy there."
)

# %% [markdown]
# ## The experiment: mistakes against checks
#
# Six mistakes of one line that people make. Five checks look at each: four of them with one weakness and otherwise careful (float64, central differences, tolerance $10^{-6}$), and the library's. Does the check notice?

# %%
mistakes = {
    "none: the library as it is": (norm, ops.batchnorm_backward),
    "batch norm: dx is 0": (norm, backward_of_zeros),
    "batch norm: no path through the variance": (
        norm,
        broken(ops.batchnorm_backward, " + through_var", ""),
    ),
    "batch norm: M - 1 instead of M": (
        norm,
        broken(
            ops.batchnorm_backward,
            "M = dy.size // dy.shape[-1]",
            "M = dy.size // dy.shape[-1] - 1",
        ),
    ),
    "ReLU: the mask of dy, not of x": (
        ops.relu_forward,
        broken(ops.relu_backward, "dy * positive", "dy * (dy > 0)"),
    ),
    "linear: db is the mean over the batch": (
        ops.linear_forward,
        broken(ops.linear_backward, "dy.sum(axis=0)", "dy.mean(axis=0)"),
    ),
    "loss: not divided by N": (
        ops.softmax_cross_entropy,
        broken(ops.softmax_cross_entropy, "dlogits / len(logits)", "dlogits"),
    ),
}

# %%
labels = rng.integers(0, 5, 16)


def case(forward, backward, N):
    """Forward, backward and inputs for a batch of N."""
    shapes = {
        norm: ((N, 3, 3, 2), (2,), (2,)),
        ops.linear_forward: ((N, 4), (4, 3), (3,)),
    }.get(forward, ((N, 5),))
    inputs = [rng.standard_normal(shape) for shape in shapes]
    if forward is ops.softmax_cross_entropy:  # the cache is the gradient
        return lambda z: backward(z, labels[:N]), lambda dy, dz: dy * dz, inputs
    return forward, backward, inputs


# %%
def verdicts(forward, backward):
    """The verdict of each check on one backward pass."""
    forward_16, backward_16, inputs = case(forward, backward, 16)
    y = np.asarray(forward_16(*inputs)[0])
    careful = np.concatenate(
        [e.ravel() for e in errors(forward_16, backward_16, inputs, rng.standard_normal(y.shape))]
    )
    ones = max(e.max() for e in errors(forward_16, backward_16, inputs, np.ones(y.shape)))
    f, b, alone = case(forward, backward, 1)
    single = max(e.max() for e in errors(f, b, alone, rng.standard_normal(np.shape(f(*alone)[0]))))
    try:
        gradcheck.check_op(forward_16, backward_16, *inputs)
        ours = 0.0
    except gradcheck.GradientError:
        ours = 1.0
    # one random index fails on some share of all indices
    return [
        ones > 1e-6,
        (careful > 1e-6).mean(),
        careful.max() > 1e-2,
        single > 1e-6,
        ours,
    ]


# %%
def word(share, missed="missed"):
    return {0.0: missed, 1.0: "caught"}.get(float(share), f"caught {share:.0%} of the time")


found = {name: verdicts(*pair) for name, pair in mistakes.items()}
table(
    [
        "mistake",
        "dy of ones",
        "one random index",
        "tolerance 1e-2",
        "batch of one",
        "gradcheck",
    ],
    [
        [
            name,
            *(word(share, "passes" if name.startswith("none") else "missed") for share in v),
        ]
        for name, v in found.items()
    ],
)
reference, *others = found.values()
assert not any(reference)
assert all(v[-1] for v in others)

# %% [markdown]
# The right code passes every check. Below it, "missed" is a mistake that gets through. Each weak check misses at least one, and not the same ones. A column is blind where its weakness meets the mistake: ones cancel what batch norm subtracts, a batch of one cannot tell a sum from a mean, and a tolerance of one percent is wider than $1/M$ once a channel has more than a hundred values.

# %% jupyter={"source_hidden": true}
assert all(any(not v[k] for v in others) or any(0 < v[k] < 1 for v in others) for k in range(4))
M = 16 * 9
say(
    f"In the table a channel has M = {M} values, so M - 1 instead of M is an error of {1 / M:.1%} in the two means: below one percent, in every layer, at every step."
)

# %% [markdown]
# Are these weaknesses invented? No. *minitorch* and *needle* are small frameworks that students write themselves, with checks for what they wrote. The check of *minitorch* (`grad_check`) sums all outputs, looks at one sampled index of each argument, and allows 1e-2, relative and absolute: three of them in one function. *needle* (`backward_check`) draws a random cotangent, and then accepts up to 0.42 for the sum of the norms of all differences, in float32 (the table below leaves it out). *CS231n*'s is careful: a random cotangent, every element, float64, a step of 1e-5; it prints the largest relative error and leaves the verdict to you. Its notes say that where both gradients are zero the check passes.
#
# The library keeps a *zoo* of such mistakes, and tries checks on all of them that make a backward pass disagree with its forward: each weakness alone, minitorch's, CS231n's (with 1e-4 as the limit, where its notes begin to object), and one in float32, whose tolerance has to be wide, or right gradients would fail. Each mistake is one changed line. The table has those that some check misses.

# %% jupyter={"source_hidden": true}
zoo = weak_checks()
checks = list(zoo["the reference"])
heads = {
    "cotangent of ones": "ones",
    "one random element": "one element",
    "tolerance 1e-2": "1e-2",
    "batch of one": "one image",
    "minires.gradcheck": "ours",
}
table(
    ["mistake", *(heads.get(check, check) for check in checks)],
    [
        [name.replace("-", " "), *("" if row[c] else "missed" for c in checks)]
        for name, row in list(zoo.items())[1:]
        if not all(row.values())
    ],
)
through = {
    c: sum(not row[c] for row in zoo.values()) - 1 for c in checks
}  # the reference should pass
say(
    f"There are {len(zoo) - 1} mistakes: "
    + "; ".join(f"*{c}* misses **{n}**" for c, n in through.items())
    + ". The right code passes all checks."
)
assert not any(zoo["the reference"].values())
assert through["minires.gradcheck"] == 0

# %% [markdown]
# Careful work pays: a random cotangent and every element by its own relative error is what CS231n asks for, and it does far better than the shortcuts. What it has no guard against is a gradient that is zero for every cotangent, as in the second exercise below: there any backward pass of zeros passes.

# %% [markdown]
# ## Claims put to the test

# %% jupyter={"source_hidden": true}
claims(
    [
        [
            "A relative error of 1e-2 is fine",
            f"M - 1 instead of M passes it; central differences reach {best[np.float64][1]:.0e}, the complex step {complex_curve.min():.0e}",
            "no, use 1e-6 in float64",
        ],
        [
            "float32 is good enough for checking",
            f"by central differences its best error is {best[np.float32][1]:.0e}, at one step only",
            "no, use float64",
        ],
        [
            "The numbers agree, so the gradient is right",
            f"dx = 0 agrees to {worst['zeros', 'all ones']:.0e} when dy is ones",
            "not if both are zero",
        ],
    ]
)

# %% [markdown]
# The first claim goes back to one half of a rule of thumb in the notes of Stanford's course CS231n (*Neural Networks Part 3*, section *Gradient checks*): errors above $10^{-2}$ probably mean a wrong gradient, $10^{-7}$ and less should make you happy. The notes are careful about what lies between; those who quote only the first half are not.

# %% [markdown]
# ## What this does not show
#
# - That the *forward* pass is right. A check compares backward with the forward that is there. For the forward we compare with loops (lesson 1) and with another library.
# - That every element was checked. In large arrays the checker looks at some elements and at random directions through all of them; along a direction mistakes may cancel, which takes a coincidence since its numbers are random.
# - Anything about the optimiser, the running statistics or the data. A gradient may be right and used wrongly.

# %% [markdown]
# ## Exercises
#
# **Now.** Make a mistake of your own with `broken`, for instance in `max_pool_backward` or `global_avg_pool_backward` (`source(ops.max_pool_backward)` shows its lines), give `case` inputs for it (images, and for max pooling a size and a stride: `lambda x: ops.max_pool_forward(x, 2, 2)`), and add it to the table. Which columns see it?
#
# **To think about.** Check batch norm on inputs of shape (1, C): a batch of one without rows and columns. The numeric gradient is 0 for every cotangent. Why? Which guard speaks up?
#
# **For the weekend.** `minires exercise hunt` writes a file in which one line of the library is wrong. Find it with `gradcheck`, without comparing with the original.

# %% [markdown]
# ## Where to read on
#
# - CS231n, [Neural Networks Part 3](https://cs231n.github.io/neural-networks-3/#gradcheck), *Gradient checks*, Stanford, since 2015. Practical advice on steps, kinks and precision.
# - Squire, Trapp: *Using Complex Variables to Estimate Derivatives of Real Functions*, SIAM Review 40(1), 1998. The complex step in three pages.
# - Baydin, Pearlmutter, Radul, Siskind: *Automatic Differentiation in Machine Learning: a Survey*, [arXiv 1502.05767](https://arxiv.org/abs/1502.05767), section 3, 2018. Forward and reverse mode.
# - Griewank, Walther: *Evaluating Derivatives*, chapter 3, 2nd edition, 2008. The theory of $J v$ and $J^{\mathsf T} dy$.
# - [Lesson 3](03_convolution_backward.ipynb): the backward pass of a convolution.
