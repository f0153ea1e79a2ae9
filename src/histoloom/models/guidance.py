"""How strongly map and crops are followed, and between which shares of noise.

v = v_00 + map (v_m0 - v_00) + crop (v_mc - v_m0), where v_mc is predicted with map and crops, v_m0 with the map alone,
v_00 with neither (Ho & Salimans 2022, for two conditions). It acts within an interval of noise levels alone
(Kynkaanniemi et al. 2024): elsewhere what is above 1 counts as 1, so that conditions are followed as learned, by
one prediction in place of three.
"""

from dataclasses import dataclass

from histoloom.conditioning.inputs import Conditioning
from histoloom.errors import ConfigError

Shown = tuple[bool, bool]  # whether a prediction sees the map, and the crops


@dataclass(frozen=True)
class Guidance:
    """1 follows a condition as learned, above 1 exaggerates it, 0 leaves it out. Of what the network sees, the share of
    noise runs from 1 to 0; for flow that is time."""

    map: float = 1.5
    crop: float = 3.0
    interval: tuple[float, float] = (0.4, 0.9)

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"guidance_interval {low:g} to {high:g}: give two shares of noise, 0 <= first <= second <= 1"
            )

    def acts(self, share: float) -> bool:
        """Whether this share of noise lies in the interval."""
        return self.interval[0] <= share <= self.interval[1]

    def weights(self, conditioning: Conditioning, has_crops: bool, acts: bool = True) -> dict[Shown, float]:
        """Weight of each prediction; those of weight zero are not needed, and not in it."""
        by_map, by_crop = (self.map, self.crop) if acts else (min(self.map, 1.0), min(self.crop, 1.0))
        if conditioning == "unconditional":
            return {(False, False): 1.0}
        if conditioning == "map" or not has_crops:
            weights = {(True, False): by_map, (False, False): 1 - by_map}
        else:
            weights = {(True, True): by_crop, (True, False): by_map - by_crop, (False, False): 1 - by_map}
        return {shown: weight for shown, weight in weights.items() if weight}
