"""Figures of lessons 1 and 3: convolutions on paper, forward and backward, and their costs."""

from fractions import Fraction

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import HUES, LOOPS, MUTED, NUMPY, PLAIN, RESIDUAL


def boxes(axes, left, top, values, title):
    """Numbers in boxes, the corner of the first at (left, top); zeros are grey."""
    axes.text(left + values.shape[1] / 2, top - 0.3, title, ha="center", va="bottom")
    for (i, j), value in np.ndenumerate(values):
        axes.add_patch(Rectangle((left + j, top + i), 1, 1, fill=False, ec="0.75"))
        place = (left + j + 0.5, top + i + 0.5)
        shade = "0.6" if value == 0 else "black"
        axes.text(*place, f"{value:g}", ha="center", va="center", color=shade)


def paper(size, limits):
    """A figure without axes, one unit a box, and its axes."""
    figure = Figure(figsize=size)
    axes = figure.subplots()
    axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")
    axes.axis("off")
    return figure, axes


def frame(axes, place, size, colour):
    """Outline a square of boxes."""
    axes.add_patch(Rectangle(place, size, size, fill=False, ec=colour, lw=3))


def signs(axes, height, places):
    """The signs between arrays, by their place."""
    for left, sign in places.items():
        axes.text(left, height, sign, ha="center", va="center", fontsize=18, color="0.35")


# ------------------------------------------------------------------------------------- lesson 1


def as_product(image, matrix, column, answer, followed):
    """Draw an image, its im2col matrix, a filter and their product; `followed` are windows."""
    figure, axes = paper((7.8, 5.2), ((-0.2, 17.4), (9.2, -1.2)))
    boxes(axes, 0, 2.5, image, "image")
    boxes(axes, 6, 0, matrix, "im2col(image)")
    boxes(axes, 12.3, 2.5, column, "filter")
    boxes(axes, 15.6, 0, answer, "y")
    signs(axes, 4.5, {5: "→", 11.2: "@", 14.4: "="})
    for k, n in enumerate(followed):
        (i, j), inset = divmod(n, 3), 0.07 * k  # windows overlap, their frames should not
        frame(axes, (j + inset, 2.5 + i + inset), 2 - 2 * inset, HUES[k])
        axes.add_patch(Rectangle((6, n), 4, 1, fc=HUES[k], alpha=0.3))
        axes.add_patch(Rectangle((15.6, n), 1, 1, fc=HUES[k], alpha=0.3))
    axes.set_title("Each window becomes a row; one product answers for all windows")
    return figure


def costs(sides, loop_time, product_time, megabytes, part):
    """Draw the time of both ways, and the memory, against the side of the image.

    Parameters
    ----------
    sides : list of int
    loop_time, product_time : list of float
        Seconds; the loops may stop at an earlier side.
    megabytes : dict
        Side -> (image, matrix).
    part : float
        Megabytes that the library unrolls at a time.
    """
    figure = Figure(figsize=(8.2, 4.0))
    left, right = figure.subplots(1, 2)
    left.loglog(sides[: len(loop_time)], loop_time, "o--", color=LOOPS)
    left.loglog(sides, product_time, "s-", color=NUMPY)
    note(left, "seven loops", (sides[1], loop_time[1]), (12, -4))
    note(left, "im2col and @", (sides[3], product_time[3]), (8, -12))
    left.set(ylabel="seconds", title="The product wins by orders of magnitude")
    right.loglog(sides, [image for image, _ in megabytes.values()], "o-", color=MUTED)
    right.loglog(sides, [matrix for _, matrix in megabytes.values()], "s-", color=NUMPY)
    right.axhline(part, color="0.3", ls=":", lw=1)
    image, matrix = megabytes[sides[3]]
    note(right, "the image", (sides[3], image), (6, -14))
    note(right, "im2col's matrix", (sides[3], matrix), (-8, 8), ha="right")
    note(
        right,
        f"{1e6 * part / 2**20:.0f} MiB: what the\nlibrary unrolls at a time",
        (sides[0], part),
        (0, 5),
    )
    right.set(ylabel="megabytes", title="and pays with nine times the memory")
    for axes in (left, right):
        axes.set_xlabel("side of the image (pixels)")
        axes.set_xticks(sides, sides)
        axes.minorticks_off()
    return figure


def note(axes, text, at, shift, **how):
    """Words beside a point."""
    axes.annotate(text, at, shift, textcoords="offset points", color="0.2", **how)


