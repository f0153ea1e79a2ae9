"""The one thread that weaves: it owns the models, and takes turns from the queue."""

import contextlib
import json
import logging
import threading
import time
from typing import Any

from histoloom.errors import HistoloomError
from histoloom.studio.archive import write_zip
from histoloom.studio.examples import Examples
from histoloom.studio.job import Job
from histoloom.studio.preview import Preview
from histoloom.studio.shelf import Picture, Result, Shelf, url_of
from histoloom.studio.task import Task, Woven
from histoloom.studio.turns import Turns
from histoloom.studio.wording import for_page

log = logging.getLogger("histoloom.studio")


class Canceled(Exception):
    """Nobody wants the picture that is being woven."""


class Weaver:
    """Weaves what waits in line, one variation after the other, in a thread of its own."""

    def __init__(self, turns: Turns, examples: Examples):
        self._turns, self._examples = turns, examples
        self._thread = threading.Thread(target=self._run, name="weaver", daemon=True)

    def __enter__(self) -> "Weaver":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._turns.end()
        self._thread.join()

    def _run(self) -> None:
        for example in list(self._examples.all.values())[:1]:  # the first picture takes longer than those after it
            with contextlib.suppress(HistoloomError, Canceled):
                example.task.weave(0, self._stop_at_the_end)
        while (job := self._turns.take()) is not None:
            self._serve(job)

    def _stop_at_the_end(self, *given: Any) -> dict:
        """Raises Canceled where the studio stops."""
        if self._turns.is_over:
            raise Canceled
        return {}

    def _serve(self, job: Job) -> None:
        """Weave one variation of a job, or say why not."""
        began, number = time.monotonic(), job.begun - 1
        try:
            self._weave(job, number)
        except Canceled:
            return
        except HistoloomError as error:
            job.post("failed", {"error": for_page(error)})
        except Exception:  # a fault of ours must not end the thread that serves all others
            log.exception("a job failed")
            job.post("failed", {"error": "the studio failed at this; its log says why"})
        else:
            height, width = job.task.semantic_map.shape
            log.info("wove %d x %d px in %.1f s", width, height, time.monotonic() - began)

    def _weave(self, job: Job, number: int) -> None:
        task, shelf, last = job.task, job.owner.shelf, [None, None]
        preview = Preview(task.semantic_map.shape)
        try:
            woven = task.weave(number, lambda *given: self._step(job, number, preview, last, *given))
        finally:
            for name in filter(None, last):
                shelf.drop(name)
        if job.closed:
            raise Canceled
        job.post("result", _result(task, number, woven, shelf))

    def _step(
        self, job: Job, number: int, preview: Preview, last: list, pipeline: Any, step: int, time: Any, given: dict
    ) -> dict:
        """Report how far a picture is; raises Canceled."""
        if job.closed:
            raise Canceled
        pixels, url = preview.after(pipeline, given), None
        if pixels is not None:
            shelf: Shelf = job.owner.shelf
            old, last[:] = last[0], [last[1], shelf.put(Picture(pixels))]
            if old is not None:
                shelf.drop(old)
        if last[1] is not None:
            url = url_of(last[1])
        done = {"variation": number + 1, "step": given["number"] + 1, "of": given["count"]}
        job.post("step", done | {"preview": url})
        return {}


def _result(task: Task, number: int, woven: Woven, shelf: Shelf) -> dict:
    """What the page shows of a result; its owner's shelf holds it from now on."""
    name = shelf.put(Result(woven.image, woven.png, write_zip(task, number, woven)))
    limit, reasons = task.model.pipeline.copy_limit, {}
    found = {
        "result": name,
        "variation": number + 1,
        "seed": task.config.seed + number,
        "url_image": url_of(name),
        "map_agreement": None,
        "copy": None,
        "nearest": None,
    }
    if woven.copy_score is not None:
        found["copy"] = {"score": round(woven.copy_score, 3), "limit": limit, "crop": None}
    elif task.redrawn is not None:
        reasons["copy"] = "not searched: the surroundings are real tissue"
    elif not task.crops:
        reasons["copy"] = "woven without crops"
    else:
        reasons["copy"] = "the model has no copy limit" if limit is None else "crops or result show no texture"
    if task.model.map_check is None:
        reasons["map_agreement"] = "the studio was started without a judge (--judge)"
    elif task.redrawn is not None:
        reasons["map_agreement"] = "a redrawn image is not judged: only a part of it was woven"
    else:
        lossy = task.model.map_check.lossy(woven.image, task.semantic_map)
        labeled = (task.semantic_map != 255).sum()
        found["map_agreement"] = {"share": round(1 - float(lossy.sum() / labeled), 3), "by": "the judge of this studio"}
    if task.model.training is None:
        reasons["nearest"] = "the studio was started without training patches (--training)"
    elif task.redrawn is not None:
        reasons["nearest"] = "a redrawn image is not compared: only a part of it was woven"
    else:
        found["nearest"] = {
            "distance": round(task.model.training.distance(woven.image), 2),
            "of": "the nearest of the training patches",
            "explanation": f"real patches are usually {task.model.training.usual:.2f} from the nearest of another case",
        }
    return found | {"reasons": reasons, "provenance": json.loads(json.dumps(woven.made, default=lambda s: s.item()))}
