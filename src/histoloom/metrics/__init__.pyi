"""The public names, for type checkers and, read by lazy_loader, for `histoloom/metrics/__init__.py` at run time."""

from .copy_score import best_match, best_matches
from .copying import CopyRate, CopyThreshold, copy_rate, copy_threshold, wilson_interval
from .frechet import Extrapolated, frechet_at_infinity, frechet_distance
from .intervals import (
    Spread,
    bounded_interval,
    mean_interval,
    median_interval,
    positive_interval,
    share_interval,
    statistic_interval,
    statistic_spread,
    t_interval,
    two_factor_spread,
)
from .kernel import kid, median_distance, mmd_rbf
from .lab import mean_lab, rgb_to_lab
from .map_fidelity import (
    cases_of_types,
    confusion,
    dice,
    iou,
    mean_iou_interval,
    mean_over_present,
    mean_over_types,
    merge_types,
)
from .memorization import Authenticity, authenticity
from .neighbors import nearest
from .prdc import Prdc, prdc
from .seams import Border, Seams, border, seams
from .sliced import mind
from .stain_distance import StainDistance, stain_distance, stain_means, wasserstein
from .stain_following import StainFollowing, stain_following
from .two_sample import TwoSample, c2st

__all__ = [
    "Authenticity",
    "Border",
    "CopyRate",
    "CopyThreshold",
    "Extrapolated",
    "Prdc",
    "Seams",
    "Spread",
    "StainDistance",
    "StainFollowing",
    "TwoSample",
    "authenticity",
    "best_match",
    "best_matches",
    "border",
    "bounded_interval",
    "c2st",
    "cases_of_types",
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
    "mean_over_types",
    "median_distance",
    "median_interval",
    "merge_types",
    "mind",
    "mmd_rbf",
    "nearest",
    "positive_interval",
    "prdc",
    "rgb_to_lab",
    "seams",
    "share_interval",
    "stain_distance",
    "stain_following",
    "stain_means",
    "statistic_interval",
    "statistic_spread",
    "t_interval",
    "two_factor_spread",
    "wasserstein",
    "wilson_interval",
]
