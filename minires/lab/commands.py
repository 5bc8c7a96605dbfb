"""Commands that train recorded runs again, made from the table of options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minires.data import key
from minires.errors import quoted
from minires.lab.presets import PAPERS, preset_name
from minires.runs.config import OPTIONS
from minires.runs.options import command_options
from minires.runs.run import Run

LENGTH = ("iterations", "lr", "warmup_lr")
ALWAYS = ("batch_size", "eval_images", "eval_every", "bn_images")
# a file of weights is recorded by its hash, so the commands name a placeholder for it
CHANGED = (*(name for name in PAPERS if name not in ("task", "weights", "head")), "bn_average")


def commands(runs: Sequence[Run]) -> list[str]:
    """Commands that train these runs again, one for each set of options."""
    alike: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        alike.setdefault((_program(run), _length(run, "degradation"), _rest(run)), []).append(run)
    made = []
    for (program, length, rest), members in alike.items():
        for seeds, names in _by_seeds(members).items():
            if seeds == tuple(range(len(seeds))):  # an experiment has seeds 0 .. K-1
                several = f"--nets {quoted(Path(','.join(names)))} --seeds {len(seeds)}"
                made.append(f"{program} degradation {length} {several} {rest}")
                continue
            for run in members:
                if run.net in names:
                    net = quoted(Path(run.net))
                    one = f"train {net} --seed {run.config['seed']} {_length(run, 'train')}"
                    made.append(f"{program} {one} {rest}")
    return made


def _program(run: Run) -> str:
    """The program, with the plugins that the run was trained with."""
    files = (f"--plugin {quoted(Path(name))}" for name in run.provenance.get("plugins", []))
    return " ".join(["minires", *files])


def _length(run: Run, command: str) -> str:
    """Options for length and learning rate: a preset, or each of them."""
    preset = preset_name(run)
    if preset and command == "degradation":
        return f"--tier {preset}"
    if command == "degradation":
        return command_options(OPTIONS, run.config, (*LENGTH, "augment"), CHANGED)
    return command_options(OPTIONS, run.config, LENGTH, ("augment", *CHANGED))


def _rest(run: Run) -> str:
    """Options that every command needs."""
    sizes = command_options(OPTIONS, run.config, ALWAYS)
    data = key(run.data["name"])
    if data == "folder":
        data = quoted(Path(".") / run.data["source"])
    if run.config["weights"]:
        sizes += f" --weights FILE --head {run.config['head']}"
    task = command_options(OPTIONS, run.config, (), ("task",))
    backend = command_options(OPTIONS, run.config, ("backend",))
    return " ".join(filter(None, [sizes, f"--dataset {data}", task, backend]))


def _by_seeds(runs: Sequence[Run]) -> dict[tuple[int, ...], list[str]]:
    """Names of the nets by their seeds."""
    nets: dict[tuple[int, ...], list[str]] = {}
    for net in dict.fromkeys(run.net for run in runs):
        seeds = tuple(sorted({run.config["seed"] for run in runs if run.net == net}))
        nets.setdefault(seeds, []).append(net)
    return nets
