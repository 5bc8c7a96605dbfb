"""How weights change. Start reading at `step`."""
