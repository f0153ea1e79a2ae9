"""Fréchet distance from features: Histoloom against torch-fidelity, clean-fid and torchmetrics, on the same arrays.

    python benchmarks/frechet.py [--n 500 5000] [--dimensions 512 1024 2048] [--repeats 3]

Correlated Gaussian features whose spectrum falls as that of real encoders does (eigenvalue i ~ 1 / i). Each peer gets
the same two arrays and is asked for what it computes from features: means, covariances, distance. Best of `--repeats`,
wall clock; peers that are not installed are left out: `pip install torch-fidelity clean-fid torchmetrics`. The textbook
row is the formula with scipy's matrix root.
"""

import argparse
import importlib
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from histoloom.metrics.frechet import frechet_distance


def features(n: int, d: int, seed: int) -> np.ndarray:
    """`n` rows of `d` correlated features, single precision as encoders give them."""
    rng = np.random.default_rng(seed)
    # Each side has directions of its own: with common ones the covariances commute, which no real ones do.
    turn = np.linalg.qr(np.random.default_rng((d, seed)).standard_normal((d, d))).Q
    scales = (1 + 0.1 * seed) / np.sqrt(np.arange(1, d + 1))
    return ((rng.standard_normal((n, d)) * scales + 0.05 * seed * scales) @ turn).astype(np.float32)


def moments(real: np.ndarray, fake: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and covariance of both sides in double precision."""
    return [(x.mean(axis=0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)) for x in (real, fake)]


def textbook(real: np.ndarray, fake: np.ndarray) -> float:
    """Heusel et al. 2017 with scipy's matrix root."""
    from scipy.linalg import sqrtm

    (mean, cov), (other_mean, other_cov) = moments(real, fake)
    root = np.real(sqrtm(cov @ other_cov))
    return float(((mean - other_mean) ** 2).sum() + np.trace(cov) + np.trace(other_cov) - 2 * np.trace(root))


def by_torch_fidelity(real: np.ndarray, fake: np.ndarray) -> float:
    """torch-fidelity, from its own statistics of features."""
    module = importlib.import_module("torch_fidelity.metric_fid")
    sides = [module.fid_features_to_statistics(torch.from_numpy(x)) for x in (real, fake)]
    found = module.fid_statistics_to_metric(*sides, verbose=False)
    return float(next(iter(found.values())) if isinstance(found, dict) else found)


def by_clean_fid(real: np.ndarray, fake: np.ndarray) -> float:
    """clean-fid."""
    module = importlib.import_module("cleanfid.fid")
    return float(module.fid_from_feats(real, fake))


def by_torchmetrics(real: np.ndarray, fake: np.ndarray) -> float:
    """torchmetrics' own distance of two Gaussians."""
    module = importlib.import_module("torchmetrics.image.fid")
    (mean, cov), (other_mean, other_cov) = ([torch.from_numpy(a) for a in side] for side in moments(real, fake))
    return float(module._compute_fid(mean, cov, other_mean, other_cov))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "Histoloom": frechet_distance,
    "textbook (scipy)": textbook,
    "torch-fidelity": by_torch_fidelity,
    "clean-fid": by_clean_fid,
    "torchmetrics": by_torchmetrics,
}


def main() -> None:
    """Print one row per method, n and d."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[500, 5000], help="images a side")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads\n")
    print("| n | d | method | seconds | times ours | distance | relative difference |\n|---|---|---|---|---|---|---|")
    for n, d in itertools.product(arguments.n, arguments.dimensions):
        compare(n, d, arguments.repeats)


def compare(n: int, d: int, repeats: int) -> None:
    """Print one row per method for `n` images a side of `d` features."""
    real, fake = features(n, d, 0), features(n, d, 1)
    ours: tuple[float, float] | None = None
    for name, distance in METHODS.items():
        seconds = []
        try:
            for _ in range(repeats):
                start = time.perf_counter()
                value = distance(real, fake)
                seconds.append(time.perf_counter() - start)
        except ImportError as error:
            print(f"| {n} | {d} | {name} | not installed ({error.name}) | | | |")
            continue
        ours = ours or (min(seconds), value)
        apart = abs(value - ours[1]) / ours[1]
        row = f"{min(seconds):.3f} | {min(seconds) / ours[0]:.1f} | {value:.6f} | {apart:.1e}"
        print(f"| {n} | {d} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
