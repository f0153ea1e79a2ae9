"""The queue: users take turns, they learn their places, and nobody fills it."""

import pytest

from histoloom.errors import RequestError
from histoloom.studio.job import Job
from histoloom.studio.turns import Turns


def owners(count: int) -> list[object]:
    """So many users."""
    return [object() for _ in range(count)]


def lined_up(turns: Turns, owner: object, variations: int = 1) -> Job:
    job = Job(owner, None, variations)
    turns.add(job)
    return job


def finish(job: Job) -> None:
    """Post a result of the job."""
    job.post("result", {})


def place_of(job: Job) -> int:
    """The place that the job was given last."""
    return next(data["place"] for _, name, data in reversed(job._events) if name == "place")


def test_users_take_turns_picture_by_picture():
    turns, (one, two, three) = Turns(4), owners(3)
    jobs = [lined_up(turns, one, 4), lined_up(turns, one), lined_up(turns, two, 2), lined_up(turns, three)]
    order = []
    while (job := turns.take(wait=False)) is not None:
        order.append(jobs.index(job))
        finish(job)
    assert order == [0, 2, 3, 0, 2, 0, 0, 1]


def test_who_comes_while_a_picture_is_woven_is_next():
    turns, (one, two) = Turns(4), owners(2)
    first = lined_up(turns, one, 3)
    assert turns.take(wait=False) is first
    second = lined_up(turns, two)
    assert place_of(second) == 1
    finish(first)
    assert turns.take(wait=False) is second
    assert place_of(first) == 1


def test_the_place_is_the_number_of_pictures_that_come_before():
    turns, (one, two, three) = Turns(4), owners(3)
    jobs = [lined_up(turns, one, 3), lined_up(turns, one), lined_up(turns, two, 2), lined_up(turns, three)]
    given = [place_of(job) for job in jobs]
    woven = []
    while (job := turns.take(wait=False)) is not None:
        if not any(job is one for one in woven):
            assert place_of(job) <= len(woven)
        woven.append(job)
        finish(job)
    first = [next(i for i, job in enumerate(woven) if job is one) for one in jobs]
    assert given[0] == first[0] == 0
    assert first == [0, 6, 1, 2]
    # What came later took turns before the second job of the first user, as fairness demands.
    assert given == [0, 3, 1, 2]


def test_a_user_has_a_limit_and_a_finished_or_canceled_job_frees_it():
    turns, (one, two) = Turns(2), owners(2)
    first, second = lined_up(turns, one), lined_up(turns, one)
    with pytest.raises(RequestError, match=r"2 of your requests are in line") as refused:
        lined_up(turns, one)
    assert refused.value.status == 429
    lined_up(turns, two)
    assert turns.take(wait=False) is first
    with pytest.raises(RequestError, match="2 of your requests"):
        lined_up(turns, one)  # the running one counts
    second.cancel()
    turns.canceled()
    third = lined_up(turns, one)
    finish(first)
    assert turns.take(wait=False) is not second
    assert turns.take(wait=False) is third


def test_those_behind_a_canceled_job_move_up():
    turns, (one, two) = Turns(4), owners(2)
    first, second = lined_up(turns, one, 3), lined_up(turns, one)
    other = lined_up(turns, two)
    assert place_of(second) == 3
    first.cancel()
    turns.canceled()
    assert (place_of(second), place_of(other)) == (0, 1)


def test_the_end_cancels_all():
    turns = Turns(4)
    job = lined_up(turns, object())
    turns.end()
    assert turns.take() is None
    assert job.closed
