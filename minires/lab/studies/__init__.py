"""Single experiments, a file each."""
