"""One line each on the search for copies of crops in woven patches, and on the self-check."""

from collections.abc import Iterable
from pathlib import Path

from histoloom.generation.woven_reader import iter_index, read_dropped
from histoloom.text import counted


def copy_report(rows: Iterable[dict], own_bank: bool = False) -> str:
    """How many of the patches in the `rows` of an index were searched, woven again, and are still similar to a crop.

    Where none was searched, why that is fine. `own_bank`: the crops were woven by the model itself.
    """
    total, searched, again, limit, with_crops = 0, 0, 0, None, False
    similar, limits = [], set()
    for row in rows:
        total, with_crops = total + 1, with_crops or bool(row["crops"])
        limits.add(row["copy_limit"])
        if row["copy_score"] is None:
            continue
        searched, again, limit = searched + 1, again + (row["tries"] > 1), row["copy_limit"]
        if row["copy_score"] > row["copy_limit"]:
            similar.append(row["image"])
    if searched:
        named = f", such as {similar[0]}; see copy_score in index.parquet" if similar else ""
        return (
            f"copy check: searched {searched} of {counted(total, 'patch')}; {again} exceeded the similarity limit "
            f"{limit:.2f} and were woven again, {len(similar)} still exceed it{named}"
        )
    if not with_crops:
        return "copy check: not needed, since the patches were woven without crops"
    if own_bank:
        return "copy check: not needed, since the model's own crops are synthetic"
    if limits == {None}:
        return "copy check: skipped, since the model has no copy limit; set one with --copy-limit"
    if limits == {1}:
        return "copy check: skipped, since a copy limit of 1 accepts everything"
    return "copy check: nothing to compare, since crops or patches show no texture"


def crop_report(rows: Iterable[dict]) -> str:
    """How many of the patches were woven without any crop although crops were given; empty where none was."""
    crops = [len(row["crops"]) for row in rows]
    if not (none := crops.count(0)):
        return ""
    return (
        f"crops: none in {none} of {counted(len(crops), 'patch')}, since nothing that lends crops to their maps "
        "shows their types; there, the model chose the look"
    )


def check_report(folder: Path) -> str:
    """How many patches of a checked folder were replaced and dropped, why, and how many pixels became unlabeled."""
    copies, maps, replaced, patches, lossy, judged = 0, 0, 0, 0, 0.0, 0
    for row in iter_index(folder):
        copies, maps = copies + row["rejected_copies"], maps + row["rejected_maps"]
        replaced += row["rejected_copies"] + row["rejected_maps"] > 0
        patches += 1
        if row["lossy"] is not None:
            lossy, judged = lossy + row["lossy"], judged + 1
    dropped = read_dropped(folder)
    copies += sum(one.rejected_copies for one in dropped)
    maps += sum(one.rejected_maps for one in dropped)
    unlabeled = f"; {lossy / judged:.1%} of the pixels became unlabeled" if judged else ""
    return (
        f"self-check: {copies + maps} patches failed ({copies} resembled a crop, {maps} missed their map); {replaced} "
        f"of {patches} are replacements, {len(dropped)} could not be replaced and were dropped{unlabeled}"
    )
