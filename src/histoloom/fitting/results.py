"""Results that take long, kept by what decides them, so that an interrupted run makes nothing twice."""

import json
from collections.abc import Callable
from pathlib import Path

from histoloom.errors import InputError
from histoloom.files import write_text
from histoloom.fitting.processes import process_state
from histoloom.records import read_json


def cached_result(path: Path, key: str, make: Callable[[], dict]) -> dict:
    """The result in `path` if an earlier run left it under the same `key`; otherwise it is made and written.

    All processes call this; the main one writes. Raises OutputError.
    """
    if path.is_file():
        try:
            found = read_json(path)
            if found.get("key") == key and isinstance(found.get("result"), dict):
                return found["result"]
        except InputError:
            pass  # damaged: made again
    # As JSON reads it back: nan becomes null, a tuple a list.
    result = json.loads(json.dumps(make()), parse_constant=lambda _: None)
    if process_state().is_main_process:
        write_text(path, json.dumps({"key": key, "result": result}) + "\n")
    return result
