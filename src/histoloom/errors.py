"""Everything that can go wrong on purpose.

    HistoloomError
    ├── ConfigError       a recipe or an option that makes no sense
    ├── InputError        a file, folder or array we were given
    │   ├── ImageError        an image or map that is broken or does not fit
    │   ├── SlideError        a slide that cannot be read, or lacks its mpp
    │   ├── AnnotationError   an annotation file that is malformed or unsafe
    │   └── TissueError       a tissue type that no table knows
    ├── ModelError        weights or a checkpoint of another kind
    ├── OutputError       a folder we cannot or must not write to
    │   └── LockedError       a folder that another process is writing
    ├── RequestError      a request of a browser that a server refuses
    ├── Interrupted       a signal stopped a run, which the same command resumes
    └── MissingExtraError an optional dependency; names the extra

Each message says what was found, where, and what to do next. The command line prints it as one line and exits 1.
"""


class HistoloomError(Exception):
    """Root of every error that Histoloom raises on purpose."""

    def __reduce__(self) -> tuple:
        # Exception's own calls the class with the message alone, which those with more arguments refuse: the process
        # that a worker sends such an error to would take the worker for dead.
        return _again, (type(self), self.args, vars(self))


def _again(kind: type[HistoloomError], args: tuple, more: dict) -> HistoloomError:
    """A pickled error in another process."""
    error = kind.__new__(kind)
    error.args = args
    vars(error).update(more)
    return error


class ConfigError(HistoloomError):
    """A recipe or an option that makes no sense."""


class InputError(HistoloomError):
    """A file, folder or array that cannot be used."""


class ImageError(InputError):
    """An image or a map that is broken, or does not fit its partner."""


class SlideError(InputError):
    """A slide that cannot be read, or whose mpp is unknown."""


class AnnotationError(InputError):
    """An annotation file that is malformed or unsafe."""


class TissueError(InputError):
    """A tissue type that the tissue table does not know."""


class ModelError(HistoloomError):
    """Weights or a checkpoint of another architecture, format or run."""


class OutputError(HistoloomError):
    """A place that cannot, or must not, be written to."""


class LockedError(OutputError):
    """A folder that another process is writing."""


class RequestError(HistoloomError):
    """A request of a browser that a server refuses; `status` is the HTTP status."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Interrupted(HistoloomError):
    """A signal stopped a run after it saved its state; `code` is the exit code (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class MissingExtraError(HistoloomError):
    """An optional dependency that is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(f"{package} is not installed; run: pip install 'histoloom[{extra}]'")
