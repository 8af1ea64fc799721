"""Pure functions of points, rectangles and masks."""
