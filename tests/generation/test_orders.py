"""What is said of a finished folder: how many patches were searched for their crops, woven again, and alike still."""

from histoloom.generation.orders import told_of_copies


def row(number: int, score: float | None, tries: int = 1) -> dict:
    return {"image": f"images/{number}.png", "copy_score": score, "copy_limit": 0.6, "tries": tries}


def test_what_was_woven_again_and_what_is_alike_still_is_counted_and_named():
    rows = [row(0, 0.5), row(1, 0.55, 3), row(2, 0.7, 6), row(3, None)]
    told = "searched 3 of 4 patches for their crops: 2 were more alike than 0.60 and woven again, 1 still are"
    assert told_of_copies(rows) == f"{told}, such as images/2.png; see copy_score in index.parquet"
    assert told_of_copies(rows[:2]).endswith("1 were more alike than 0.60 and woven again, 0 still are")


def test_where_nothing_was_searched_it_is_said_why():
    assert told_of_copies([row(0, None)]).startswith("not searched for copies of crops: there is no crop with texture")
