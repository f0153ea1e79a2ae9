"""Which files are taken, and that all others are counted."""

import os
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from histoloom.errors import InputError
from histoloom.walk import MARK, find_files, source_name


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in (".png", ".tif")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(folder: Path, **options) -> tuple[list[str], list[str]]:
    walk = find_files(folder, is_picture, "pictures", **options)
    return [path.relative_to(folder).as_posix() for path in walk.files], walk.notes


def test_hidden_files_and_those_of_other_systems_are_left_out(tmp_path):
    touch(tmp_path, "b.png", "a/c.TIF", "._b.png", ".hidden/d.png", "__MACOSX/b.png", "@eaDir/b.png", "notes.txt")
    assert found(tmp_path) == (
        ["a/c.TIF", "b.png"],
        ["2 folders of the system were left out: @eaDir, ...", "1 hidden files were left out: ._b.png"],
    )


def test_a_dataset_of_another_program_is_entered(tmp_path):
    touch(tmp_path, "nnunet/imagesTr/a.png", "ours/b.png")
    (tmp_path / "nnunet/dataset.json").write_text('{"labels": {"background": 0}, "numTraining": 1}')
    (tmp_path / "ours/dataset.json").write_text('{"name": "x", "command": "patches", "config": {}}')
    notes = ["1 folders that histoloom has written were left out: ours"]
    assert found(tmp_path) == (["nnunet/imagesTr/a.png"], notes)


def test_files_of_other_formats_are_counted(tmp_path):
    touch(tmp_path, "a.png", "b.vsi", "c.isyntax", "list.csv")
    assert found(tmp_path) == (["a.png"], ["2 files are not pictures that can be opened: b.vsi, ..."])


def test_linked_folders_are_entered_once_or_counted(tmp_path):
    touch(tmp_path / "store", "batch/a.png")
    touch(tmp_path / "here", "b.png")
    (tmp_path / "here" / "batch").symlink_to(tmp_path / "store" / "batch")
    (tmp_path / "store" / "batch" / "loop").symlink_to(tmp_path / "here")
    (tmp_path / "here" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "here" / "pipe.png")
    files, notes = found(tmp_path / "here")
    assert files == ["b.png"]
    assert notes == [
        "1 linked folders were not entered (name them, or copy their files): batch",
        "1 links that lead nowhere were left out: gone.png",
        "1 pipes and devices were left out: pipe.png",
    ]
    files, notes = found(tmp_path / "here", follow_links=True)
    assert files == ["b.png", "batch/a.png"]
    assert "1 linked folders were entered before, and left out: batch/loop" in notes


def test_what_histoloom_has_made_is_left_out(tmp_path):
    touch(tmp_path, "a.png", "out/record.json", "out/overlays/a.png", "old/dataset.json", "old/a.png")
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", MARK.decode())
    Image.new("RGB", (9, 9)).save(tmp_path / "look.png", pnginfo=text)
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    assert found(tmp_path) == (
        ["a.png", "plain.png"],
        [
            "2 folders that histoloom has written were left out: old, ...",
            "1 pictures that histoloom has drawn were left out: look.png",
        ],
    )


def test_a_name_that_is_not_utf_8_is_recorded_with_escapes(tmp_path):
    path = Path(str(tmp_path), b"Pr\xe4parat.png".decode("utf-8", "surrogateescape"))
    assert source_name(path, tmp_path) == "Pr\\xe4parat.png"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        found(tmp_path)
