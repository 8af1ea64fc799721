"""Measurements: scripts that a person can run, results as JSON and Markdown."""
