"""Train with SGD and with equal angles for lesson 5b, and write the errors to runs/equal-angles.json.

`python lessons/record_angles.py` takes about a quarter of an hour on two cores.
"""

import itertools
import json

from style import RECORDS

from minires.lab.studies.equal_angles import RULES, errors

NETS = ("plain20", "plain56", "resnet56")
SEEDS = (0,)


def main():
    """Train every network with both rules, and write the file after each training."""
    rows = []
    for seed, rule, net in itertools.product(SEEDS, RULES, NETS):
        found = [round(float(error), 4) for error in errors(net, rule, seed=seed)]
        rows.append({"net": net, "rule": rule, "seed": seed, "errors": found})
        print(f"{net}, {rule}, seed {seed}: {sum(found[-40:]) / 40:.1f} %", flush=True)
        text = ",\n ".join(json.dumps(row) for row in rows)
        (RECORDS / "equal-angles.json").write_text(f"[{text}]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
