"""Cluttered digits, made from scikit-learn's handwritten ones."""
