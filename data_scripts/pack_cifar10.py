"""
Pack CIFAR-10 for a classroom: `python data_scripts/pack_cifar10.py [FOLDER] cifar10.tar.gz`.

Students install it offline with `minires data cifar10 --from cifar10.tar.gz --trust`. The script
prints the file's SHA-256, so that they can check their copy.
"""

import hashlib
import sys
import tarfile
from pathlib import Path

from minires import data
from minires.data.paths import expanded
from minires.errors import InputError

if __name__ == "__main__":
    try:
        if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
            raise InputError(
                f"expected [FOLDER] and the tarball to write, got {sys.argv[1:]}; "
                "give one or two paths"
            )
        folder = sys.argv[1] if len(sys.argv) == 3 else None
        tarball = expanded(sys.argv[-1])
        source = Path(data.load("cifar10", folder).source)
        layout, files = next(
            found for found in data.cifar10.FILES.items() if (source / found[1][0]).is_file()
        )
        with tarfile.open(tarball, "w:gz") as tar:
            for name in files:
                tar.add(source / name, f"{layout}/{name}")
        print(hashlib.sha256(tarball.read_bytes()).hexdigest(), tarball)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
