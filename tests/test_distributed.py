"""The work is done by functions that any process can import: reading tissue tables, some of which are broken."""

import os
import sys
from functools import partial

import pytest

from histoloom.distributed import AHEAD, run_items
from histoloom.errors import ConfigError, HistoloomError
from histoloom.patches.store import read_table
from histoloom.tissue import TissueTable

WAYS = [pytest.param({}, id="alone"), pytest.param({"workers": 2}, id="two processes")]
RAY = pytest.param({"ray": "local"}, id="ray")


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("way", [*WAYS, RAY])
def test_results_come_in_order_and_a_broken_item_is_handed_back(tmp_path, way):
    folders = [tmp_path / str(number) for number in range(10)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        # the first are the longest, so that others overtake them
        table = TissueTable.from_names([f"{number}-{i}" for i in range(200 // (number + 1))])
        (folder / "tissue.toml").write_text(table.to_toml())
    (folders[7] / "tissue.toml").write_text("no table")
    outcomes = list(run_items(read_table, folders, **way))
    assert [outcome.item for outcome in outcomes] == folders
    assert [outcome.result.names[0] if outcome.result else "" for outcome in outcomes] == [
        f"{number}-0" if number != 7 else "" for number in range(10)
    ]
    assert [outcome.error is not None for outcome in outcomes] == [number == 7 for number in range(10)]
    assert str(outcomes[7].error).startswith(f"{folders[7]}/tissue.toml: cannot read the tissue table")


@pytest.mark.parametrize("way", WAYS)
def test_no_more_items_are_taken_than_workers_need(way):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    running = run_items(abs, items(), **way)
    next(running)
    running.close()
    assert len(taken) <= 2 * AHEAD


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which process works")
def test_ray_and_processes_work_elsewhere():
    for way in ({"workers": 2}, {"ray": "local"}):
        outcomes = list(run_items(os.readlink, ["/proc/self"] * 4, **way))
        assert str(os.getpid()) not in {outcome.result for outcome in outcomes}


@pytest.mark.parametrize("way", [{"workers": 2}, {"ray": "local"}])
def test_a_worker_that_dies_is_one_error_with_a_cure(way):
    with pytest.raises(HistoloomError, match=r"worker died.*run again"):
        list(run_items(os._exit, [1], **way))


@pytest.mark.parametrize("way", [*WAYS, RAY])
def test_what_is_no_fault_of_the_input_is_raised(way):
    with pytest.raises(ZeroDivisionError):
        list(run_items(partial(pow, 0), [-1], **way))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_where_nothing_answers_is_refused(monkeypatch, address):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=rf"--ray {address}: no Ray cluster answers .*; start one"):
        list(run_items(abs, [1], ray=address))


def test_no_workers_is_refused():
    with pytest.raises(ConfigError, match="0 workers; give at least 1"):
        list(run_items(abs, [1], workers=0))
