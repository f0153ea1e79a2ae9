"""What a studio allows its users. Imports nothing heavy: the command line reads its defaults here."""

from dataclasses import dataclass

from histoloom.config import check_numbers
from histoloom.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudioConfig:
    """Limits of a studio."""

    users: int = 16  # browsers that are served at once
    queue: int = 4  # jobs of one user that wait or run
    variations: int = 8  # of one job
    upload_bytes: int = 64 * 2**20
    upload_pixels: int = 16_000_000  # of an uploaded picture, and of the area that is read of a slide
    most_edge: int = 1024  # px of a map
    held_bytes: int = 128 * 2**20  # of the uploads and results of one user; the least used leave first, crops last
    idle_seconds: int = 3600  # after which a user's uploads and results are dropped
    leave_seconds: int = 5  # after which a job that nobody watches is canceled

    def __post_init__(self):
        check_numbers(self)
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"{name} is {value}; give a whole number of 1 or more")
