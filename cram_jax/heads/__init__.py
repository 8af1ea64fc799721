"""Modules from the maps of a backbone to an output.

Files, each built on those before it: classifier, top_down, segmentation,
detection_targets, detections, detection.
"""
