"""Files of a run: no other package opens them."""
