"""Print the lowest version of every direct dependency, for a test with nothing newer.

python tests/lowest_versions.py > lowest.txt; pip install -r lowest.txt; pip install --no-deps -e .
"""

import re
import tomllib
from pathlib import Path


def lowest():
    """Requirements such as "numpy==2.0.0", without those for one operating system only."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    declared = project["dependencies"] + project["optional-dependencies"]["test"]
    for requirement in declared:
        if ";" not in requirement:
            name, version = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
            yield f"{name}=={version}{'.0' * (2 - version.count('.'))}"


if __name__ == "__main__":
    print("\n".join(lowest()))
