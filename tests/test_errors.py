import pickle

import pytest

from histoloom.distributed import Workers, run_items
from histoloom.errors import ConfigError, Interrupted, MissingExtraError, RequestError


@pytest.mark.parametrize("error", [Interrupted("a", 143), RequestError("b", 404), ConfigError("c")])
def test_errors_are_the_same_in_another_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def lack(package: str) -> None:
    """What a worker does that finds no such package."""
    raise MissingExtraError(package, "slides")


def test_a_package_that_workers_lack_is_named_and_no_worker_is_taken_for_dead():
    with pytest.raises(MissingExtraError, match=r"openslide is not installed; run: pip install 'histoloom\[slides\]'"):
        list(run_items(lack, ["openslide"] * 2, Workers(2)))
