"""Statistics of reader studies with readers and cases random: pure functions of arrays, usable on any scores.

    from histoloom.readers import one_shot, successes

    estimate = one_shot(successes(scores, positive))  # scores `r n` of readers and cases, nan where not scored
    low, high = estimate.interval()

The functions need the extra `studio` (SciPy, statsmodels, krippendorff).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
