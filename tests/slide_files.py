"""Slides and annotations as other programs write them.

`pixels` is level 0, `h w 3`; reduced levels hold block means.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

MPP = 0.25
WAVE = 64  # pixels per period of the coordinate code
Ring = list[tuple[float, float]]


def coordinate_image(width: int, height: int) -> np.ndarray:
    """Red = sine and green = cosine of x, blue = sine of y over WAVE pixels."""
    x, y = (2 * np.pi * (np.arange(edge) + 0.5) / WAVE for edge in (width, height))
    planes = [np.broadcast_to(np.sin(x), (height, width)), np.broadcast_to(np.cos(x), (height, width))]
    planes.append(np.broadcast_to(np.sin(y)[:, None], (height, width)))
    return np.rint(127.5 + 110 * np.stack(planes, -1)).astype(np.uint8)


def reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """The level whose pixels are means of `factor` x `factor` blocks; a part of a block at the edge is dropped."""
    height, width = (edge // factor for edge in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


def write_tiled_tiff(path: Path, pixels: np.ndarray, mpp: float = MPP) -> Path:
    """A generic pyramid of three levels with the resolution in the tags, as Camelyon16 and PANDA."""
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 2, 4):
            tiff.write(
                reduced(pixels, factor),
                tile=(128, 128),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(factor > 1),
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
            )
    return path


def write_ome_tiff(path: Path, pixels: np.ndarray, mpp: float = MPP, planar: bool = False) -> Path:
    """An OME-TIFF whose pyramid lies in SubIFDs; with `planar`, one page per color."""
    options = {"tile": (128, 128), "compression": "zlib", "photometric": "minisblack" if planar else "rgb"}
    metadata = {"axes": "CYX" if planar else "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    levels = [reduced(pixels, factor) for factor in (1, 2, 4)]
    if planar:
        levels = [np.moveaxis(level, -1, 0) for level in levels]
        metadata["Channel"] = {"Name": ["Red", "Green", "Blue"]}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(levels[0], subifds=2, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    return path


def write_aperio(path: Path, pixels: np.ndarray, mpp: str = f"|MPP = {MPP}", codec: str = "jpeg") -> Path:
    """An SVS of one level as Aperio's scanner writes it."""
    height, width = pixels.shape[:2]
    description = f"Aperio Image Library v11.2.1\r\n{width}x{height} (128x128)|AppMag = 40{mpp}"
    options = {"jpeg": {"compressionargs": {"level": 98}, "subsampling": (1, 1)}, "aperio_jp2000_rgb": {}}[codec]
    tifffile.imwrite(
        path,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        compression=codec,
        description=description,
        metadata=None,
        **options,
    )
    return path


def write_image(path: Path, pixels: np.ndarray) -> Path:
    """A plain image."""
    Image.fromarray(pixels).save(path)
    return path


def write_stripped_tiff(path: Path, pixels: np.ndarray, mpp: float = MPP) -> Path:
    """A TIFF in strips, which OpenSlide refuses."""
    options = {"rowsperstrip": 37, "compression": "zlib", "resolution": (25400 / mpp,) * 2, "resolutionunit": "INCH"}
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, **options)
    return path


def write_qupath(path: Path, areas: Iterable[tuple[str, list[Ring]]]) -> Path:
    """QuPath's GeoJSON; each area is a class and its rings, outline first."""
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[*map(list, ring), list(ring[0])] for ring in rings]},
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": [1, 2, 3]}},
        }
        for name, rings in areas
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def write_asap(path: Path, areas: Iterable[tuple[str, Ring]]) -> Path:
    """ASAP's XML, as Camelyon16's lesion_annotations; each area is a group and its outline."""
    annotations = "".join(
        f'<Annotation Name="Annotation {number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(ring))
        + "</Coordinates></Annotation>"
        for number, (group, ring) in enumerate(areas)
    )
    group = '<Group Name="_0" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>'
    groups = f"<AnnotationGroups>{group}</AnnotationGroups>"
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>{annotations}</Annotations>{groups}</ASAP_Annotations>'
    )
    return path


def write_panda_mask(path: Path, labels: np.ndarray) -> Path:
    """A label pyramid as PANDA's: the label in the red channel, reduced levels by taking one pixel of each block."""
    with tifffile.TiffWriter(path) as tiff:
        for factor in (1, 4):
            level = labels[factor // 2 :: factor, factor // 2 :: factor]
            tiff.write(
                np.stack([level, np.zeros_like(level), np.zeros_like(level)], -1),
                tile=(128, 128),
                photometric="rgb",
                compression="lzw" if factor == 1 else "zlib",
                subfiletype=int(factor > 1),
            )
    return path
