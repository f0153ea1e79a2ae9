"""`histoloom export`: woven patches for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.files import check_out
from histoloom.text import counted, printable

KINDS = "dataset (trains as it is), huggingface, coco, yolo or geojson (QuPath)"


def export(
    folder: Annotated[Path, typer.Argument(help="Folder of `generate`.")],
    kind: Annotated[str, typer.Option("--as", help=f"Format: {KINDS}.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
) -> None:
    """Write woven patches in the format of another tool, with a card and the license of the model.

    Shapes cover every labeled pixel of a map and no others. File names of maps and crops are left out.
    """
    check_out(out)
    write_export(folder, kind, out)


def write_export(folder: Path, kind: str, out: Path) -> None:
    """Export woven patches, and say so."""
    from histoloom.cli.progress import bar
    from histoloom.generation.export import export_woven

    count = export_woven(folder, kind, out, bar)
    typer.echo(printable(f"wrote {counted(count, 'patch')} as {kind} to {out}"))
