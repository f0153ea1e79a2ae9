"""Whole slides and their annotations: arrays and polygons in level-0 pixels.

    from histoloom.slides import open_slide, read_annotations

    with open_slide("a.svs") as slide:
        image = slide.read(x=1000, y=2000, size=256, mpp=0.5)  # uint8 `h w 3`
        annotation = read_annotations("a.geojson", table, slide.size, slide.mpp, origin=slide.bounds[:2])
        semantic_map = annotation.read(1000, 2000, 256, 0.5)  # uint8 `h w`, ids of the tissue table

Needs `pip install 'histoloom[slides]'`. Importing this package loads no slide library; a name loads its module.
"""

import logging

import lazy_loader

# tifffile logs what is wrong with a damaged file without naming it; our own errors say it in one line that does.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
