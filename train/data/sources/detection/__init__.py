"""Sets whose images have objects, each with a category and a rectangle."""
