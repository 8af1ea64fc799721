"""Modules from the maps of a backbone to an output."""
