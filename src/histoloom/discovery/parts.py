"""Parts of the input: slides, or rows of a patch dataset; each gives batches of pixels with their places.

A part is processed as a whole and its bytes depend on nothing else, so parts may be processed anywhere, in any order.
"""

from pathlib import Path

from histoloom.discovery.cutting import Cutting
from histoloom.discovery.row_parts import DamagedShard, RowsPart, dataset_parts
from histoloom.discovery.slide_parts import SlidePart, without_copies
from histoloom.errors import ConfigError
from histoloom.patches.rules import SlideDataset, SlideList
from histoloom.patches.slide_jobs import find_jobs
from histoloom.slides.labeling import AnnotationConfig

Part = SlidePart | RowsPart | DamagedShard
# Settings of `Cutting` that have no effect on a patch dataset.
ONLY_SLIDES = ("mpp", "min_tissue", "min_focus", "slide_mpp", "case_pattern", "of_chosen")


def find_parts(source: Path, cutting: Cutting, listing: Path | None = None) -> tuple[list[Part], list[str]]:
    """The parts of a patch dataset, a slide, or a folder of slides, and a note on each kind of file that is left out.

    `listing` is a CSV file whose column `slide` names the slides to use. Raises InputError where nothing is found, and
    ConfigError for settings that have no effect on what `source` is.
    """
    if (source / "tissue.toml").is_file() and (source / "data").is_dir():
        given = [name for name in ONLY_SLIDES if getattr(cutting, name) != getattr(Cutting, name)]
        if options := [f"--{name.replace('_', '-')}" for name in given] + ["--list"] * (listing is not None):
            raise ConfigError(
                f"{', '.join(options)}: for slides only, and {source} is a patch dataset, which is used whole and at "
                "its own scale; leave it out, or choose by --split and --size"
            )
        return list(dataset_parts(source.absolute(), cutting.split)), []
    if cutting.split != Cutting.split:
        raise ConfigError(f"{source}: is not a patch dataset, so it has no split {cutting.split!r}; leave it out")
    whole = AnnotationConfig(rest="tissue")  # find_jobs requires a type for slides without annotations
    config = SlideDataset(
        annotations=whole,
        listed=SlideList(slide="slide"),
        slide_mpp=cutting.slide_mpp,
        unannotated=True,
        val_share=0.0,
        case_pattern=cutting.case_pattern,
    )
    jobs, notes = find_jobs(source, None, config, listing)
    kept, copies = without_copies(jobs)
    return [SlidePart(job.slide, job.source, job.case, job.files) for job in kept], notes + copies
