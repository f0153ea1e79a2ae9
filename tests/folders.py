"""What is in a folder."""

from pathlib import Path


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of every file, by its path in the folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
