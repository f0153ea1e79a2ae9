"""How often 95 % intervals of the AUC hold the truth, on simulated readers of known skill (Roe and Metz 1997).

    python benchmarks/mrmc_coverage.py [--studies 1000] [--seed 0]

Scores have six steps, as in a study. Prints one row per design, as docs/benchmarks.md has it; goal: 93 to 97 %.
"""

import argparse
from itertools import product

import numpy as np
from scipy.stats import norm

from histoloom.readers import RoeMetz, obuchowski_rockette, one_shot, simulate, successes

DESIGNS = ((3, 60), (5, 30), (5, 60), (10, 60))  # readers, cases per kind
SKILLS = (0.5, 0.6, 0.75)


def auc_in_steps(model: RoeMetz) -> float:
    """The AUC of the mean reader on the scale with steps, where ties count half."""
    middle, width = model.separation / 2, (1 + model.reader + model.separation**2 / 4) ** 0.5
    steps = np.concatenate([[-np.inf], middle + width * norm.ppf(np.arange(1, model.levels) / model.levels), [np.inf]])
    negative, positive = (np.diff(norm.cdf(steps, mean, (1 + model.reader) ** 0.5)) for mean in (0, model.separation))
    return float((positive * (np.cumsum(negative) - negative / 2)).sum())


def covered(model: RoeMetz, readers: int, per_kind: int, studies: int, seed: int) -> tuple[list[float], list[float]]:
    """Shares of studies whose interval holds the truth, and mean widths: one-shot, then Obuchowski-Rockette."""
    rng, truth = np.random.default_rng((seed, readers, per_kind)), auc_in_steps(model)
    ends = []
    for _ in range(studies):
        success = successes(*simulate(model, readers, per_kind, rng))
        ends.append([one_shot(success).interval(), obuchowski_rockette(success).estimate.interval()])
    low, high = np.moveaxis(np.array(ends), 2, 0)
    return ((low <= truth) & (truth <= high)).mean(axis=0).tolist(), (high - low).mean(axis=0).tolist()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| readers | cases, real + synthetic | AUC | one-shot | Obuchowski-Rockette | width of the interval |")
    print("|---|---|---|---|---|---|")
    for (readers, per_kind), auc in product(DESIGNS, SKILLS):
        shares, widths = covered(RoeMetz(auc=auc), readers, per_kind, arguments.studies, arguments.seed)
        print(
            f"| {readers} | {per_kind} + {per_kind} | {auc} | {100 * shares[0]:.1f} % | {100 * shares[1]:.1f} % | "
            f"{widths[0]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
