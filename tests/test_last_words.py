"""Whoever is ended at once leaves a line, and nobody else does."""

import subprocess
import sys

import pytest

SCRIPT = """
import os
from contextlib import suppress
from histoloom.last_words import last_words
with suppress(KeyError), last_words("histoloom: the cluster is lost"):
    {}
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("os._exit(1)", 1, "histoloom: the cluster is lost\n"),  # as Ray does
        ("os.kill(os.getpid(), 9)", -9, "histoloom: the cluster is lost\n"),
        ("pass", 0, ""),
        ("raise KeyError", 0, ""),
    ],
)
def test_only_a_process_that_is_ended_at_once_leaves_the_line(end, code, said):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(end)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)
