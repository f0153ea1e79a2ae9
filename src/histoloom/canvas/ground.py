"""What a canvas is woven on: a layout, and the crops that each of its places follows."""

from dataclasses import dataclass

from histoloom.canvas.choices import Choices
from histoloom.canvas.layout import Layout, Regions
from histoloom.canvas.settings import CanvasConfig
from histoloom.conditioning.inputs import Crop
from histoloom.errors import ConfigError, InputError
from histoloom.models.field import Area, Field
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.windows import WindowConfig


@dataclass(frozen=True, eq=False)
class CanvasGround:
    """A layout, and the crops that each of its places follows."""

    layout: Layout
    choices: Choices | None
    cell: int  # px

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.layout.shape

    def read(self, y: int, x: int, height: int, width: int) -> Area:
        """The area whose corner is (y, x), in px."""
        semantic_map = self.layout.read(y, x, height, width)
        if self.choices is None:
            return Area(semantic_map, [])
        return Area(semantic_map, *self.choices.read(y, x, semantic_map, self.cell))


def canvas_field(
    pipeline: HistoloomPipeline,
    layout: Layout,
    regions: Regions,
    crops: dict[int, list[Crop]],
    config: CanvasConfig,
    mpp: float,
) -> tuple[Field, CanvasConfig]:
    """The field of a canvas, and `config` as it was resolved."""
    denoiser = pipeline.denoiser
    if denoiser.reads.canvas:
        raise ConfigError(
            "the model pastes crops at their place, and cannot weave a canvas; take one that reads crops as reference"
        )
    if crops and not denoiser.reads.crops:
        raise ConfigError("the model reads no crops; leave out --crops")
    if min(layout.shape) + 2 * denoiser.cell < config.window:
        height, width = layout.shape
        raise InputError(
            f"{layout.path}: is {width} x {height} px, narrower than a window of {config.window} px; weave it with "
            "`histoloom generate`, or give a smaller --window"
        )
    scheduler, resolved = pipeline.resolve(config)
    choices = Choices(crops, regions, config.crop_cell / mpp, config.seed) if crops else None
    ground = CanvasGround(layout, choices, denoiser.cell)
    windows = WindowConfig(edge=config.window, overlap=config.overlap)
    field = Field(denoiser, pipeline.autoencoder, scheduler, resolved, ground, config.seed, windows)
    return field, resolved
