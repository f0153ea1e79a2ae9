"""The public metrics, for type checkers and, read by lazy_loader, for `histoloom/metrics/__init__.py` at run time."""

from .copy_score import best_match
from .copying import CopyRate, copy_rate, copy_threshold, wilson_interval
from .frechet import Extrapolated, frechet_at_infinity, frechet_distance
from .intervals import mean_interval, median_interval, statistic_interval
from .kernel import kid, median_distance, mmd_rbf
from .lab import mean_lab, rgb_to_lab
from .map_fidelity import confusion, dice, iou, mean_iou_interval, mean_over_present, merge_types
from .memorization import Authenticity, authenticity
from .neighbors import nearest
from .prdc import Prdc, prdc
from .stain_distance import StainDistance, stain_distance, stain_means, wasserstein
from .stain_following import StainFollowing, stain_following
from .two_sample import TwoSample, c2st

__all__ = [
    "Authenticity",
    "CopyRate",
    "Extrapolated",
    "Prdc",
    "StainDistance",
    "StainFollowing",
    "TwoSample",
    "authenticity",
    "best_match",
    "c2st",
    "confusion",
    "copy_rate",
    "copy_threshold",
    "dice",
    "frechet_at_infinity",
    "frechet_distance",
    "iou",
    "kid",
    "mean_interval",
    "mean_iou_interval",
    "mean_lab",
    "mean_over_present",
    "median_distance",
    "median_interval",
    "merge_types",
    "mmd_rbf",
    "nearest",
    "prdc",
    "rgb_to_lab",
    "stain_distance",
    "stain_following",
    "stain_means",
    "statistic_interval",
    "wasserstein",
    "wilson_interval",
]
