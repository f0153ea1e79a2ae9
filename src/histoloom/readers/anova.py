"""The analysis of variance of Obuchowski and Rockette (1995), with the degrees of freedom of Hillis (2007).

Readers and cases are random. Covariances of readers are those of the U-statistic, as in iMRMC.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from histoloom.errors import InputError
from histoloom.readers.u_statistics import READER, Estimate, check_sizes, reader_estimates, variance_parts


@dataclass(frozen=True)
class Anova:
    """The estimate, and the parts of its variance."""

    estimate: Estimate
    reader_mean_square: float  # variance of the figures of readers
    error: float  # variance of the figure of one reader over cases, mean of readers
    covariance: float  # of the figures of two readers on the same cases (cov2), mean of pairs

    @property
    def reader(self) -> float:
        """Variance of readers without that of cases; below 0 where readers differ less than cases explain."""
        return self.reader_mean_square - self.error + self.covariance


def obuchowski_rockette(success: Float[np.ndarray, "r n0 n1"]) -> Anova:
    """Analyze the success of readers who scored every case; for two modalities give the difference of their successes.

    Raises InputError where a reader has not scored a case, and for fewer than 2 readers, negative or positive cases
    (Hillis 2007, doi 10.1002/sim.2532).
    """
    check_sizes(success)
    if np.isnan(success).any():
        raise InputError("need the score of every reader for every case; leave out cases, or use the U-statistic")
    readers = len(success)
    mean_square = float(success.mean(axis=(1, 2)).var(ddof=1))
    covariance = sum(part for axes, part in variance_parts(success)[1].items() if READER not in axes)
    total = mean_square + readers * max(covariance, 0.0)
    freedom = total**2 / (mean_square**2 / (readers - 1)) if mean_square else float("inf")
    error = float(np.mean([estimate.variance for estimate in reader_estimates(success)]))
    return Anova(Estimate(float(success.mean()), total / readers, freedom), mean_square, error, covariance)
