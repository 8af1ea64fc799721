"""Attention layers: a map in, the same map gated out.

Files, each built on those before it: gate, evidence, moments, tiles, trunk, predictors,
rectangular, channel, positionwise, registry.
"""
