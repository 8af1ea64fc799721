"""Pure functions of points, rectangles and masks.

Files, each built on those before it: coordinates, batched, rectangle, raw, cells,
distances, overlap, pairwise, matching, average_precision, similarity, warping, edges,
rendering, pixels, coverage.
"""
