"""Canvases: annotated synthetic slides of any size."""
