"""Data sources: images, labels and where the object is."""
