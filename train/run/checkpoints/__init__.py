"""Checkpoints of a run: saved, kept, read back and fitted to what is wanted."""
