"""A folder of two slides, and the commands that run in it, in this process."""

from pathlib import Path

import pytest
from slide_files import write_asap, write_qupath, write_tiled_tiff
from slide_project import RIGHT, STROMA_AND_TUMOR, pixels


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """Two good slides, a and b, with the right half annotated; the commands run in this folder."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "tissue.toml").write_text(STROMA_AND_TUMOR)
    write_tiled_tiff(tmp_path / "slides" / "a.tif", pixels(0))
    write_qupath(tmp_path / "annotations" / "a.geojson", [("tumor", [RIGHT])])
    write_tiled_tiff(tmp_path / "slides" / "b.tif", pixels(1))
    write_asap(tmp_path / "annotations" / "b.xml", [("tumor", RIGHT)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def histoloom(call_here):
    """`histoloom(*arguments)`: exit code, lines of stdout, lines of stderr."""
    return call_here
