"""How long does the default report take? `histoloom evaluate` on 500 real and 500 woven patches, nothing cached.

    histoloom generate ebhi-seg --layouts 500 --out woven/500
    python benchmarks/report.py DATASET woven/500

Real ones are of split train, which alone has 500 here; which split it is makes no difference to the time.
"""

import argparse
import resource
import subprocess
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run the command once and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("woven", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command = ["histoloom", "evaluate", "--real", arguments.dataset, "--split", "train", "--fake", arguments.woven]
        start = time.perf_counter()
        subprocess.run([*command, "--cache", out / "cache.sqlite", "--out", out / "report"], check=True)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (out / "report" / "report.html").stat().st_size
    print(f"\n{seconds:.0f} s, {used.ru_utime + used.ru_stime:.0f} of the processor; page of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
