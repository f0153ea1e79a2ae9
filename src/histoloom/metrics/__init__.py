"""Metrics of synthetic images: pure functions of arrays, usable without the rest of Histoloom.

    from histoloom.metrics import frechet_distance, prdc

    distance = frechet_distance(real_features, fake_features)  # float arrays `n d` and `m d`
    precision = prdc(real_features, fake_features).means()["precision"]

Features come from any encoder. The functions need NumPy and torch; the Fréchet distance and the intervals also need
SciPy, and `c2st` needs scikit-learn (`pip install 'histoloom[evaluate]'`). They read no files and import nothing of
Histoloom but its errors and its stain model. Importing this package loads no torch; a name loads its module.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
