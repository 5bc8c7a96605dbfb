"""Networks: one paper, one file; `registry` makes them by name."""
