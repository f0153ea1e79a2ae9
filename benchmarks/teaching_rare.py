"""A manifest in which some types are rare: `--cases` of their cases are kept, for generator and segmenter alike.

    python benchmarks/teaching_rare.py MANIFEST DATASET --types "normal gland" "serrated adenoma" --out rare.csv

MANIFEST is that of EBHI-Seg, with the columns tissue, case_id and split. The rows of split train of DATASET are kept,
but of each type those of `--cases` cases, drawn with seed 0; the other cases of these types are left out altogether.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from histoloom.patches.store import load_patches


def main() -> None:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--types", nargs="+", required=True)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    known, rng = set(load_patches(args.dataset, "train").cases), np.random.default_rng(0)
    with args.manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["case_id"] in known]
    for tissue in args.types:
        mine = sorted({row["case_id"] for row in rows if row["tissue"] == tissue})
        kept = set(rng.permutation(mine)[: args.cases].tolist())
        print(f"{tissue}: {len(kept)} of {len(mine)} cases: {', '.join(sorted(kept))}")
        known -= set(mine) - kept
    with args.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"split": "train"} for row in rows if row["case_id"] in known)


if __name__ == "__main__":
    main()
