"""The public names, for type checkers and, read by lazy_loader, for `histoloom/readers/__init__.py` at run time."""

from .accuracy import Share, exact_share, reader_shares
from .agreement import fleiss_kappa, krippendorff_alpha
from .anova import Anova, obuchowski_rockette
from .equivalence import Answer, answer
from .simulation import RoeMetz, power, simulate
from .u_statistics import Estimate, one_shot, reader_estimates, successes

__all__ = [
    "Anova",
    "Answer",
    "Estimate",
    "RoeMetz",
    "Share",
    "answer",
    "exact_share",
    "fleiss_kappa",
    "krippendorff_alpha",
    "obuchowski_rockette",
    "one_shot",
    "power",
    "reader_estimates",
    "reader_shares",
    "simulate",
    "successes",
]
