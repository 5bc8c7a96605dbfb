"""Figures of lesson 10: costs by map, a roofline of blocks, receptive fields, and ladders of errors."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from style import HUES, MUTED, PLAIN, RESIDUAL

MAPS = (224, 112, 56, 28, 14, 7, 1)  # rows of the maps on the way through a network
SHADES = ("#67000d", "#cb181d", "#fc9272", "#c6dbef", "#6baed6", "#2171b5", "#969696")


def costs(by_map, depths):
    """Multiply-adds of each network, split by the size of the maps."""
    figure = Figure(figsize=(7.8, 4.6))
    axes = figure.subplots()
    left = np.zeros(len(by_map))
    for size, shade in zip(MAPS, SHADES, strict=True):
        part = np.array([cost.get(size, 0) / 1e9 for cost in by_map.values()])
        label = f"{size}x{size}" if size > 1 else "linear layers"
        axes.barh(range(len(by_map)), part, 0.7, left=left, color=shade, label=label)
        left += part
    for row, total in enumerate(left):
        axes.annotate(f"{total:.1f}", (total, row), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(by_map)), [f"{name}, {depths[name]} layers" for name in by_map])
    axes.invert_yaxis()
    axes.set(xlabel="multiply-adds for one picture of 224x224 (10⁹)", xlim=(0, 1.08 * left.max()))
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.16), title="size of the map")
    axes.set_title("VGG spends on large maps what ResNets spend on depth")
    return figure


def roofline(rows, peak, bandwidth, title):
    """Two panels: time of two blocks by kind of layer, and every layer under the roof."""
    figure = Figure(figsize=(8.2, 4.4))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    for column, layers in enumerate(rows.values()):
        bottom = 0.0
        for k, kind in enumerate(("3x3", "1x1", "rest")):
            spent = 1e3 * sum(r.seconds for r in layers if r.kind == kind)
            left.bar(
                column, spent, 0.6, bottom=bottom, color=HUES[k], label=None if column else kind
            )
            bottom += spent
    left.set_xticks(range(len(rows)), list(rows))
    left.set_ylabel("time on one thread (ms)")
    handles = [Rectangle((0, 0), 1, 1, color=HUES[k]) for k in range(3)]
    left.legend(handles, ["3x3", "1x1", "norm, ReLU, sum"], fontsize=10, loc="upper left")
    left.set_ylim(0, 1.5 * left.get_ylim()[1])
    intensity = np.geomspace(0.05, 400, 200)
    right.loglog(intensity, np.minimum(peak, intensity * bandwidth), color="0.3")
    for marker, layers in zip("os", rows.values(), strict=True):
        for row in layers:
            colour = HUES[("3x3", "1x1", "rest").index(row.kind)]
            right.plot(row.intensity, row.gflops, marker, color=colour, ms=8, alpha=0.8)
    for marker, block in zip("os", rows, strict=True):
        right.plot([], [], f"{marker}k", label=block)
    right.legend(fontsize=10, loc="lower right")
    right.set(
        xlabel="floating-point operations per byte that must move", ylabel="10⁹ operations a second"
    )
    figure.suptitle(title)
    return figure


def fields(found, title):
    """Influence of pixels on the unit in the middle, one panel for each network."""
    figure = Figure(figsize=(8.2, 3.5))
    for axes, (name, (power, side, window)) in zip(
        figure.subplots(1, len(found)), found.items(), strict=True
    ):
        H, W = power.shape
        blocks = power.reshape(H // 4, 4, W // 4, 4).mean(axis=(1, 3))
        shown = np.log10(blocks / blocks.max() + 1e-9)
        edges = (-0.5, W - 0.5, H - 0.5, -0.5)
        picture = axes.imshow(shown, cmap="cividis", vmin=-5, vmax=0, extent=edges)
        rows, columns = (np.arange(n) for n in power.shape)
        middle = (power.sum(axis=0) @ columns, power.sum(axis=1) @ rows)
        lower = [m - side / 2 for m in middle]
        axes.add_patch(Rectangle(lower, side, side, fill=False, color="white", lw=2))
        axes.set(xticks=(0, 112, 223), yticks=(0, 112, 223), xlabel="pixel")
        axes.set_ylabel("pixel" if name == next(iter(found)) else "")
        axes.set_title(f"{name}\nwindow {window}, 95 % in {side}", fontsize=10)
    figure.colorbar(
        picture, ax=figure.axes, label="influence of 4x4 pixels (power of 10)", shrink=0.8
    )
    figure.suptitle(title)
    return figure


def ladders(paper, ours, title):
    """Errors of one network, step by step of the test: the paper's, and ours with a dot for each."""
    figure = Figure(figsize=(8.2, 4.2))
    left, right = figure.subplots(1, 2)
    values = [error for _, error in paper]
    left.bar(range(len(paper)), values, 0.6, color=[MUTED, RESIDUAL, RESIDUAL, PLAIN])
    for k, value in enumerate(values):
        left.annotate(
            f"{value:.2f}".rstrip("0"), (k, value), (0, 3), textcoords="offset points", ha="center"
        )
    left.set_xticks(range(len(paper)), [name for name, _ in paper], fontsize=10)
    left.set(
        ylabel="top-5 error (%)", title="ImageNet, by the authors:\nResNet-152; last bar: six nets"
    )
    for k, (_, errors) in enumerate(ours):
        right.plot([k] * len(errors), errors, "o", color=RESIDUAL, ms=7, alpha=0.7)
        right.plot([k - 0.25, k + 0.25], [np.mean(errors)] * 2, color="0.2", lw=1.5)
    right.set_xticks(range(len(ours)), [name for name, _ in ours], fontsize=10)
    right.set(
        ylabel="top-1 error (%)",
        title="shapes10, here:\nResNet-8; on the right: four nets",
        xlim=(-0.6, len(ours) - 0.4),
        ylim=(0, 1.1 * max(max(errors) for _, errors in ours)),
    )
    figure.suptitle(title)
    return figure
