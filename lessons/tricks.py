"""Measurements and figures of lesson 9: AlexNet's tricks, each on the smallest case that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from style import HUES, MUTED, RECORDS, say, show

from minires.data.augment import COLOUR_STD, add_colour, colour_components
from minires.lab.race import figures, results
from minires.layers import Layer
from minires.nets.alexnet import alexnet
from minires.ops import get_ops
from minires.runs.run import read_run

RACE = RECORDS / "race-cifar10"
RACE_COMMAND = "minires race --dataset cifar10 --out lessons/runs/race-cifar10"
PAPERS_RATIO = 6  # figure 1 of AlexNet
RELU, TANH = HUES[2], HUES[4]
ops = get_ops("numpy")

# ------------------------------------------------------------------ local response normalisation


def competition(scale: float, C: int = 64, pixels: int = 2000, seed: int = 0) -> np.ndarray:
    """Factors y / x of local response normalisation, for activations of the deviation `scale`.

    Returns
    -------
    factors : ndarray of shape (pixels, C)
    """
    x = scale * np.random.default_rng(seed).standard_normal((pixels, 1, 1, C))
    y, _ = ops.local_response_norm_forward(x)
    return (y / x)[:, 0, 0]


def draw_competition(scales: np.ndarray) -> None:
    """Show how the factors spread, by the deviation of the activations."""
    found = [competition(scale) for scale in scales]
    low, middle, high = (np.array([np.quantile(f, q) for f in found]) for q in (0.05, 0.5, 0.95))
    figure = Figure(figsize=(7.8, 4.2))
    axes = figure.subplots()
    axes.fill_between(scales, low, high, color=HUES[0], alpha=0.25, label="90 % of the channels")
    axes.plot(scales, middle, color=HUES[0], lw=2, label="median")
    axes.axhline(2**-0.75, color=MUTED, ls=":", lw=1.5, label="2$^{-0.75}$, a constant")
    axes.axvline(1, color=HUES[3], ls="--", lw=1.2, label="deviation 1, as behind batch norm")
    axes.set(xscale="log", ylim=(0, 0.65))
    axes.set(xlabel="deviation of the activations", ylabel="factor y / x")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=10)
    axes.set_title("Channels compete only if activations are about 100")
    show(
        figure,
        "Factor y / x of local response normalisation against the deviation of the activations, on a "
        "logarithmic axis. The factor is 0.595 for every channel up to about 10; from 30 to 300 it "
        "falls and spreads widely between channels.",
    )


def dependence(layer: Layer, x: np.ndarray) -> np.ndarray:
    """How much the middle element of the output changes with each element of one image.

    Returns
    -------
    gradient : ndarray of shape (H, W, C)
    """
    y = layer.forward(x, train=True)
    dy = np.zeros_like(y)
    dy[0, y.shape[1] // 2, y.shape[2] // 2, y.shape[3] // 2] = 1
    return layer.backward(dy)[0]


# --------------------------------------------------------------------------------------- the race


def recorded_race() -> tuple[list, Mapping]:
    """Lanes and ablations of the recorded race, empty where none is recorded."""
    return results.read([RACE]) if RACE.exists() else ([], {})


def race_in_words(lanes: Sequence, groups: Mapping) -> str:
    """How a race is run; what is recorded follows as figures."""
    rules = (
        "A fair race tries five rates for each activation and runs the best one with three seeds; "
        "the error is measured every 50 iterations on 5,000 fixed training images, and after 5,000 "
        "iterations a run has missed the target."
    )
    ablated = (
        " The same command trains the network without local response normalisation, with pooling "
        "that does not overlap, with dropout, and with colour shifts, 2,000 iterations each."
    )
    if not lanes:
        return (
            f"{rules}{ablated} On two cores that takes hours, so it is left to you: "
            f"`{RACE_COMMAND}`. This lesson draws the record if it finds one."
        )
    return f"{rules}{ablated if groups else ''} Recorded by `{RACE_COMMAND}`:"


def draw_race(lanes: Sequence) -> None:
    """Show the recorded race, if there is one, and what it says."""
    if lanes:
        words = results.message(lanes)
        show(figures.race(lanes), f"Iterations to 25 % training error, by arm. {words}.")
        say(" ".join([f"{words}.", *_against_the_paper(lanes), *results.edge_warnings(lanes)]))


def _against_the_paper(lanes: Sequence) -> list[str]:
    """A sentence that compares the ratio without batch norm with the paper's, if there is one."""
    found = results.ratio(lanes, "tanh")
    if found is None:
        return []
    low, high = min(found.values), max(found.values)
    if found.least and low <= PAPERS_RATIO:
        return [f"The paper's ratio is {PAPERS_RATIO}; lower bounds cannot contradict it."]
    side = "on both sides of"
    if low > PAPERS_RATIO:
        side = "above"
    elif high < PAPERS_RATIO:
        side = "below"
    seeds = f"{len(found.values)} seed{'s' if len(found.values) > 1 else ''}"
    return [f"The paper's ratio is {PAPERS_RATIO}; those of these {seeds} are {side} it."]


