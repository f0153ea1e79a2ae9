"""The one walk that decides which files below a folder are taken, and that counts the files that are not.

Left out are hidden files and folders (also those that other systems make: `._a.tif`, `__MACOSX`, `@eaDir`), folders
that Histoloom has written, pictures that it has drawn, and files whose suffix is not asked for. Nothing is left out
in silence: `Found.notes` has one line for each kind.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from histoloom.errors import InputError
from histoloom.records import read_json
from histoloom.text import canonical, printable, shorten

MARK = b"drawn by histoloom"  # in the first bytes of pictures that show slides, and are none
_MADE = ("record.json", "dataset.json", "generation.json", "discover.json")  # in folders that Histoloom has written
_DESCRIBED = {"command", "config", "counts"}  # what our `dataset.json` holds, and not that of another program
_SYSTEM = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db"}
# Files that nobody takes for a picture; all others are reported.
_OTHER = {f".{suffix}" for suffix in (
    "txt", "csv", "tsv", "json", "geojson", "xml", "md", "rst", "html", "htm", "pdf", "log", "yaml", "yml", "toml",
    "ini", "cfg", "dat", "db", "xls", "xlsx", "doc", "docx", "zip", "gz", "tar", "tgz", "md5", "sha256", "sha1", "py",
    "ipynb", "sh", "r", "m", "mat", "npy", "npz", "h5", "hdf5", "pkl", "pt", "parquet", "lock", "partial", "qpdata",
    "qpproj", "backup", "asap", "opt",
)}  # fmt: skip


@dataclass
class Found:
    """The files of a walk in order of name, and those that were left out, by reason."""

    root: Path
    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=dict)

    def leave_out(self, reason: str, paths: Sequence[Path]) -> None:
        """Count `paths` as left out, and take them off the list."""
        if paths:
            self.left_out.setdefault(reason, []).extend(paths)
            gone = set(paths)
            self.files = [path for path in self.files if path not in gone]

    @property
    def notes(self) -> list[str]:
        """One line for each reason, with the number of paths and the first of them."""
        return [
            f"{len(paths)} {reason}: {self._name(paths[0])}{', ...' if len(paths) > 1 else ''}"
            for reason, paths in self.left_out.items()
        ]

    def _name(self, path: Path) -> str:
        return shorten(str(path.relative_to(self.root)))


def find_files(
    root: Path,
    is_wanted: Callable[[Path], bool],
    what: str,
    follow_links: bool = False,
) -> Found:
    """All files below `root` for which `is_wanted` holds; `what` names them in the notes, such as "images".

    With `follow_links`, linked folders are entered, each once; without, they are left out. Raises InputError where the
    folder cannot be read.
    """
    found = Found(root)
    refused: list[OSError] = []
    entered = {os.path.realpath(root)}
    for folder, folders, names in os.walk(root, onerror=refused.append, followlinks=follow_links):
        here = Path(folder)
        folders[:] = [name for name in sorted(folders) if _enters(here / name, found, entered, follow_links)]
        for name in sorted(names):
            _sort(here / name, found, is_wanted, what)
    if refused:
        raise InputError(
            f"{refused[0].filename or root}: cannot be read ({refused[0].strerror}); check its permissions"
        )
    found.files.sort()
    return found


def suffix_of(path: Path) -> str:
    """The suffix in lower case."""
    return canonical(path.suffix)


def is_hidden(name: str) -> bool:
    """True for the names that a system gives to what a person need not see."""
    return name.startswith(".") or canonical(name) in _SYSTEM


def source_name(path: Path, root: Path) -> str:
    """The path relative to `root` as it is recorded: with `/`, and with bytes that are not UTF-8 as escapes."""
    return printable(path.relative_to(root).as_posix())


def is_drawn(path: Path) -> bool:
    """True for a picture that Histoloom itself has drawn of a slide."""
    if suffix_of(path) not in (".png", ".jpg", ".jpeg"):
        return False
    try:
        with path.open("rb") as file:
            return MARK in file.read(1024)
    except OSError:
        return False


def _enters(folder: Path, found: Found, entered: set[str], follow_links: bool) -> bool:
    if is_hidden(folder.name):
        if not folder.name.startswith("."):
            found.leave_out("folders of the system were left out", [folder])
        return False
    if folder.is_symlink() and not follow_links:
        found.leave_out("linked folders were not entered (name them, or copy their files)", [folder])
        return False
    if any(_is_ours(folder / name) for name in _MADE):
        found.leave_out("folders that histoloom has written were left out", [folder])
        return False
    place = os.path.realpath(folder)
    if place in entered:
        found.leave_out("linked folders were entered before, and left out", [folder])
        return False
    entered.add(place)
    return True


def _is_ours(path: Path) -> bool:
    """Whether a file is there and does not say that another program wrote it: nnU-Net has a `dataset.json`, too."""
    if not path.is_file() or path.name != "dataset.json":
        return path.is_file()
    try:
        return bool(_DESCRIBED & read_json(path).keys())
    except InputError:
        return True


def _sort(path: Path, found: Found, is_wanted: Callable[[Path], bool], what: str) -> None:
    if is_hidden(path.name):
        if is_wanted(path):
            found.leave_out("hidden files were left out", [path])
    elif not path.is_file():
        if is_wanted(path):
            kind = "links that lead nowhere" if path.is_symlink() else "pipes and devices"
            found.leave_out(f"{kind} were left out", [path])
    elif is_drawn(path):
        found.leave_out("pictures that histoloom has drawn were left out", [path])
    elif is_wanted(path):
        found.files.append(path)
    elif path.suffix and suffix_of(path) not in _OTHER:
        found.leave_out(f"files are not {what} that can be opened", [path])
