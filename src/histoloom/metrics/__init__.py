"""Metrics of synthetic images: pure functions of arrays, usable without the rest of Histoloom.

    from histoloom.metrics import frechet_distance, prdc

    distance = frechet_distance(real_features, fake_features)  # float arrays `n d` and `m d`
    precision = prdc(real_features, fake_features).means()["precision"]

Features come from any encoder. The functions need NumPy and torch; `frechet_distance` needs SciPy and `c2st` needs
scikit-learn (`pip install 'histoloom[evaluate]'`). They read no files and import nothing of Histoloom but its errors
and its stain model. Importing this package loads no torch; a name loads its module.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from histoloom.metrics.copy_score import best_match as best_match
    from histoloom.metrics.copying import CopyRate as CopyRate
    from histoloom.metrics.copying import copy_rate as copy_rate
    from histoloom.metrics.copying import copy_threshold as copy_threshold
    from histoloom.metrics.copying import wilson_interval as wilson_interval
    from histoloom.metrics.frechet import Extrapolated as Extrapolated
    from histoloom.metrics.frechet import frechet_at_infinity as frechet_at_infinity
    from histoloom.metrics.frechet import frechet_distance as frechet_distance
    from histoloom.metrics.intervals import mean_interval as mean_interval
    from histoloom.metrics.intervals import median_interval as median_interval
    from histoloom.metrics.intervals import statistic_interval as statistic_interval
    from histoloom.metrics.kernel import kid as kid
    from histoloom.metrics.kernel import median_distance as median_distance
    from histoloom.metrics.kernel import mmd_rbf as mmd_rbf
    from histoloom.metrics.lab import mean_lab as mean_lab
    from histoloom.metrics.lab import rgb_to_lab as rgb_to_lab
    from histoloom.metrics.map_fidelity import confusion as confusion
    from histoloom.metrics.map_fidelity import dice as dice
    from histoloom.metrics.map_fidelity import iou as iou
    from histoloom.metrics.map_fidelity import mean_iou_interval as mean_iou_interval
    from histoloom.metrics.map_fidelity import mean_over_present as mean_over_present
    from histoloom.metrics.map_fidelity import merge_types as merge_types
    from histoloom.metrics.memorization import Authenticity as Authenticity
    from histoloom.metrics.memorization import authenticity as authenticity
    from histoloom.metrics.neighbors import nearest as nearest
    from histoloom.metrics.prdc import Prdc as Prdc
    from histoloom.metrics.prdc import prdc as prdc
    from histoloom.metrics.stain_distance import StainDistance as StainDistance
    from histoloom.metrics.stain_distance import stain_distance as stain_distance
    from histoloom.metrics.stain_distance import stain_means as stain_means
    from histoloom.metrics.stain_distance import wasserstein as wasserstein
    from histoloom.metrics.stain_following import StainFollowing as StainFollowing
    from histoloom.metrics.stain_following import stain_following as stain_following
    from histoloom.metrics.two_sample import TwoSample as TwoSample
    from histoloom.metrics.two_sample import c2st as c2st

_HOMES = {
    "copy_score": ("best_match",),
    "copying": ("CopyRate", "copy_rate", "copy_threshold", "wilson_interval"),
    "frechet": ("Extrapolated", "frechet_at_infinity", "frechet_distance"),
    "intervals": ("mean_interval", "median_interval", "statistic_interval"),
    "kernel": ("kid", "median_distance", "mmd_rbf"),
    "lab": ("mean_lab", "rgb_to_lab"),
    "map_fidelity": ("confusion", "dice", "iou", "mean_iou_interval", "mean_over_present", "merge_types"),
    "memorization": ("Authenticity", "authenticity"),
    "neighbors": ("nearest",),
    "prdc": ("Prdc", "prdc"),
    "stain_distance": ("StainDistance", "stain_distance", "stain_means", "wasserstein"),
    "stain_following": ("StainFollowing", "stain_following"),
    "two_sample": ("TwoSample", "c2st"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = tuple(sorted(_MODULE_OF))  # pyright: ignore[reportUnsupportedDunderAll] (a test compares it with the imports)


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
