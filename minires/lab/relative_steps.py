"""Relative steps ||dw|| / ||w|| of each layer, from a record by layer.

In front of a batch norm only the direction of a filter has an effect: its length cancels. So a
layer learns by turning its filters. dw is at right angles to w, so one step at learning rate lr
turns w by

    angle = arctan(r),   r = lr ||dw|| / ||w||.

The relative step r has no upper limit, an angle has: no step turns w by 90 degrees or more. A small
r is the angle itself; then, for a layer with several filters, it is the root mean square of their
angles, weighted by the squared lengths of the filters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minires.runs.config import Config
from minires.runs.run import Run
from minires.train.loop import initial_net

# A layer whose relative step is a share s of the last layer's trains as the last layer would train
# at s times the learning rate. The paper ends its schedule at 1/100 of the first rate (section
# 4.2), where a net changes little. A layer below that share counts as standing still.
STILL = 0.01


def relative_steps(run: Run) -> dict[int, dict[str, float]]:
    """Relative steps ||dw|| / ||w||, per unit of the learning rate, by recorded step and layer.

    The convolutions of shortcuts are left out. A record holds the weights after its step. The first
    step may make them much longer, so for that step the initial weights are used.

    Returns
    -------
    relative_steps : dict
        By recorded step, then by the layers' dotted names in network order.
    """
    # NumPy, so that a record can be read without Numba
    config = replace(Config.from_json(run.config), backend="numpy")
    initial = initial_net(config, run.facts).parameters()
    found: dict[int, dict[str, float]] = {}
    for line in run.layers:
        lengths = line["weight_norm"]
        names = [name for name in line["gradient_norm"] if ".shortcut" not in name]
        if line["iteration"] == 1:
            lengths = {name: np.linalg.norm(initial[f"{name}.w"]) for name in names}
        gradients = line["gradient_norm"]
        found[line["iteration"]] = {name: gradients[name] / float(lengths[name]) for name in names}
    return found


def shares(run: Run) -> dict[int, np.ndarray]:
    """Relative step of each layer as a share of the last layer's, by recorded step; 0 if that is 0.

    Returns
    -------
    shares : dict of int to ndarray of shape (layers,)
    """
    found = {}
    for step, by_layer in relative_steps(run).items():
        values = np.array(list(by_layer.values()))
        found[step] = values / values[-1] if values[-1] else np.zeros_like(values)
    return found
