"""`histoloom generate` by two workers and by two Ray workers against one process: seconds, ratios, bytes, memory.

    python benchmarks/generate_workers.py [MODEL] [--patches 24] [--size 224] [--steps N]

Each way weaves the same drawn layouts with the model's bank, in a process of its own with one thread per worker, and
the bytes of all files are compared. Seconds count from the start of weaving to the finished folder, so the start of
workers is in them. The last rows show how the peak memory of one process grows with the number of patches, at 64 px and
one step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from histoloom.weights import find_model

CALL = """
import json, resource, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from histoloom.distributed import Workers
from histoloom.generation.woven_reader import iter_index
from histoloom.generation.settings import DrawnMaps, Source, WeaveConfig
from histoloom.generation.woven_folder import weave_folder
from histoloom.models.pipeline import HistoloomPipeline
model, out, count, size, steps, workers, ray = json.loads(sys.argv[1])
if ray:
    import ray as library
    library.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
pipeline = HistoloomPipeline.load(model)
source = Source(maps=DrawnMaps(count=count, size=size), crops=Path(model) / "crops")
begun = time.perf_counter()
used = sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
weave_folder(pipeline, source, WeaveConfig(steps=steps, copy_limit=1.0), Path(out), True,
             workers=Workers(workers, "local" if ray else ""))
seconds = time.perf_counter() - begun
used = sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) - used
print(json.dumps([seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def run(*arguments: object) -> tuple[float, float, float]:
    """Seconds, processor seconds, and MB at the peak, of one way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CALL, json.dumps([str(a) if isinstance(a, Path) else a for a in arguments])],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, used, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, used, peak


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="ebhi-seg")
    parser.add_argument("--patches", type=int, default=24)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--memory", type=int, nargs="*", default=[64, 1024])
    given = parser.parse_args()
    folder = Path(find_model(given.model))
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| workers | seconds | against one process | processor seconds | bytes |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        ways = {"one process": (1, False), "two processes": (2, False), "two Ray workers": (1, True)}
        first, whole = 0.0, {}
        for name, (workers, ray) in ways.items():
            out = Path(place) / name
            seconds, used, _ = run(folder, out, given.patches, given.size, given.steps, workers, ray)
            first, whole = first or seconds, whole or contents(out)
            known = "not known" if ray else f"{used:.1f}"  # Ray starts its workers apart from this process
            same = "the same" if contents(out) == whole else "OTHER"
            print(f"| {name} | {seconds:.1f} | {first / seconds:.2f} | {known} | {same} |", flush=True)
        print("| patches of 64 px | MB at the peak of one process |\n|---|---|")
        for count in given.memory:
            _, _, peak = run(folder, Path(place) / str(count), count, 64, 1, 1, False)
            print(f"| {count} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
