"""`python -m minires` is the command `minires`."""

from minires.cli import main

main()
