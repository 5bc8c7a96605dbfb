"""Download CIFAR-10 and print its folder: `python data_scripts/get_cifar10.py [FOLDER]`."""

import sys
from pathlib import Path

from minires.data import cifar10_install
from minires.errors import InputError

if __name__ == "__main__":
    try:
        if any(word.startswith("-") for word in sys.argv[1:]) or len(sys.argv) > 2:
            raise InputError(
                f"expected the folder to put CIFAR-10 into, or nothing, got {sys.argv[1:]}; "
                "give one path"
            )
        print(cifar10_install.download(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
