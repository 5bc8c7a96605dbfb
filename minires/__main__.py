"""`python -m minires` is the command `minires`."""

import sys


def main() -> None:
    """Import the command line, which takes a moment, and run it."""
    try:
        from minires import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
