"""How a patch is sampled: sampler, steps, and how strongly map and crops are followed.

v = v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0), where v_mc is predicted with map and crops, v_m0 with the map alone,
and v_00 with neither (Ho & Salimans 2022, for two conditions). Guidance above 1 acts only within an interval of noise
levels (Kynkaanniemi et al. 2024); outside, it counts as 1: conditions are followed as learned, by one prediction
instead of three.

This module imports nothing heavy, so that the command line reads its defaults from here.
"""

from dataclasses import dataclass

from histoloom.conditioning.kinds import Reads
from histoloom.config import check_numbers
from histoloom.errors import ConfigError

Shown = tuple[bool, bool]  # whether a prediction sees the map, and the crops
MOST_STEPS = 1000  # the schedules have no more
MOST_GUIDANCE = 100.0
MOST_EDGE = 4096  # px of a patch, which is held in memory whole; `histoloom canvas` weaves larger images


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a patch is sampled."""

    steps: int | None = None  # 1 to 1000; None: the sampler's usual number
    sampler: str | None = None  # a name in `histoloom.models.schedulers.SAMPLERS`; None: the one saved with the model
    map_guidance: float = 1.5  # 1 follows the map as learned, more exaggerates it, 0 ignores it
    crop_guidance: float = 2.0  # the same for crops
    guidance_interval: tuple[float, float] = (0.4, 0.9)  # shares of noise between which guidance above 1 acts

    def __post_init__(self):
        check_numbers(self)
        if self.steps is not None and not (isinstance(self.steps, int) and 1 <= self.steps <= MOST_STEPS):
            raise ConfigError(f"steps is {self.steps}; give a whole number from 1 to {MOST_STEPS}")
        for name in ("map_guidance", "crop_guidance"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= MOST_GUIDANCE:
                raise ConfigError(f"{name} is {value}; give a number from 0 to {MOST_GUIDANCE:g}")
        interval = self.guidance_interval
        if not (isinstance(interval, tuple | list) and len(interval) == 2):
            raise ConfigError(f"guidance_interval is {interval}; give two shares of noise")
        low, high = interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"guidance_interval is {low:g} to {high:g}; give two shares of noise, 0 <= first <= second <= 1"
            )

    def acts(self, share: float) -> bool:
        """Whether guidance above 1 acts at this share of noise."""
        return self.guidance_interval[0] <= share <= self.guidance_interval[1]

    def weights(self, reads: Reads, has_crops: bool, acts: bool = True) -> dict[Shown, float]:
        """The weight of each prediction; predictions of weight zero are left out."""
        by_map, by_crop = self.map_guidance, self.crop_guidance
        if not acts:
            by_map, by_crop = min(by_map, 1.0), min(by_crop, 1.0)
        if not reads.map:
            return {(False, False): 1.0}
        if not reads.crops or not has_crops:
            weights = {(True, False): by_map, (False, False): 1 - by_map}
        else:
            weights = {(True, True): by_crop, (True, False): by_map - by_crop, (False, False): 1 - by_map}
        return {shown: weight for shown, weight in weights.items() if weight}
