"""One line on the search for copies of crops in woven patches."""


def copy_report(rows: list[dict], own_bank: bool = False) -> str:
    """How many of the patches in the `rows` of an index were searched, woven again, and are still similar to a crop.

    Where none was searched, why that is fine. `own_bank`: the crops were woven by the model itself.
    """
    searched = [row for row in rows if row["copy_score"] is not None]
    if searched:
        return _searched(rows, searched)
    if not any(row["crops"] for row in rows):
        return "copy check: not needed, since the patches were woven without crops"
    if own_bank:
        return "copy check: not needed, since the model's own crops are synthetic"
    if all(row["copy_limit"] is None for row in rows):
        return "copy check: skipped, since the model has no copy limit; set one with --copy-limit"
    if all(row["copy_limit"] == 1 for row in rows):
        return "copy check: skipped, since a copy limit of 1 accepts everything"
    return "copy check: nothing to compare, since crops or patches show no texture"


def _searched(rows: list[dict], searched: list[dict]) -> str:
    again = sum(row["tries"] > 1 for row in searched)
    similar = [row["image"] for row in searched if row["copy_score"] > row["copy_limit"]]
    named = f", such as {similar[0]}; see copy_score in index.parquet" if similar else ""
    return (
        f"copy check: searched {len(searched)} of {len(rows)} patches; {again} exceeded the similarity limit "
        f"{searched[0]['copy_limit']:.2f} and were woven again, {len(similar)} still exceed it{named}"
    )
