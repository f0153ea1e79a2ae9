"""Which files are slides, and what they are called."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from scanner_files import write_dicom

from histoloom.slides.dicom import is_dicom, series_uid
from histoloom.slides.find import find_slides


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(folder: Path) -> tuple[dict[str, str], list[str]]:
    slides, notes = find_slides(folder)
    return {slide.path.relative_to(folder).as_posix(): slide.name for slide in slides}, notes


@pytest.fixture
def series(tmp_path) -> Path:
    """Three DICOM slides of several files each in one folder."""
    (tmp_path / "all").mkdir()
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        pixels = np.random.default_rng(number).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        write_dicom(tmp_path / str(number) / "level-0.dcm", pixels)
        uid, frame = generate_uid(), generate_uid()
        for path in sorted((tmp_path / str(number)).glob("*.dcm")):
            data = pydicom.dcmread(path)
            data.SeriesInstanceUID, data.FrameOfReferenceUID, data.SOPInstanceUID = uid, frame, generate_uid()
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
            data.save_as(tmp_path / "all" / f"slide{number}_{path.name}", enforce_file_format=True)
    return tmp_path / "all"


def test_each_series_of_a_folder_is_a_slide(series):
    names, _ = found(series)
    assert names == {f"slide{i}_level-0.dcm": f"slide{i}_level-0" for i in range(3)}
    slides, _ = find_slides(series / "slide1_level-1.dcm")
    assert {path.name for path in slides[0].files} == {"slide1_level-0.dcm", "slide1_level-2.dcm"}


def test_a_series_alone_has_the_name_of_its_folder_and_files_need_no_suffix(series):
    for path in series.glob("slide[12]*"):
        path.unlink()
    for number, path in enumerate(sorted(series.iterdir())):
        path.rename(series / f"IM{number:04d}")
    assert found(series)[0] == {"IM0000": "all"}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_series_is_read_past_sequences_that_name_others(tmp_path, syntax):
    data = pydicom.Dataset()
    other = pydicom.Dataset()
    other.SeriesInstanceUID = "1.2.3"
    data.ReferencedSeriesSequence = pydicom.Sequence([other])
    data.SeriesInstanceUID, data.SOPClassUID, data.SOPInstanceUID = "1.2.840.99", generate_uid(), generate_uid()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    for undefined in (False, True):
        data["ReferencedSeriesSequence"].is_undefined_length = undefined
        data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        assert series_uid(tmp_path / "a.dcm") == "1.2.840.99"


def test_what_is_not_dicom_has_no_series(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    assert is_dicom(tmp_path / "a.dcm")
    assert series_uid(tmp_path / "a.dcm") == ""
    (tmp_path / "b.dcm").write_bytes(b"x")
    assert series_uid(tmp_path / "b.dcm") == ""


def test_thumbnails_labels_and_masks_next_to_a_slide_are_not_slides(tmp_path):
    pictures = ["a.jpg", "a_thumb.png", "a.svs.png", "a-label.jpg", "a_mask.tif", "A_OVERLAY.PNG"]
    touch(tmp_path, "a.svs", "b.png", "sub/a.jpg", "mask.tif", *pictures)
    names, notes = found(tmp_path)
    assert set(names) == {"a.svs", "b.png", "sub/a.jpg", "mask.tif"}
    assert notes == [
        f"6 pictures next to the slide of their name (thumbnails, labels, masks) were left out: {'A_OVERLAY.PNG'}, ..."
    ]


def test_slides_of_other_formats_are_counted(tmp_path):
    touch(tmp_path, "a.qptiff", "b.btf", "c.ptif", "d.czi", "e.vsi", "f.isyntax")
    names, notes = found(tmp_path)
    assert set(names) == {"a.qptiff", "b.btf", "c.ptif", "d.czi"}
    assert notes == ["2 files are not slides that can be opened: e.vsi, ..."]
