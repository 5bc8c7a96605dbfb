"""Exchange networks with other libraries: the PyTorch twin."""
