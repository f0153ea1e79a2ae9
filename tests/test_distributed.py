"""The work is done by functions that any process can import: reading tissue tables, some of which are broken."""

import errno
import logging
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from histoloom.distributed import AHEAD, ALONE, Workers, run_items
from histoloom.errors import ConfigError, HistoloomError
from histoloom.patches.store import read_table
from histoloom.tissue import TissueTable

WAYS = [pytest.param(ALONE, id="alone"), pytest.param(Workers(2), id="two processes")]
RAY = pytest.param(Workers(ray="local"), id="ray")


pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.parametrize("workers", [*WAYS, RAY])
def test_results_come_in_order_and_a_broken_item_is_handed_back(tmp_path, workers):
    folders = [tmp_path / str(number) for number in range(10)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        # the first are the longest, so that others overtake them
        table = TissueTable.from_names([f"{number}-{i}" for i in range(200 // (number + 1))])
        (folder / "tissue.toml").write_text(table.to_toml())
    (folders[7] / "tissue.toml").write_text("no table")
    outcomes = list(run_items(read_table, folders, workers))
    assert [outcome.item for outcome in outcomes] == folders
    assert [outcome.result.names[0] if outcome.result else "" for outcome in outcomes] == [
        f"{number}-0" if number != 7 else "" for number in range(10)
    ]
    assert [outcome.error is not None for outcome in outcomes] == [number == 7 for number in range(10)]
    assert str(outcomes[7].error).startswith(f"{folders[7]}/tissue.toml: cannot read the tissue table")


@pytest.mark.parametrize("workers", WAYS)
def test_no_more_items_are_taken_than_workers_need(workers):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    running = run_items(abs, items(), workers)
    next(running)
    running.close()
    assert len(taken) <= 2 * AHEAD


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which process works")
def test_ray_and_processes_work_elsewhere():
    for workers in (Workers(2), Workers(ray="local")):
        outcomes = list(run_items(os.readlink, ["/proc/self"] * 4, workers))
        assert str(os.getpid()) not in {outcome.result for outcome in outcomes}


def test_on_ray_an_item_that_kills_its_workers_is_one_error_with_a_cure():
    with pytest.raises(HistoloomError, match=r"worker died.*run again"):
        list(run_items(os._exit, [1], Workers(ray="local")))


def dies_over(item: str) -> str:
    """What a native library does that aborts."""
    if item == "bad":
        os.abort()
    return item.upper()


def test_a_worker_that_dies_costs_its_item_and_not_the_run():
    items = ["a", "bad", *"cdefghijklmnopq"]
    outcomes = list(run_items(dies_over, items, Workers(2)))
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.result for outcome in outcomes] == ["A", None, *"CDEFGHIJKLMNOPQ"]
    assert str(outcomes[1].error).startswith("bad: a worker died over it")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_workers_end_with_the_process_that_has_work_for_them(number, code):
    script = f"""
import os, signal, sys, time
from histoloom.distributed import Workers, run_items

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it

def work():
    for _ in run_items(time.sleep, [0, 600, 600], Workers(2)):
        os.kill(os.getpid(), {number})

try:
    work()
except KeyboardInterrupt:
    pass
sys.exit(130)
"""
    # Workers inherit standard output, which is closed when the last of them has ended.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows blocks no signals")
def test_ctrl_c_while_workers_are_started_shows_no_traceback(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import os, signal
if __name__ == "__mp_main__":
    os.kill(os.getpid(), signal.SIGINT)  # a worker that imports; a terminal signals all processes of a command
else:
    from histoloom.distributed import Workers, run_items
    print([outcome.result for outcome in run_items(abs, [-1, -2, -3], Workers(2))])
""")
    done = subprocess.run([sys.executable, script], capture_output=True, timeout=120, text=True)
    assert (done.stdout, done.stderr) == ("[1, 2, 3]\n", "")


def test_ray_takes_no_sigterm_from_the_process_that_joins_it():
    import ray

    script = f"""
import os, signal, sys
from histoloom.distributed import Workers, run_items

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for _ in run_items(abs, [1], Workers(ray={ray.get_runtime_context().gcs_address!r})):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120)
    assert done.returncode == 143
    assert b"SIGTERM" not in done.stderr


@pytest.mark.parametrize("workers", [*WAYS, RAY])
def test_any_error_of_an_item_costs_this_item_and_its_traceback_is_in_the_log(workers, caplog):
    caplog.set_level(logging.DEBUG, "histoloom")
    outcomes = list(run_items(partial(pow, 0), [1, -1, 2], workers))
    assert [outcome.result for outcome in outcomes] == [0, None, 0]
    assert str(outcomes[1].error).startswith("-1: unexpected ZeroDivisionError (")
    assert "--debug shows where it came from" in str(outcomes[1].error)
    assert "Traceback (most recent call last)" in caplog.text


def full_disk(item: int) -> None:
    """What no item is to blame for."""
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("workers", WAYS)
def test_what_is_no_fault_of_an_item_ends_the_run(workers):
    with pytest.raises(OSError, match="No space left"):
        list(run_items(full_disk, [1], workers))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_an_address_where_nothing_answers_is_refused(monkeypatch, address):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=rf"--ray {address}: no Ray cluster answers .*; start one"):
        list(run_items(abs, [1], Workers(ray=address)))


def test_no_workers_is_refused():
    with pytest.raises(ConfigError, match="0 workers; give at least 1"):
        Workers(0)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which sockets listen")
def test_a_cluster_that_is_started_here_listens_on_the_loopback_interface_only():
    script = """
import os
from histoloom.distributed import Workers, run_items

def ancestors(pid):
    while pid > 1:
        yield pid
        pid = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])

def listening(driver):
    "Addresses of the listening TCP sockets of a process and its descendants, in hexadecimal."
    inodes = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if driver in ancestors(int(pid)):
                inodes |= {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        except OSError:
            pass
    rows = [row.split() for kind in ("tcp", "tcp6") for row in open(f"/proc/net/{kind}").readlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}

print(*next(run_items(listening, [os.getpid()], Workers(ray="local"))).result)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    found = done.stdout.split()
    assert len(found) >= 1, done.stderr
    assert all(address.endswith("0100007F") for address in found), found