def draw_ablations(groups: Mapping) -> None:
    """Show the recorded ablations, if there are any."""
    if groups:
        words = results.ablation_message(groups)
        show(figures.ablations(groups), f"Errors of each ablation beside the baseline. {words}.")
        say(f"{words[0].upper()}{words[1:]}.")


def draw_live(runs: Mapping[str, Path]) -> None:
    """Show the training errors of runs that were trained in the notebook."""
    figure = Figure(figsize=(7.8, 4.2))
    axes = figure.subplots()
    for (title, folder), colour, style in zip(
        runs.items(), (RELU, TANH), ("-", "--"), strict=False
    ):
        run = read_run(folder)
        steps = [line["iteration"] for line in run.evals]
        errors = [100 * line["train_error"] for line in run.evals]
        axes.plot(steps, errors, style, color=colour, marker="o", ms=4, lw=2, label=title)
    target = 100 * run.config["until"]
    axes.axhline(target, color=MUTED, ls=":", lw=1.5)
    axes.text(
        axes.get_xlim()[1], target + 1, f"{target:g} %: the run ends", ha="right", color="0.35"
    )
    axes.set(xlabel="iteration", ylabel="training error (%)", ylim=(0, 95))
    axes.legend(loc="upper right")
    ends = {title: results.in_words(read_run(folder)) for title, folder in runs.items()}
    words = "; ".join(f"{title}: {end}" for title, end in ends.items())
    axes.set_title(f"Iterations to {target:g} % for {words}")
    show(figure, f"Training error by iteration in the race trained here; iterations: {words}.")


# ----------------------------------------------------------------------------------------- pooling


def moved(x: np.ndarray, pixels: int) -> np.ndarray:
    """The images moved to the right by some pixels; what leaves at one side enters at the other."""
    return np.roll(x, pixels, axis=2)


def shift_changes(x: np.ndarray, size: int, pad: int, pixels: int) -> float:
    """Change of pooled images when the input moves, as a share of the distance of two images."""

    def pooled(images: np.ndarray) -> np.ndarray:
        return ops.max_pool_forward(images, size, 2, pad)[0]

    y = pooled(x)
    distance = np.linalg.norm(y - np.roll(y, 1, axis=0))
    return float(np.linalg.norm(pooled(moved(x, pixels)) - y) / distance)


def windows_of_a_pixel(size: int, pad: int) -> int:
    """Most windows, two pixels apart, whose maximum is one bright pixel."""
    counts = []
    for row in (3, 4):
        x = np.zeros((1, 8, 8, 1))
        x[0, row, row] = 1
        y, _ = ops.max_pool_forward(x, size, 2, pad)
        counts.append(int(y.sum()))
    return max(counts)


