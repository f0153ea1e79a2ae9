"""What is said to the user of a page: errors name options and files that only the command line has."""

import re

_SAID = {
    "in no tissue table": "unknown to this model",
    "give a larger --size, or the coordinates in px of the canvas": "begin with an empty map that is larger, or give "
    "the coordinates in px of the map",
    "the canvas": "the map",
    "off the slide": "off the map",
    "border of the slide": "border of the map",
    "read whole: cut it into patches": "read",
    " (`patches` and `overlay` read them with --detections)": "",
}
_OF_THE_COMMAND_LINE = re.compile(r"(^|\W)--\w|tissue\.toml|tissue table|alias")


def for_page(message: object) -> str:
    """A message without advice that only the command line can follow."""
    said = str(message)
    for of_command, of_page in _SAID.items():
        said = said.replace(of_command, of_page)
    found, *advice = said.split("; ")
    return "; ".join([found, *(part for part in advice if not _OF_THE_COMMAND_LINE.search(part))])
