"""Can readers tell? The answer of a study, by a margin that was written down before it."""

from enum import StrEnum


class Answer(StrEnum):
    """What an interval of the AUC says, given a margin."""

    CANNOT = "cannot tell"
    CAN = "can tell"
    REVERSED = "take synthetic for real"
    OPEN = "not decided"


def answer(interval: tuple[float, float], margin: float) -> Answer:
    """Readers cannot tell where the whole interval is below `margin` (0.5 to 1), unless it is below chance, 0.5, too.

    An interval that holds 0.5 and the margin decides nothing, whatever its p value; nor does one that is nan.
    """
    low, high = interval
    if high < 0.5:
        return Answer.REVERSED
    if high < margin:
        return Answer.CANNOT
    return Answer.CAN if low > 0.5 else Answer.OPEN
