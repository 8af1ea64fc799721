"""Attention layers: a map in, the same map gated out."""
