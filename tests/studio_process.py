"""A studio that serves in a process of its own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def served_studio(*options: str) -> Iterator[int]:
    """The port of a studio of the bundled model; the end of the block kills it."""
    words = (sys.executable, "-m", "histoloom", "studio", "--port", "0", *options)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        served = next((line for line in process.stdout if line.startswith("serving")), None)
        if served is None:
            raise AssertionError(process.stderr.read())
        yield int(served.rpartition(":")[2].split("/")[0])
    finally:
        process.kill()
        process.communicate()
