"""Pure functions of points, rectangles and masks.

Files, each built on those before it: coordinates, batched, rectangle, raw, cells,
distances, overlap, similarity, warping, edges, rendering, pixels, coverage.
"""
