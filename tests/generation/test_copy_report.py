"""What is said of a finished folder: how many patches were searched for their crops, woven again, and still similar."""

import pytest

from histoloom.generation.copy_report import copy_report, crop_report


def row(number: int, score: float | None, tries: int = 1, limit: float | None = 0.6, crops: int = 1) -> dict:
    return {
        "image": f"images/{number}.png", "copy_score": score, "copy_limit": limit, "tries": tries,
        "crops": [{}] * crops,
    }  # fmt: skip


def test_what_was_woven_again_and_what_still_exceeds_the_limit_is_counted_and_named():
    rows = [row(0, 0.5), row(1, 0.55, 3), row(2, 0.7, 6), row(3, None)]
    line = "copy check: searched 3 of 4 patches; 2 exceeded the similarity limit 0.60 and were woven again, 1 still"
    assert copy_report(rows) == f"{line} exceed it, such as images/2.png; see copy_score in index.parquet"
    assert copy_report(rows[:2]).endswith(
        "1 exceeded the similarity limit 0.60 and were woven again, 0 still exceed it"
    )


@pytest.mark.parametrize(
    ("rows", "own_bank", "reason"),
    [
        ([row(0, None, crops=0)], False, "not needed, since the patches were woven without crops"),
        ([row(0, None, limit=1.0)], True, "not needed, since the model's own crops are synthetic"),
        ([row(0, None, limit=None)], False, "skipped, since the model has no copy limit; set one with --copy-limit"),
        ([row(0, None, limit=1.0)], False, "skipped, since a copy limit of 1 accepts everything"),
        ([row(0, None)], False, "nothing to compare, since crops or patches show no texture"),
    ],
)
def test_where_nothing_was_searched_it_is_said_why(rows, own_bank, reason):
    assert copy_report(rows, own_bank) == f"copy check: {reason}"


def test_patches_without_any_crop_are_counted():
    assert crop_report([row(0, 0.5), row(1, None)]) == ""
    assert crop_report([row(0, 0.5), row(1, None, crops=0), row(2, None, crops=0)]).startswith(
        "crops: none in 2 of 3 patches, since nothing that lends crops to their maps shows their types"
    )
