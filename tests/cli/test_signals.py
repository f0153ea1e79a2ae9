"""What Ctrl-C does where a command is deaf for a moment: one line or none, but no traceback."""

import signal

import pytest

RUN = """
import atexit, os, signal, sys
os.chdir(folder)
os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT), 2)
from histoloom.cli import main
from histoloom.fitting.stop import Stop

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)

@main.app.command()
def long_step():
    with Stop(folder):
        for _ in range(presses):
            ctrl_c()
        open("trained", "w").close()

@main.app.command()
def long_end():
    atexit.register(ctrl_c)

sys.argv = ["histoloom", command]
try:
    main.run()
finally:
    atexit._run_exitfuncs()  # a forked process has no other end
"""


def stderr(folder) -> str:
    return (folder / "stderr").read_text()


@pytest.mark.parametrize("presses", [1, 2])
def test_a_second_ctrl_c_ends_a_training_step_at_once_and_in_one_line(start, tmp_path, presses):
    process = start(RUN, folder=tmp_path, command="long-step", presses=presses)
    process.join()
    assert (tmp_path / "trained").exists() == (presses == 1)
    assert process.exitcode == (0 if presses == 1 else 130)
    assert stderr(tmp_path) == ("" if presses == 1 else "histoloom: stopped by Ctrl-C; the same command resumes\n")


def test_ctrl_c_while_a_finished_command_ends_shows_no_traceback(start, tmp_path):
    process = start(RUN, folder=tmp_path, command="long-end", presses=1)
    process.join()
    assert process.exitcode == -signal.SIGINT
    assert stderr(tmp_path) == ""
