"""Whole slides in; arrays and polygons out."""

import logging

# What tifffile would print of a damaged file, without naming it, is said by our own errors in one line.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
