"""Convolutional Rectangular Attention Module (CRAM) for JAX and Flax linen."""
