"""Patch datasets: cut from slides, imported from pictures, and loaded into memory.

    from histoloom.patches import PlaceReader, load_patches

    patches = load_patches("patches", "train")  # images, maps, cases, sources, mpp, places
    patches = load_patches("index", "train", PlaceReader("index").read)  # an index of places in slides

Importing this package loads neither torch nor a slide library; a name loads its module. What cuts slides needs
`pip install 'histoloom[slides]'`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
