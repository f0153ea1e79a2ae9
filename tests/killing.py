"""Kill a command before the n-th change that it makes to the file system, as a crash would.

Python announces each change before it is made (audit events); libraries written in other languages are caught by the
rename that follows.
"""

import os
import sys
from pathlib import Path

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
KILLED = 9  # exit code


def kill_before(change: int, folder: str, count_file: str) -> None:
    """End this process without any cleaning up before the `change`-th change below `folder`; 0: never.

    The changes that were made are counted in `count_file`, one byte each.
    """
    root = os.path.realpath(folder) + os.sep
    counted = os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    made = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal made
        if not _is_change(event, arguments) or not os.path.abspath(str(arguments[0])).startswith(root):
            return
        made += 1
        if made == change:
            os._exit(KILLED)
        os.write(counted, b".")

    sys.addaudithook(watch)


def _is_change(event: str, arguments: tuple) -> bool:
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str | Path) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES and isinstance(arguments[0], str | Path)
