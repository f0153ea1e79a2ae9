"""Some models of lazyslide-models run Python code from huggingface.co when they load: only where the user allows it.

Their names and their source say so; and while any other model loads, transformers and torch.hub run no such code.
"""

import contextlib
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from histoloom.errors import ConfigError

NAMES = ("chief", "conch_v1.5", "hibou", "keep", "madeleine", "midnight", "musk", "prism", "titan")  # first letters
SIGNS = ("trust_remote_code=True", "torch.hub.load")
# The functions that fetch code to run it.
_FETCH = (("transformers.dynamic_module_utils", "get_cached_module_file"), ("torch.hub", "load"))


def check_remote_code(name: str, model: type, allowed: bool) -> None:
    """Raise ConfigError where the model `name`, a class of lazyslide-models, runs foreign code and that is not
    allowed."""
    if not allowed and (name.lower().startswith(NAMES) or any(sign in _source(model) for sign in SIGNS)):
        _refuse(name)


@contextmanager
def no_remote_code(name: str, allowed: bool) -> Iterator[None]:
    """While the block loads the encoder `name`, code from the hub raises ConfigError, unless it is allowed."""
    with contextlib.ExitStack() as stack:
        for module_name, function in () if allowed else _FETCH:
            with contextlib.suppress(ImportError):
                module: Any = importlib.import_module(module_name)
                stack.callback(setattr, module, function, getattr(module, function))
                setattr(module, function, lambda *_, **__: _refuse(name))
        yield


def _source(model: type) -> str:
    found = []
    for kind in inspect.getmro(model):
        with contextlib.suppress(OSError, TypeError):
            found.append(inspect.getsource(kind))
    return "".join(found).replace(" ", "")


def _refuse(name: str) -> NoReturn:
    raise ConfigError(
        f"encoder {name}: loading it runs code from the internet on this machine; if you trust its authors, add "
        "--allow-remote-code"
    )