def answers(picture, filters, y):
    """Draw a picture (H, W, 3), filters by name, and below each its answer, a channel of `y`."""
    figure = Figure(figsize=(8.2, 4.4))
    panels = figure.subplots(2, 5)
    panels[0, 0].imshow(picture)
    panels[1, 0].imshow(picture.mean(axis=2), cmap="gray")
    for panel, title in zip(panels[:, 0], ("picture", "mean of colours"), strict=True):
        panel.set_title(title, fontsize=11, loc="center")
    for k, (name, values) in enumerate(filters.items()):
        above, below = panels[:, k + 1]
        above.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        above.set_title(name, fontsize=11, loc="center")
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if value > 0.6 else "black"
            text = str(Fraction(value).limit_denominator(9))
            above.text(j, i, text, ha="center", va="center", fontsize=10, color=colour)
        inside = y[1:-1, 1:-1, k]  # padding makes an edge of its own
        limit = abs(inside).max()
        shades = ("gray", 0) if name == "blur" else ("RdBu_r", -limit)
        below.imshow(inside, cmap=shades[0], vmin=shades[1], vmax=limit)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    figure.suptitle(
        "A filter answers where the picture looks like it (red: like it, blue: its opposite; blur: grey)",
        x=0.02,
        ha="left",
    )
    return figure


# ------------------------------------------------------------------------------------- lesson 3


def spread_out(dy, wide, flipped, dx):
    """Draw dy, the same with zeros between, the flipped filter, and dx."""
    figure, axes = paper((8.2, 4.1), ((-0.2, 20.6), (7.3, -1.2)))
    boxes(axes, 0, 2.5, dy, "dy")
    boxes(axes, 3.3, 0, wide, "dy, spread out and surrounded")
    boxes(axes, 11.4, 2, flipped, "filter, flipped")
    boxes(axes, 15.4, 1, dx, "dx")
    signs(axes, 3.5, {2.65: "→", 10.85: "∗", 14.9: "="})
    for k, (i, j) in enumerate(((0, 0), (2, 2), (4, 3))):
        frame(axes, (3.3 + j, i), 3, HUES[k])
        axes.add_patch(Rectangle((15.4 + j, 1 + i), 1, 1, fc=HUES[k], alpha=0.35))
    axes.set_title(
        "Backward with stride 2: zeros between the values of dy, then an ordinary convolution"
    )
    return figure


def both_ends(reads, read_by):
    """Draw what the middle output reads, and who reads the middle pixel, as maps."""
    figure = Figure(figsize=(7.6, 4.4))
    maps = {
        "pixels that the middle output reads": reads,
        "outputs that read the middle pixel": read_by,
    }
    for axes, (title, values) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        numbers(axes, values, "Blues", 14, fontsize=14)
        axes.add_patch(Rectangle((2.5, 2.5), 1, 1, fill=False, ec=PLAIN, lw=2))
        axes.set(xticks=range(7), yticks=range(7), xlabel="column", ylabel="row")
        axes.set_title(title, loc="center", fontsize=11)
    figure.suptitle(
        "The same nine weights, seen from both ends: one is the other turned by half a circle"
    )
    return figure


def numbers(axes, values, shades, largest, fontsize):
    """A map of numbers; zeros are left out."""
    axes.imshow(values, cmap=shades, vmin=0, vmax=largest)
    for (i, j), value in np.ndenumerate(values):
        if value:
            axes.text(j, i, f"{value:g}", ha="center", va="center", fontsize=fontsize)


def covers(counts):
    """Draw the number of windows that see each pixel; `counts` has an array for each stride."""
    figure = Figure(figsize=(8.2, 3.7))
    for axes, (stride, values) in zip(figure.subplots(1, 3), counts.items(), strict=True):
        numbers(axes, values, "Oranges", 11, fontsize=10)
        axes.set(xticks=[], yticks=[], xlabel=f"stride {stride}")
        axes.spines[:].set_visible(False)
    figure.suptitle(
        "With stride 2 the windows overlap unevenly: a pixel hears from 1, 2 or 4 of them"
    )
    return figure


def without_flip(asymmetry, cosines, lengths):
    """Draw the direction and the error of dx without the flip against the filters' asymmetry."""
    figure = Figure(figsize=(7.6, 3.8))
    axes = figure.subplots()
    axes.plot(asymmetry, cosines, "o-", color=RESIDUAL)
    axes.plot(asymmetry, lengths, "s--", color=PLAIN)
    axes.text(0.03, 1.06, "cosine of the angle to the true dx", color=RESIDUAL)
    axes.text(0.13, 0.1, "size of the error, relative to dx", color=PLAIN)
    axes.set(
        xlabel="asymmetry t of the filters (0: symmetric, 1: as drawn at random)",
        ylabel="cosine; relative error",
        ylim=(0, 1.5),
    )
    axes.set_title(
        f"Without the flip, dx through random filters points elsewhere (cosine {cosines[-1]:.2f})"
    )
    return figure