def draw_pooling(
    x: np.ndarray, pixels: Sequence[int], wide: bool = False
) -> dict[str, list[float]]:
    """Show by how much pooled images change when the input moves; returns the shares.

    With `wide`, windows of 5x5 are drawn too.
    """
    kinds = {"2x2, no overlap": (2, 0, "--s", HUES[1]), "3x3, overlapping": (3, 1, "-o", HUES[0])}
    if wide:
        kinds["5x5, overlapping more"] = (5, 2, ":^", HUES[4])
    found = {
        name: [shift_changes(x, size, pad, p) for p in pixels]
        for name, (size, pad, _, _) in kinds.items()
    }
    figure = Figure(figsize=(7.8, 4.2))
    axes = figure.subplots()
    for name, (_, _, style, colour) in kinds.items():
        axes.plot(pixels, found[name], style, color=colour, lw=2, label=name)
    axes.set(xlabel="pixels by which the picture moves", ylim=(0, None), xticks=list(pixels))
    axes.set_ylabel("change of the pooled picture\n(1: another picture)")
    axes.legend(loc="lower right")
    less = 1 - found["3x3, overlapping"][1] / found["2x2, no overlap"][1]
    words = f"{abs(less):.0%} {'less' if less > 0 else 'more'}"
    axes.set_title(f"A move by one pixel changes overlapping pools {words}")
    show(
        figure,
        "Change of max-pooled pictures against the number of pixels by which the picture moves, for "
        f"windows of 2x2 and 3x3 with stride 2. At one pixel, the overlapping pools change {words}.",
    )
    return found


# ------------------------------------------------------------------------------------------ towers


