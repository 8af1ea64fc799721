"""The objects of an image: through a view, and in the rows of a batch."""
