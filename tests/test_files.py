"""The promise about files: whole or absent, resumed by the same run alone, written by one process at a time."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from full_disk import files_of_at_most

from histoloom import files, locks, records
from histoloom.errors import InputError, LockedError, OutputError
from histoloom.files import RECORD
from histoloom.records import Record

RUN = Record(command="try", format=1, settings={"steps": 3, "crops": {"edge": 64}}, inputs={"a.png": "12"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with pytest.raises(ValueError, match="stop"), files.whole_file(path) as aside:
        aside.write_text("half")
        raise ValueError("stop")
    assert names(path.parent) == []
    files.write_text(path, "whole")
    assert path.read_text() == "whole"
    assert names(path.parent) == ["a.txt"]


def test_a_lock_that_a_killed_run_has_left_next_to_its_result_is_removed_and_a_held_one_stays(tmp_path):
    out = tmp_path / "out"
    with files.resumable_folder(out, RUN) as aside:
        (aside / "a.txt").write_text("a")
    (tmp_path / ".out.lock").write_text('{"pid": 1}')
    assert files.is_finished(out, RUN)
    assert names(tmp_path) == ["out"]
    with locks.locked(out):
        assert files.is_finished(out, RUN)
        assert names(tmp_path) == [".out.lock", "out"]


@pytest.mark.parametrize("name", ["slide [1].tif", "a slide with a name of many words, x.tif"])
def test_what_a_killed_process_has_half_written_of_a_file_is_removed_and_nothing_of_another(tmp_path, name):
    half_written = []
    for other in (name, name.replace(".tif", "y.tif")):
        with files.whole_file(tmp_path / other) as aside:
            aside.touch()
        half_written.append(aside)
        aside.touch()  # as a process leaves it that was killed before the file was whole
    with files.writable(tmp_path / name):
        assert [aside.exists() for aside in half_written] == [False, True]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    with pytest.raises(KeyError), files.whole_file(tmp_path / "a.json") as aside:
        aside.write_text("{")
        raise KeyError
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 2, "b": 1}


def test_what_cannot_be_written_is_one_line_with_a_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/a\.txt: cannot be written \(.*\); check the path") as caught:
        files.write_text(tmp_path / "file" / "a.txt", "")
    assert "\n" not in str(caught.value)


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="stop"), files.whole_folder(tmp_path / "out") as aside:
        (aside / "a").touch()
        raise ValueError("stop")
    assert names(tmp_path) == []
    with files.whole_folder(tmp_path / "out") as aside:
        (aside / "a").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a"]


def test_what_was_not_made_here_is_never_removed(tmp_path):
    mine = [tmp_path / name / "thesis.tex" for name in ("out.partial", "out.old", ".out.partial")]
    for path in mine:
        path.parent.mkdir()
        path.touch()
    with pytest.raises(OutputError, match="in the way"), files.whole_folder(tmp_path / "out"):
        pass
    with pytest.raises(OutputError, match="not a run"), files.resumable_folder(tmp_path / "out", RUN):
        pass
    shutil.rmtree(mine.pop().parent)
    with files.whole_folder(tmp_path / "out") as aside:
        (aside / "a").touch()
    with files.replaced_folder(tmp_path / "out") as aside:
        (aside / "b").touch()
    assert names(tmp_path / "out") == ["b"]
    assert all(path.exists() for path in mine)


def test_a_kill_while_a_folder_is_tried_out_does_not_refuse_the_next_run(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        files.check_out(out)
    assert names(out) != []
    files.check_out(out)
    assert names(out) == []
    with files.whole_folder(out) as aside:
        (aside / "a").touch()


def test_what_an_interrupted_run_has_finished_is_not_removed_by_another_command(tmp_path):
    with pytest.raises(KeyboardInterrupt), files.resumable_folder(tmp_path / "out", RUN) as aside:
        (aside / "part-0").touch()
        raise KeyboardInterrupt
    line = f"out.partial: holds what an interrupted run of `{RUN.command}` has finished; repeat that command"
    with pytest.raises(OutputError, match=line), files.whole_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out.partial" / "part-0").exists()


def test_a_lock_overwrites_nothing(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    (tmp_path / ".a.lock").symlink_to(precious)
    (tmp_path / ".b.lock").write_text("precious")
    (tmp_path / ".c.lock").symlink_to(tmp_path / "absent")
    for name in "abc":
        with (
            pytest.raises(OutputError, match=rf"\.{name}\.lock: is in the way and is not a lock"),
            files.whole_folder(tmp_path / name),
        ):
            pass
    assert precious.read_text() == (tmp_path / ".b.lock").read_text() == "precious"
    assert not (tmp_path / "absent").exists()


def test_an_interrupted_folder_is_resumed_and_then_finished(tmp_path):
    out = tmp_path / "out"
    assert not files.is_finished(out, RUN)
    with pytest.raises(KeyboardInterrupt), files.resumable_folder(out, RUN) as aside:
        (aside / "part-0").write_text("0")
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match=r"out\.partial: is named as what an interrupted run leaves; leave out"):
        files.is_finished(tmp_path / "out.partial", RUN)
    with files.resumable_folder(out, RUN) as aside:
        assert (aside / "part-0").read_text() == "0"
        (aside / "part-1").write_text("1")
    assert names(out) == ["part-0", "part-1", RECORD]
    assert files.is_finished(out, RUN)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", [files.resumable_folder, files.run_folder])
def test_a_run_whose_record_finds_no_space_leaves_nothing(tmp_path, kind):
    long = replace(RUN, inputs={f"{number}.png": "12" * 32 for number in range(50)})
    with (
        files_of_at_most(1000),
        pytest.raises(OutputError, match=r"record\.json: cannot be written"),
        kind(tmp_path / "out", long),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="bad"), files.resumable_folder(tmp_path / "out", RUN):
        raise ValueError("bad")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(RUN, settings={"steps": 4, "crops": {"edge": 64}}), "steps was 3, is now 4"),
        (replace(RUN, settings={"steps": 3, "crops": {"edge": 32}}), "crops.edge was 64, is now 32"),
        (replace(RUN, inputs={"a.png": "13"}), r"input a\.png was changed"),
        (replace(RUN, inputs={"a.png": "12", "b.png": "1"}), r"input b\.png was added"),
        (replace(RUN, inputs={}), r"input.* was removed"),
        (replace(RUN, format=2), "format was 1, is now 2"),
    ],
)
def test_another_run_is_refused_by_name_and_nothing_is_deleted(tmp_path, other, reason):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), files.resumable_folder(out, RUN) as aside:
        (aside / "part-0").touch()
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match=reason), files.resumable_folder(out, other):
        pass
    assert names(tmp_path / "out.partial") == ["part-0", RECORD]
    with files.resumable_folder(out, RUN):
        pass
    with pytest.raises(OutputError, match=reason):
        files.is_finished(out, other)


def test_a_new_version_resumes_what_an_older_one_of_the_same_format_began(tmp_path):
    with files.run_folder(tmp_path / "run", RUN) as begun:
        assert not begun
        (tmp_path / "run" / "part-0").touch()
    record = json.loads((tmp_path / "run" / RECORD).read_text())
    files.write_json(tmp_path / "run" / RECORD, record | {"version": "9.9"})
    with files.run_folder(tmp_path / "run", RUN) as begun:
        assert begun


def test_a_second_process_is_refused_and_a_dead_one_is_forgotten(tmp_path):
    script = "import sys, time\nfrom pathlib import Path\nfrom histoloom import files, locks, records\n"
    script += "with locks.locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=rf"by process {holder.pid} on \S+ since 20"), locks.locked(tmp_path / "out"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locks.locked(tmp_path / "out"):
        assert names(tmp_path) == [".out.lock"]
    assert names(tmp_path) == []


def test_a_lock_that_children_of_a_dead_process_inherited_is_taken_over(tmp_path):
    script = "import os, sys, time\nfrom pathlib import Path\nfrom histoloom import files, locks, records\n"
    script += "with locks.locked(Path(sys.argv[1])):\n"
    script += "    child = os.fork()\n    print(child, flush=True) if child else time.sleep(60)\n    time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", script, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locks.locked(tmp_path / "out"):
        pass
    os.kill(child, signal.SIGKILL)


def test_a_lock_whose_file_cannot_be_removed_is_free_for_the_same_process(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), locks.locked(tmp_path / "out"):
        patched.setattr(Path, "unlink", interrupted)
    with locks.locked(tmp_path / "out"):
        assert names(tmp_path) == [".out.lock"]
    assert names(tmp_path) == []


def test_a_lock_that_finds_no_space_leaves_nothing_and_is_free_again(tmp_path):
    with (
        files_of_at_most(10),
        pytest.raises(OutputError, match=r"out: cannot be written \(.*\); free some space"),
        locks.locked(tmp_path / "out"),
    ):
        pass
    assert names(tmp_path) == []
    with locks.locked(tmp_path / "out"):
        pass


def test_a_folder_is_replaced_as_a_whole_and_a_kill_between_both_renames_is_mended(tmp_path):
    model = tmp_path / "model"
    for text in ("first", "second"):
        with files.replaced_folder(model) as aside:
            (aside / "weights").write_text(text)
    assert (model / "weights").read_text() == "second"
    os.rename(model, tmp_path / ".model.old")
    files.recover(model)
    assert (model / "weights").read_text() == "second"
    assert names(tmp_path) == ["model"]


def test_a_json_file_is_read_or_refused_by_one_line(tmp_path):
    path = tmp_path / "a.json"
    for data, reason in (
        (b"", "not a readable JSON"),
        (b"\xff\xfe", "not a readable JSON"),
        (b"[" * 10**6, "not a readable JSON"),
        (b"[1]", "holds a JSON list, not a dict"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=reason):
            records.read_json(path)


def test_a_fingerprint_follows_content_and_for_large_files_their_time(tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(b"a" * 10)
    before = records.fingerprint(path), records.fingerprint(path, whole=False)
    os.utime(path, (time.time(), 10**9))
    assert records.fingerprint(path) == before[0]
    assert records.fingerprint(path, whole=False) != before[1]


def test_a_run_that_may_grow_takes_new_inputs_and_no_changed_or_removed_ones(tmp_path):
    def begin(**inputs):
        with files.run_folder(tmp_path / "run", Record(command="c", format=1, settings={}, inputs=inputs), grows=True):
            (tmp_path / "run" / "part").touch()
        return files.read_record(tmp_path / "run")["inputs"]

    assert begin() == {}
    assert begin(a="1") == {"a": "1"}
    assert begin(a="1", b="2") == {"a": "1", "b": "2"}
    for inputs, reason in (({"a": "1"}, "input b was removed"), ({"a": "3", "b": "2"}, "input a was changed")):
        with pytest.raises(OutputError, match=reason):
            begin(**inputs)
    assert begin(a="1", b="2") == {"a": "1", "b": "2"}


def test_nothing_else_in_the_package_renames_files():
    source = Path(files.__file__).parent
    renaming = re.compile(r"os\.(replace|rename|renames)\(|\.rename\(|shutil\.move\(|\.with_suffix\(\"\.partial")
    allowed = {source / "files.py"}
    assert [path for path in source.rglob("*.py") if path not in allowed and renaming.search(path.read_text())] == []
