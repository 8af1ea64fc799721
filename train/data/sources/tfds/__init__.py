"""Prepared TFDS sets as a data source."""
