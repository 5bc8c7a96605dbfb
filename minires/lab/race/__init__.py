"""The race of figure 1 in AlexNet's paper, and ablations of its tricks on the same network."""
