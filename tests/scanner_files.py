"""Slides as scanners write them, in the parts that OpenSlide reads: Leica SCN, Hamamatsu NDPI, 3DHISTECH MRXS, DICOM.

Written after OpenSlide's own notes on these formats, for want of free files of them: they show that what OpenSlide
makes of such a layout arrives where it should, not that every scanner writes it so.
"""

import io
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from slide_files import (
    MPP,
    reduced,
    write_aperio,
    write_image,
    write_ome_tiff,
    write_stripped_tiff,
    write_tiled_tiff,
)

_SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection sizeX="{wide}" sizeY="{high}"><image>
<pixels>{dimensions}</pixels><view sizeX="{sizeX}" sizeY="{sizeY}" offsetX="{left}" offsetY="{top}"/>
<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings>
<illuminationSettings><illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
</image></collection></scn>"""


def jpeg(pixels: np.ndarray, **options) -> bytes:
    """A JPEG stream of full chroma."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=98, subsampling=0, **options)
    return buffer.getvalue()


def write_scn(path: Path, pixels: np.ndarray, mpp: float = MPP, margin: int = 0) -> Path:
    """Leica: a BigTIFF whose XML places the scan, in nanometres, on a larger glass; `margin` level-0 pixels of it."""
    height, width = pixels.shape[:2]
    levels = [reduced(pixels, factor) for factor in (1, 2, 4)]
    clicks = round(mpp * 1000)
    dimensions = "".join(
        f'<dimension sizeX="{level.shape[1]}" sizeY="{level.shape[0]}" r="{i}" ifd="{i}"/>'
        for i, level in enumerate(levels)
    )
    offset = margin * clicks
    xml = _SCN.format(
        wide=(width + 2 * margin) * clicks - 1,  # a scan as large as the glass would count as its overview
        high=(height + 2 * margin) * clicks,
        sizeX=width * clicks,
        sizeY=height * clicks,
        left=offset,
        top=offset,
        dimensions=dimensions,
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for i, level in enumerate(levels):
            tiff.write(
                level,
                tile=(128, 128),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 98},
                subsampling=(1, 1),
                description=xml if i == 0 else None,
                resolution=(1e4 / (mpp * 2**i),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )
    return path


def write_ndpi(path: Path, pixels: np.ndarray, mpp: float = MPP) -> Path:
    """Hamamatsu: one JPEG per level, with restart markers as tiles where they fit; 64-bit offsets in a classic TIFF."""
    levels = [reduced(pixels, factor) for factor in (1, 2, 4)]
    data = bytearray(b"II*\0" + bytes(8))
    link = 4
    for i, level in enumerate(levels):
        rows, columns = level.shape[:2]
        tiled = columns % 64 == 0 and rows % 8 == 0
        stream = jpeg(level, **({"restart_marker_blocks": 8} if tiled else {}))
        start = len(data)
        data += stream + bytes(len(stream) % 2)
        starts = _restarts(stream) if tiled else [0]
        starts_at = len(data)
        data += struct.pack(f"<{len(starts)}I", *starts)
        resolution_at = len(data)
        data += struct.pack("<2I", round(1e6 / (mpp * 2**i)), 100)
        short, long, rational, real = 3, 4, 5, 11
        lens = struct.unpack("<I", struct.pack("<f", 40 / 2**i))[0]
        tags = [
            (256, long, 1, columns), (257, long, 1, rows), (258, short, 1, 8), (259, short, 1, 7), (262, short, 1, 6),
            (273, long, 1, start), (277, short, 1, 3), (278, long, 1, rows), (279, long, 1, len(stream)),
            (282, rational, 1, resolution_at), (283, rational, 1, resolution_at), (296, short, 1, 3),
            (65420, long, 1, 1), (65421, real, 1, lens), (65424, 9, 1, 0),
            (65426, long, len(starts), starts_at if len(starts) > 1 else 0),
        ]  # fmt: skip
        data[link : link + 8] = struct.pack("<Q", len(data))
        data += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        link = len(data)
        data += bytes(8 + 4 * len(tags))  # the next directory, and the high halves of all values
    path.write_bytes(data)
    return path


def _restarts(stream: bytes) -> list[int]:
    """Where each run between restart markers begins, from the start of the stream."""
    scan = stream.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4], "big")
    return [
        first,
        *(i + 2 for i in range(first, len(stream) - 1) if stream[i] == 0xFF and 0xD0 <= stream[i + 1] <= 0xD7),
    ]


