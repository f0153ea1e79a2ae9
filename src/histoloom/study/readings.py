"""Answers joined with the key: what every reader said of every item, as arrays."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from histoloom.errors import InputError
from histoloom.study.answers import RATINGS, STEPS, Answer
from histoloom.study.plan import MAIN, PRACTICE, REAL, REPEAT


@dataclass(frozen=True, eq=False)
class Readings:
    """Scores of readers and items, nan where there is none.

    A score is high where a reader is sure that the item is synthetic; of a pair, where the reader is sure of the side
    that is real (of a control pair: of the left one).
    """

    readers: list[str]
    items: list[str]
    kinds: list[str]
    roles: list[str]
    tissues: list[str]
    cases: list[str]  # of the image, or of the real one of a pair
    returns: list[str]  # the item that a repeat repeats, else empty
    is_pairs: bool
    scores: Float[np.ndarray, "r n"]
    ratings: Float[np.ndarray, "r n 4"]

    def where(self, *kinds: str, tissue: str | None = None) -> Bool[np.ndarray, " n"]:
        """The main items of these kinds, of one tissue or of all."""
        rows = zip(self.kinds, self.roles, self.tissues, strict=True)
        return np.array([k in kinds and r == MAIN and tissue in (None, t) for k, r, t in rows])

    def select(self, at: Bool[np.ndarray, " r"]) -> "Readings":
        """The readings of some readers."""
        readers = [name for name, chosen in zip(self.readers, at, strict=True) if chosen]
        return replace(self, readers=readers, scores=self.scores[at], ratings=self.ratings[at])


def join(answers: list[Answer], key: dict, readers: list[str]) -> Readings:
    """All answers with what the key says; raises InputError where the key is that of another study."""
    items = sorted(key["items"])
    unknown = sorted({answer.item for answer in answers} - set(items))
    if unknown:
        raise InputError(f"the key does not know item {unknown[0]}: it is that of another study; name the right --key")
    rows, column = [key["items"][item] for item in items], {item: i for i, item in enumerate(items)}
    scores = np.full((len(readers), len(items)), np.nan)
    ratings = np.full((len(readers), len(items), len(RATINGS)), np.nan)
    for answer in answers:
        if answer.reader in readers:
            at = readers.index(answer.reader), column[answer.item]
            scores[at] = answer.answer
            ratings[at] = [np.nan if answer.ratings[name] is None else answer.ratings[name] for name in RATINGS]
    if key["pairs"]:
        is_right = np.array([row["images"][0]["kind"] != REAL for row in rows])  # the real image is on the right
        scores = np.where(is_right, scores, STEPS + 1 - scores)
    return Readings(
        readers, items, [row["kind"] for row in rows], [row["role"] for row in rows], [row["tissue"] for row in rows],
        [_case(row["images"]) for row in rows], [row.get("repeats", "") for row in rows], bool(key["pairs"]),
        scores, ratings,
    )  # fmt: skip


def _case(images: list[dict]) -> str:
    """The case of an item: a synthetic image of a pair may be known by its own name alone."""
    return next((image["case"] for image in images if image["kind"] == REAL), images[0]["case"])


def repeated(readings: Readings) -> tuple[Float[np.ndarray, "r k"], Float[np.ndarray, "r k"]]:
    """Scores of items at their first and at their second time."""
    second = [i for i, role in enumerate(readings.roles) if role == REPEAT]
    first = [readings.items.index(readings.returns[i]) for i in second]
    return readings.scores[:, first], readings.scores[:, second]


def num_missing(readings: Readings) -> dict[str, int]:
    """How many items each reader has not answered, practice left out."""
    counted = np.array([role != PRACTICE for role in readings.roles])
    missing = np.isnan(readings.scores[:, counted]).sum(axis=1)
    return {reader: int(number) for reader, number in zip(readings.readers, missing, strict=True)}
