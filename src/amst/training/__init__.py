"""The loop of a run, its checkpoints and its recorder."""
