"""The hook by which a caller watches a pipeline at work, and stops it: that of diffusers.

`callback(pipeline, step, timestep, kwargs)` is called after each step. `kwargs` holds

    latents         after the step, as the denoiser knows them; what the callback returns for them is used instead
    clean_latents   what the step predicts that the latents become; `HistoloomPipeline.decode_latents` shows them
    number, count   how many calls came before this one, and how many there are

Maps that are woven window by window have one call for each window of each step. `latents` are missing there, what is
returned is not used, and `y, x` are the px of the image at which the window begins. `count` includes the windows of
the decoder, which come last, without calls.

The callback does not change a byte of what is woven, unless it returns other latents. An exception of it stops the
work.
"""

from collections.abc import Callable
from typing import Any

StepEnd = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]  # pipeline, step, timestep, kwargs -> kwargs
WindowEnd = Callable[[int, Any, dict[str, Any]], dict[str, Any]]  # step, timestep, kwargs -> kwargs
