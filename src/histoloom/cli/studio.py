"""`histoloom studio`: paint tissue in the browser, and see it woven."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.studio.settings import StudioConfig


def studio(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Folders or hub names of models, or bundled ones. Default: ebhi-seg-few-steps."),
    ] = None,
    bank: Annotated[
        Path | None, typer.Option(help="Folder of crops, as for `generate`. Default: the bank of each model.")
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            help="Judge of `train-judge`, which says how well a result follows its map. Default: that of each model."
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            help="Dataset that the models were trained on (split train), to say how near a result is to the nearest "
            "training patch. Default: what each model knows of its own."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to serve at; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to serve at; 0 takes a free one.")] = 8765,
    name: Annotated[
        str, typer.Option(help="Name by which browsers reach the server through a proxy, such as studio.example.org.")
    ] = "",
    users: Annotated[int, typer.Option(help="Users that are served at once.")] = StudioConfig.users,
    queue: Annotated[int, typer.Option(help="Requests of one user that wait or run.")] = StudioConfig.queue,
) -> None:
    """Paint tissue in the browser, choose crops, and see it woven, until Ctrl-C.

    At any address but those of this machine, users need a token, which is printed at the start. Uploads and results
    are held in memory, for each user apart, and are gone when the server stops.
    """
    config = StudioConfig(users=users, queue=queue)

    from histoloom.cli.progress import bar
    from histoloom.evaluation.nearest_training import TrainingPatches
    from histoloom.studio.catalog import Model
    from histoloom.studio.serving import serve_studio
    from histoloom.web.names import names_of
    from histoloom.weights import find_model

    names_of(host, name)  # a wrong name is refused before models are opened, which takes a while
    known = None if training is None else TrainingPatches.of_dataset(training, progress=bar)
    opened = [Model.open(find_model(source), bank, judge, known) for source in models or ["ebhi-seg-few-steps"]]
    serve_studio(opened, config, host, port, typer.echo, name)
