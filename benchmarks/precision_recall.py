"""Precision, recall, density, coverage at n real and n synthetic images: Histoloom against the `prdc` package.

    python benchmarks/precision_recall.py [--n 10000] [--dimensions 512]

Each runs in a process of its own, so that peak memory is its own: resident memory at the end of its peak, less what it
had before the call. `pip install prdc`.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np

K = 5


def features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds that overlap in part."""
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal((n, d), np.float32) for _ in range(2))
    return real, 0.97 * fake + 0.02


def measure(name: str, n: int, d: int, answers: multiprocessing.Queue) -> None:
    """Run one method and put (figures, seconds, MB) into `answers`."""
    real, fake = features(n, d)
    try:
        if name == "Histoloom":
            from histoloom.metrics.prdc import prdc

            prdc(real[:64], fake[:64])  # loads what is loaded once
        else:
            from prdc import compute_prdc

            compute_prdc(real[:64], fake[:64], K)
    except ImportError as error:
        answers.put(str(error))
        return
    before, start = _peak(), time.perf_counter()
    found = prdc(real, fake, K).means() if name == "Histoloom" else compute_prdc(real, fake, K)
    answers.put(({k: float(v) for k, v in found.items()}, time.perf_counter() - start, _peak() - before))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=512)
    arguments = parser.parse_args()
    print(f"n = {arguments.n} a side, d = {arguments.dimensions}, k = {K}\n")
    print(
        "| method | seconds | further memory, MB | precision | recall | density | coverage |\n"
        "|---|---|---|---|---|---|---|"
    )
    context = multiprocessing.get_context("spawn")
    for name in ("Histoloom", "prdc package"):
        answers = context.Queue()
        process = context.Process(target=measure, args=(name, arguments.n, arguments.dimensions, answers))
        process.start()
        answer = answers.get()
        process.join()
        if isinstance(answer, str):
            print(f"| {name} | not installed ({answer}) | | | | | |")
            continue
        found, seconds, memory = answer
        figures = " | ".join(f"{found[key]:.4f}" for key in ("precision", "recall", "density", "coverage"))
        print(f"| {name} | {seconds:.1f} | {memory:.0f} | {figures} |")


if __name__ == "__main__":
    main()
