"""The training program around `cram_jax`: `python -m train --help`."""