def reach(start: str, channel: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Find the channels that get a gradient when a 1 is sent back into one channel of a layer's output.

    The network is AlexNet for images of 67 pixels, with its two groups and its initial weights.

    Parameters
    ----------
    start : str
        The layer whose output receives the 1, at the pixel in the middle.
    channel : int

    Returns
    -------
    reached : dict of str to ndarray of shape (C,), bool
        By layer: the channels of its *input* that get a gradient, from `start` to the images.
    """
    rng = np.random.default_rng(seed)
    net = alexnet(67, rng=seed)
    names = list(net.children)
    used = names[: names.index(start) + 1]
    x = rng.standard_normal((1, 67, 67, 3)).astype(np.float32)
    for name in used:
        x = net.children[name].forward(x, train=True)
    dy = np.zeros_like(x)
    dy[:, x.shape[1] // 2, x.shape[2] // 2, channel] = 1
    found = {}
    for name in reversed(used):
        layer = net.children[name]
        dy = _through(layer, dy)
        found[name] = (dy != 0).any(axis=(0, 1, 2))
    return found


def _through(layer: Layer, dy: np.ndarray) -> np.ndarray:
    """The gradient behind a layer; ReLUs are open, so that weights alone decide what it reaches."""
    if type(layer).__name__ == "ReLU":
        return dy
    return layer.backward(dy)


def draw_islands(reached: Mapping[str, np.ndarray], shown: Sequence[str]) -> None:
    """Show the two halves of the channels as two islands, layer by layer, and what was reached."""
    figure = Figure(figsize=(8.4, 0.9 + 0.62 * len(shown)))
    axes = figure.subplots()
    for row, name in enumerate(shown):
        channels = reached[name]
        C = len(channels)
        for c, found in enumerate(channels):
            colour = (HUES[0], HUES[1])[c >= C // 2]
            left = c / C + (0.04 if c >= C // 2 else 0)
            axes.barh(row, 1 / C, 0.7, left, color=colour if found else "0.9", lw=0)
        halves = [channels[: C // 2].mean(), channels[C // 2 :].mean()]
        share = f"{halves[0]:.0%} | {halves[1]:.0%} of {C // 2} each"
        axes.text(1.06, row, share, va="center", fontsize=10)
    axes.set_yticks(range(len(shown)), [f"into {name}" for name in shown])
    axes.set(xlim=(0, 1.42), ylim=(len(shown) - 0.4, -0.6))
    axes.set_xticks([0.25, 0.79], ["first GPU", "second GPU"])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("A 1 sent back stays on its island until convolution 3")
    show(
        figure,
        "Rows of channels, layer by layer from the start to the images, in two halves for the two "
        "GPUs. Coloured channels get a gradient: in the first half alone down to convolution 4, in "
        "both halves from convolution 3 on.",
    )


# ----------------------------------------------------------------------------------------- dropout


def draw_dropout(training: np.ndarray, at_test: float) -> None:
    """Show the values of one unit over many masks, and its value at test time."""
    figure = Figure(figsize=(7.8, 3.8))
    axes = figure.subplots()
    axes.hist(training, 50, color=HUES[0], alpha=0.5, density=True, label="training, mask by mask")
    axes.axvline(training.mean(), color=HUES[0], lw=2, label=f"their mean {training.mean():.2f}")
    test = f"test time, no mask {at_test:.2f}"
    axes.axvline(at_test, color=HUES[3], lw=2, ls="--", label=test)
    axes.set(xlabel="value of the unit", ylabel="density")
    axes.legend(fontsize=10)
    axes.set_title(f"Dropout keeps the mean and adds a deviation of {training.std():.2f}")
    show(
        figure,
        "Histogram of one unit's value over many dropout masks. The mean of the histogram and the "
        "value at test time agree; the histogram is wide.",
    )


# ------------------------------------------------------------------------------------------ colour


def colour_strengths(images: np.ndarray) -> dict[str, np.ndarray]:
    """Strengths of the shift along the components for pixels in 0..255, in three readings."""
    values, _ = colour_components(images)
    return {
        "eigenvalues, pixels in 0..1": values / 255**2 * 255,
        "square roots of eigenvalues": np.sqrt(values),
        "eigenvalues, pixels in 0..255": values,
    }


def colour_deviation(images: np.ndarray, strengths: np.ndarray) -> float:
    """Deviation of the shift of a channel in grey levels, over the channels."""
    _, vectors = colour_components(images)
    return float(COLOUR_STD * np.sqrt(((vectors * strengths) ** 2).sum(axis=1).mean()))


def draw_colours(images: np.ndarray, train: np.ndarray, seed: int = 0) -> None:
    """Show a contact sheet: the same pictures shifted with the strengths of each reading."""
    _, vectors = colour_components(train)
    alpha = COLOUR_STD * np.random.default_rng(seed).standard_normal((len(images), 3))
    rows = {"as they are": images.astype(np.float32)}
    for name, strengths in colour_strengths(train).items():
        rows[name] = add_colour(images.astype(np.float32), alpha, strengths, vectors)
    figure = Figure(figsize=(9.2, 0.5 + 0.95 * len(rows)))
    grid = figure.subplots(len(rows), len(images) + 1, width_ratios=[3] + [1] * len(images))
    for (name, shifted), axes in zip(rows.items(), grid, strict=True):
        axes[0].text(1, 0.5, name.replace(", ", ",\n"), ha="right", va="center", fontsize=11)
        for image, cell in zip(shifted, axes[1:], strict=True):
            cell.imshow(np.clip(image, 0, 255).astype(np.uint8), interpolation="nearest")
        for cell in axes:
            cell.axis("off")
    figure.suptitle("The unit decides whether the shift is visible, or all that is visible")
    show(
        figure,
        "Contact sheet of shapes10 pictures in four rows: unchanged, shifted with eigenvalues of "
        "pixels in 0..1, with square roots, and with eigenvalues of pixels in 0..255. In the last "
        "row the colours have nothing to do with the picture, and some cells are black or white.",
    )
