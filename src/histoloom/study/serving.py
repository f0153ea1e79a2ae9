"""Serve a study to its readers."""

from collections.abc import Callable
from pathlib import Path

from histoloom.errors import ConfigError
from histoloom.files import writable
from histoloom.study.answers import opened_answers
from histoloom.study.folder import ANSWERS, open_study
from histoloom.study.pages import StudyPages
from histoloom.web.app import make_app
from histoloom.web.names import is_loopback, names_of
from histoloom.web.server import address, listening, serve


def serve_study(
    folder: Path, host: str, port: int, say: Callable[[str], None], replace: tuple[str, ...] = (), name: str = ""
) -> None:
    """Serve a study until a signal stops the process; `say` gets lines for whoever started it.

    Tokens of readers are made at the first start and shown once; those of `replace` are made again. `name` is the name
    by which browsers reach the server through a proxy. Raises InputError for a damaged study, LockedError where
    another process serves it, ConfigError for an address, a name or a reader that does not exist.
    """
    hosts, study = names_of(host, name), open_study(folder)
    unknown = sorted(set(replace) - study.orders.keys())
    if unknown:
        raise ConfigError(f"{folder}: has no reader {unknown[0]!r}; its readers are {', '.join(study.orders)}")
    path = folder / ANSWERS
    with writable(path), listening(host, port) as listener, opened_answers(path, is_new=True) as answers:
        tokens = answers.add_readers(list(study.orders), replace)
        for reader, token in tokens.items():
            say(f"{reader}: {token}")
        if tokens:
            say("readers log in with these tokens, which are not shown again; --new-token READER makes another")
        if not is_loopback(host):
            say("anyone on the network can reach this page, and answers travel unencrypted: put a TLS proxy before it")
        say(f"serving {folder} at {address(host, listener)}; stop with Ctrl-C")
        serve(make_app("study", StudyPages(study, answers).routes(), hosts), listener)
