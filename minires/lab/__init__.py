"""Runs out: what is trained, how it is recorded, resumed, drawn. Start reading at `train`."""
