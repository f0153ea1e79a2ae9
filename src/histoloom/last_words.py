"""A line for a process that a library may end at once, so that nothing in it can say why."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Reads one byte, which a process that is ended does not write.
_SCRIPT = "import os, sys; os.read(0, 1) or os.write(2, sys.argv[1].encode() + b'\\n')"


@contextmanager
def last_words(line: str) -> Iterator[None]:
    """Have `line` written to the standard error where this process ends within the block, without leaving it.

    A process of its own waits for that, out of reach of the signals of a terminal.
    """
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _SCRIPT, line], stdin=subprocess.PIPE, start_new_session=True
    )
    assert waiting.stdin is not None
    try:
        yield
    finally:
        with suppress(OSError):  # it was killed
            waiting.stdin.write(b".")
            waiting.stdin.close()
        waiting.wait()
