"""Histoloom weaves annotated synthetic tissue: it generates an H&E patch from a semantic map and raw crops.

The public names are those of `__init__.pyi`. Importing the package loads no torch; the first use of a name loads its
module.
"""

import lazy_loader

from histoloom import version

__version__ = version.VERSION

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
