"""Networks in and out: the PyTorch twin."""
