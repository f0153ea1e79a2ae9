"""How often 95 % intervals over cases hold the truth, simulated at 5 to 50 cases.

    python benchmarks/coverage.py [--times 2000]

Cases have 2 to 17 images each, those of some shares 100, and half of the variance lies between cases. Prints one row
per figure, as docs/benchmarks.md has it; goal: 93 to 97 %.
"""

import argparse
from collections.abc import Callable

import numpy as np

from histoloom.metrics.copying import copy_rate, copy_threshold
from histoloom.metrics.frechet import frechet_distance
from histoloom.metrics.intervals import (
    mean_interval,
    mean_spread,
    median_interval,
    positive_interval,
    statistic_interval,
)
from histoloom.metrics.map_fidelity import mean_iou_interval

CASES = (5, 10, 20, 50)
Draw = Callable[[np.random.Generator, int], tuple[float, float]]


def cases_of(rng: np.random.Generator, number: int) -> np.ndarray:
    """The case of each image."""
    return np.repeat(np.arange(number), rng.integers(2, 18, number))


def normal(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Values that vary as much between cases as within, with mean 0."""
    cases = cases_of(rng, number)
    return rng.standard_normal(number)[cases] + rng.standard_normal(len(cases)), cases


def share(rng: np.random.Generator, number: int, of: float, size: int = 0) -> tuple[float, float]:
    """Interval of a share, such as precision, of cases of `size` images where that is not 0."""
    cases = np.repeat(np.arange(number), size) if size else cases_of(rng, number)
    chances = rng.beta(4 * of, 4 * (1 - of), number)[cases]
    return mean_interval((rng.random(len(cases)) < chances).astype(float), cases)


def density(rng: np.random.Generator, number: int) -> tuple[float, float]:
    """Interval of a mean of counts, as of density, with mean 1."""
    cases = cases_of(rng, number)
    values = rng.poisson(5 * rng.gamma(4, 1 / 4, number)[cases]) / 5
    return positive_interval(float(values.mean()), mean_spread(values, cases))


def drift(rng: np.random.Generator, number: int) -> tuple[float, float]:
    """Interval of the difference of two means, each over `number` cases."""
    (real, of_real), (fake, of_fake) = normal(rng, number), normal(rng, number)
    return statistic_interval(lambda r, f: float(fake[f].mean() - real[r].mean()), of_real, of_fake)


def mean_iou(rng: np.random.Generator, number: int) -> tuple[float, float]:
    """Interval of a mean IoU of two equal types, of which a share of 0.8 is found: IoU 2/3."""
    cases = cases_of(rng, number)
    found = (1000 * rng.beta(8, 2, number)[cases]).round().astype(np.int64)
    counts = np.stack([np.stack([found, 1000 - found], -1), np.stack([1000 - found, found], -1)], 1)
    return mean_iou_interval(counts, cases)


def frechet(rng: np.random.Generator, number: int) -> tuple[float, float]:
    """Interval of a Fréchet distance in two dimensions, each side of `number` cases of 10 images."""
    cases = np.repeat(np.arange(number), 10)
    real, fake = (rng.standard_normal((number, 2))[cases] + rng.standard_normal((len(cases), 2)) for _ in range(2))
    fake = fake + 4
    return statistic_interval(lambda r, f: frechet_distance(real[r], fake[f]), cases, cases)


def copies(rng: np.random.Generator, number: int) -> tuple[float, float]:
    """Interval of a copy rate of 100 crops, whatever the cases, with the error of the threshold of 400 pairs."""
    shift = 2.3263 - 0.5244  # three tenths exceed the true threshold
    return _ends(copy_rate(rng.standard_normal(100) + shift, copy_threshold(rng.standard_normal(400))))


def _ends(rate) -> tuple[float, float]:
    return rate.low, rate.high


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000)
    times = parser.parse_args().times
    means = np.mean([_truth_of_frechet(seed) for seed in range(300)])
    figures: dict[str, tuple[Draw, float, int]] = {
        "mean": (lambda rng, n: mean_interval(*normal(rng, n)), 0.0, times),
        "share of 0.5": (lambda rng, n: share(rng, n, 0.5), 0.5, times),
        "share of 0.8": (lambda rng, n: share(rng, n, 0.8), 0.8, times),
        "share of 0.95": (lambda rng, n: share(rng, n, 0.95), 0.95, times),
        "share of 0.5, 100 images per case": (lambda rng, n: share(rng, n, 0.5, 100), 0.5, times),
        "share of 0.95, 100 images per case": (lambda rng, n: share(rng, n, 0.95, 100), 0.95, times),
        "share of 0.98, 100 images per case": (lambda rng, n: share(rng, n, 0.98, 100), 0.98, times),
        "density": (density, 1.0, times),
        "median": (lambda rng, n: median_interval(*normal(rng, n), draws=200), 0.0, times // 4),
        "difference of two sides": (drift, 0.0, times // 2),
        "mean IoU": (mean_iou, 2 / 3, times),
        "Fréchet distance, two sides": (frechet, float(means), times // 10),
        "copy rate": (copies, 0.3, times),
    }
    print("| 95 % interval of | " + " | ".join(f"{number} cases" for number in CASES) + " |\n|" + "---|" * 5)
    for name, (draw, truth, repeats) in figures.items():
        cells = []
        for number in CASES:
            rng = np.random.default_rng((number, 1))
            held = [low <= truth <= high for low, high in (draw(rng, number) for _ in range(repeats))]
            cells.append(f"{100 * np.mean(held):.1f} %")
        print(f"| {name} | {' | '.join(cells)} |")


def _truth_of_frechet(seed: int) -> float:
    """The distance between many images of many cases."""
    rng = np.random.default_rng((seed, 2))
    real, fake = (2**0.5 * rng.standard_normal((4000, 2)) for _ in range(2))
    return frechet_distance(real, fake + 4)


if __name__ == "__main__":
    main()