def write_mrxs(path: Path, pixels: np.ndarray, mpp: float = MPP, empty: int = 0) -> Path:
    """3DHISTECH: photographs that overlap, two by two, beside an index; `empty` columns of none before them."""
    height, width = pixels.shape[:2]
    across, down = (-(-(edge + 8) // 8) * 4 for edge in (width, height))  # a photograph's edges
    overlap = 2 * across - width, 2 * down - height
    step = across - overlap[0], down - overlap[1]
    photos = [[pixels[y : y + down, x : x + across] for x in (0, step[0])] for y in (0, step[1])]
    columns = empty + 2
    stored, records = bytearray(), []
    for factor in (1, 2, 4):
        small = [[reduced(photo, factor) for photo in row] for row in photos]
        level = []
        for y in range(0, 2, factor):
            for x in range(0, columns, factor):
                image = np.full((down, across, 3), 255, np.uint8)
                inside = 0
                for row in range(y, min(y + factor, 2)):
                    for column in range(max(x, empty), min(x + factor, columns)):
                        photo = small[row][column - empty]
                        top, left = (row - y) * down // factor, (column - x) * across // factor
                        image[top : top + len(photo), left : left + photo.shape[1]] = photo
                        inside += 1
                if inside:
                    stream = jpeg(image)
                    level.append((y * columns + x, len(stored), len(stream), 0))
                    stored += stream
        records.append(level)
    places = b"".join(struct.pack("<bii", 0, x * step[0], y * step[1]) for y in range(2) for x in range(columns))
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "Data0000.dat").write_bytes(stored + places)
    (folder / "Index.dat").write_bytes(_mrxs_index(records, len(stored), len(places)))
    (folder / "Slidedat.ini").write_text(_slidedat(columns, (across, down), overlap, mpp), encoding="utf-8")
    path.write_bytes(jpeg(reduced(pixels, 4)))
    return path


_SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"


def _mrxs_index(records: list[list[tuple[int, int, int, int]]], places_at: int, places_bytes: int) -> bytes:
    """Roots of both lists, then a page of images for each level, then a page with the record of the places."""
    head = b"01.02" + _SLIDE_ID.encode()
    levels_at = len(head) + 8
    body = bytearray(struct.pack("<2I", levels_at, levels_at + 4 * len(records)) + bytes(4 * (len(records) + 1)))

    def page(pointer: int, entries: bytes) -> None:
        body[pointer - len(head) : pointer - len(head) + 4] = struct.pack("<I", len(head) + len(body))
        body.extend(struct.pack("<2I", 0, len(head) + len(body) + 8) + entries)

    for i, level in enumerate(records):
        page(levels_at + 4 * i, struct.pack("<2I", len(level), 0) + b"".join(struct.pack("<4I", *r) for r in level))
    page(levels_at + 4 * len(records), struct.pack("<7I", 1, 0, 0, 0, places_at, places_bytes, 0))
    return head + bytes(body)


def _slidedat(columns: int, photo: tuple[int, int], overlap: tuple[int, int], mpp: float) -> str:
    sections = "".join(
        f"HIER_0_VAL_{i}=ZoomLevel_{i}\nHIER_0_VAL_{i}_SECTION=LAYER_0_LEVEL_{i}_SECTION\n" for i in range(3)
    )
    levels = "".join(
        f"[LAYER_0_LEVEL_{i}_SECTION]\nOVERLAP_X={overlap[0] / 2**i}\nOVERLAP_Y={overlap[1] / 2**i}\n"
        f"MICROMETER_PER_PIXEL_X={mpp * 2**i}\nMICROMETER_PER_PIXEL_Y={mpp * 2**i}\nIMAGE_FORMAT=JPEG\n"
        f"IMAGE_FILL_COLOR_BGR=16777215\nDIGITIZER_WIDTH={photo[0]}\nDIGITIZER_HEIGHT={photo[1]}\n"
        f"IMAGE_CONCAT_FACTOR={int(i > 0)}\n"
        for i in range(3)
    )
    return (
        f"[GENERAL]\nSLIDE_VERSION=01.02\nSLIDE_ID={_SLIDE_ID}\nIMAGENUMBER_X={columns}\nIMAGENUMBER_Y=2\n"
        "OBJECTIVE_MAGNIFICATION=20\nCameraImageDivisionsPerSide=1\n"
        "[HIERARCHICAL]\nHIER_COUNT=1\nNONHIER_COUNT=1\nINDEXFILE=Index.dat\nHIER_0_NAME=Slide zoom level\n"
        f"HIER_0_COUNT=3\n{sections}NONHIER_0_NAME=VIMSLIDE_POSITION_BUFFER\nNONHIER_0_COUNT=1\n"
        "NONHIER_0_VAL_0=default\nNONHIER_0_VAL_0_SECTION=NONHIERLAYER_0_SECTION\n"
        f"[DATAFILE]\nFILE_COUNT=1\nFILE_0=Data0000.dat\n[NONHIERLAYER_0_SECTION]\n"
        f"VIMSLIDE_POSITION_DATA_FORMAT_VERSION=257\n{levels}"
    )


def write_dicom(path: Path, pixels: np.ndarray, mpp: float = MPP) -> Path:
    """DICOM: a file per level in one folder, tiles as frames (TILED_FULL), each a baseline JPEG; `path` is level 0."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.sequence import Sequence
    from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

    series, frame = generate_uid(entropy_srcs=["series"]), generate_uid(entropy_srcs=["frame"])
    for i in range(3):
        level = reduced(pixels, 2**i)
        rows, columns = level.shape[:2]
        edge = 128
        padded = np.pad(level, ((0, -rows % edge), (0, -columns % edge), (0, 0)), mode="edge")
        frames = [
            jpeg(padded[y : y + edge, x : x + edge]) for y in range(0, rows, edge) for x in range(0, columns, edge)
        ]
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["level", str(i)])
        meta.TransferSyntaxUID = JPEGBaseline8Bit
        file = path if i == 0 else path.with_name(f"level-{i}.dcm")
        image = FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
        image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        image.SeriesInstanceUID, image.FrameOfReferenceUID = series, frame
        image.Modality = "SM"
        image.ImageType = (
            ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"] if i == 0 else ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
        )
        image.DimensionOrganizationType = "TILED_FULL"
        image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = columns, rows
        image.TotalPixelMatrixFocalPlanes, image.NumberOfOpticalPaths = 1, 1
        image.Rows = image.Columns = edge
        image.NumberOfFrames = len(frames)
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "YBR_FULL_422", 0
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
        measures = Dataset()
        measures.PixelSpacing, measures.SliceThickness = [mpp * 2**i / 1000] * 2, 0.001
        shared = Dataset()
        shared.PixelMeasuresSequence = Sequence([measures])
        image.SharedFunctionalGroupsSequence = Sequence([shared])
        image.PixelData = encapsulate(frames)
        image["PixelData"].is_undefined_length = True
        image.save_as(file, enforce_file_format=True)
    return path


FORMATS = {
    "tiled.tif": write_tiled_tiff,
    "pyramid.ome.tif": write_ome_tiff,
    "planar.ome.tif": lambda path, pixels: write_ome_tiff(path, pixels, planar=True),
    "strips.tif": write_stripped_tiff,
    "jpeg.svs": write_aperio,
    "jpeg2000.svs": lambda path, pixels: write_aperio(path, pixels, codec="aperio_jp2000_rgb"),
    "plain.png": write_image,
    "leica.scn": write_scn,
    "hamamatsu.ndpi": write_ndpi,
    "3dhistech.mrxs": write_mrxs,
    "dicom.dcm": write_dicom,
}
