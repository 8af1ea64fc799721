"""Folders of images as a data source."""
