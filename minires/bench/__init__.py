"""How fast it is: networks and single ops, against PyTorch and against another checkout."""
