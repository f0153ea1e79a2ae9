"""The server: tokens, one item at a time, each answer once and on the disk, and nothing that tells what an item is."""

import json
import os
import signal
import sqlite3
from contextlib import closing

import pytest
import uvicorn
from full_disk import files_of_at_most
from starlette.applications import Starlette
from study_server import RATINGS, Browser, served

from histoloom.errors import ConfigError, InputError, Interrupted, OutputError, RequestError
from histoloom.locks import locked
from histoloom.study.answers import Answer, Answers, opened_answers, read_answers
from histoloom.study.create import create_study
from histoloom.study.folder import ANSWERS, open_study, read_key
from histoloom.study.serving import serve_study
from histoloom.study.settings import StudyConfig
from histoloom.web.server import listening, serve


@pytest.fixture(scope="module")
def studies(sides, tmp_path_factory):
    """A folder for a new study per test that changes it."""
    counter = iter(range(100))

    def make(**options):
        folder = tmp_path_factory.mktemp("served") / f"study-{next(counter)}"
        create_study(sides, StudyConfig(**({"n": 12, "readers": 2} | options)), folder)
        return folder

    return make


@pytest.fixture(scope="module")
def server(studies):
    folder = studies()
    with served(folder) as running:
        yield running


def test_a_reader_logs_in_by_token_and_sees_the_items_in_order(server):
    browser, order = Browser(server.port), open_study(server.folder).orders["reader-1"]
    assert browser.ask("/api/state")[0] == 401
    status, found, _ = browser.ask("/api/login", {"token": "wrong"})
    assert (status, found["error"]) == (401, "no reader has this token; check for missing letters")
    status, state, headers = browser.ask("/api/login", {"token": f" {server.tokens['reader-1']} "})
    assert status == 200
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in headers["set-cookie"].split(";")}
    assert (state["item"], state["answered"], state["practice"]) == (order[0], 0, True)
    assert (state["reader"], state["total"]) == ("reader-1", len(order))
    status, state, _ = browser.answer(order[0])
    assert (status, state["item"], state["answered"]) == (200, order[1], 1)


def test_only_the_images_of_the_present_item_are_served_and_never_the_key(server):
    browser = Browser(server.port)
    state = browser.ask("/api/login", {"token": server.tokens["reader-2"]})[1]
    status, found, headers = browser.ask(f"/api/image/{state['images'][0]}")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert found["bytes"] == (server.folder / "images" / state["images"][0]).read_bytes()
    other = open_study(server.folder).orders["reader-2"][1]
    for name in (f"{other}.png", "..%2fkey%2fkey.json", "%2e%2e/key/key.json", "key.json"):
        assert browser.ask(f"/api/image/{name}")[0] == 404
    for path in (
        "/key/key.json",
        "/study.json",
        "/static/../../study/pages.py",
        "/static/%2e%2e/app.py",
        "/answers.sqlite",
    ):
        assert browser.ask(path)[0] == 404
    assert Browser(server.port).ask(f"/api/image/{state['images'][0]}")[0] == 401


def test_no_answer_of_the_server_tells_what_an_item_is(studies):
    folder = studies(n=4, readers=1, practice=0)
    (folder / "key").rename(folder.parent / "elsewhere")  # it is served without its key
    seen = []
    with served(folder) as running:
        browser = Browser(running.port)
        state = browser.ask("/api/login", {"token": running.tokens["reader-1"]})[1]
        while state["item"] is not None:
            _, state, _ = browser.answer(state["item"])
            seen.append(json.dumps(state))
    key = read_key(folder, folder.parent / "elsewhere" / "key.json")
    words = {
        "kind",
        "tissue",
        "stroma",
        "synthetic",
        "repeat",
        "control",
        *(i["images"][0]["case"] for i in key["items"].values()),
    }
    assert not [word for word in words if word in " ".join(seen)]
    assert len(seen) == len(key["items"])


def test_every_answer_is_guarded_and_other_sites_are_refused(server):
    browser = Browser(server.port)
    for path in ("/", "/static/study.js", "/api/state", "/absent"):
        headers = browser.ask(path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "server" not in headers
    login = {"token": server.tokens["reader-1"]}
    assert browser.ask("/api/login", login, Origin="http://elsewhere.example")[0] == 403
    assert browser.ask("/api/state", Host="elsewhere.example")[0] == 400
    assert browser.ask("/api/login", {"token": "x" * 70_000})[0] == 413
    assert browser.ask("/api/login", ["token"])[0] == 400
    assert browser.ask("/api/login", {"token": 1})[0] == 400


def test_two_tabs_cannot_answer_twice_and_no_item_can_be_skipped(studies):
    with served(studies()) as running:
        tab = Browser(running.port)
        item = tab.ask("/api/login", {"token": running.tokens["reader-1"]})[1]["item"]
        other = Browser(running.port, tab.cookie)
        after = tab.answer(item, 2)[1]["item"]
        status, found, _ = other.answer(item, 5)
        assert (status, found["error"]) == (409, "you have answered this item already, perhaps in another tab")
        assert other.ask("/api/state")[1]["item"] == after
        later = open_study(running.folder).orders["reader-1"][-1]
        assert tab.answer(later)[1]["error"] == "another item is next"
        for body in (
            {},
            {"item": "x"},
            {"item": after, "answer": 7},
            {"item": after, "answer": 2, "ratings": {"stain": 9}},
        ):
            assert tab.ask("/api/answer", body)[0] == 400


def test_a_token_that_is_used_elsewhere_ends_the_first_login(studies):
    with served(studies()) as running:
        first, second = Browser(running.port), Browser(running.port)
        item = first.ask("/api/login", {"token": running.tokens["reader-1"]})[1]["item"]
        assert second.ask("/api/login", {"token": running.tokens["reader-1"]})[1]["item"] == item
        status, found, _ = first.answer(item)
        assert (status, found["error"]) == (
            401,
            "your token was used elsewhere, or you logged out; log in to go on here",
        )
        assert second.answer(item)[0] == 200
        assert second.ask("/api/logout", {})[0] == 200
        assert second.ask("/api/state")[0] == 401


def test_a_killed_server_loses_no_answer_and_its_tokens_still_hold(studies):
    folder = studies()
    with served(folder) as running:
        browser = Browser(running.port)
        state = browser.ask("/api/login", {"token": running.tokens["reader-1"]})[1]
        for step in (1, 6, 3):
            state = browser.answer(state["item"], step)[1]
        running.process.kill()
        running.process.wait()
    with served(folder, port=running.port) as again:
        assert again.tokens == {}
        assert browser.ask("/api/state")[1] == state
    with opened_answers(folder / ANSWERS) as answers:
        given = answers.all()
    assert sorted(answer.answer for answer in given) == [1, 3, 6]
    assert given[0].ratings == RATINGS
    assert {answer.item for answer in given} == set(open_study(folder).orders["reader-1"][:3])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_answer_that_the_disk_refuses_is_one_line_for_its_reader_and_nothing_is_kept(tmp_path):
    with opened_answers(tmp_path / ANSWERS, is_new=True) as answers:
        token = answers.add_readers(["reader-1"])["reader-1"]
    with closing(sqlite3.connect(tmp_path / ANSWERS)) as connection:
        connection.execute("PRAGMA query_only = ON")  # a disk that refuses to write
        answers = Answers(connection)
        given = Answer("reader-1", "001", 3, RATINGS)
        for write in (lambda: answers.add(given), lambda: answers.log_in(token), lambda: answers.log_out("reader-1")):
            with pytest.raises(RequestError, match=r"cannot write this down \(.*\); tell whoever runs") as refused:
                write()
            assert refused.value.status == 503
        assert answers.all() == []
        connection.execute("PRAGMA query_only = OFF")
        answers.add(given)
        assert [answer.item for answer in answers.all()] == ["001"]


def test_ctrl_c_stops_the_server_in_one_line_and_no_token_is_stored_or_logged(studies):
    folder = studies()
    with served(folder) as running:
        Browser(running.port).ask("/api/login", {"token": running.tokens["reader-1"]})
        os.kill(running.process.pid, signal.SIGINT)
        out, errors = running.process.communicate(timeout=90)
        assert running.process.returncode == 130
        assert errors.splitlines() == ["histoloom: stopped by Ctrl-C; the same command serves again"]
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png")
    for token in running.tokens.values():
        assert token.encode() not in stored
        assert token not in out + errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_before_the_server_listens_for_it_stops_it_too(monkeypatch, number):
    class Late(uvicorn.Config):
        def get_loop_factory(self):
            os.kill(os.getpid(), number)
            return super().get_loop_factory()

    monkeypatch.setattr(uvicorn, "Config", Late)
    before = signal.getsignal(number)
    with listening("127.0.0.1", 0) as listener, pytest.raises(Interrupted, match="stopped by") as stopped:
        serve(Starlette(), listener)
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before


def test_a_proxy_reaches_the_server_by_the_name_that_it_was_given(studies):
    with served(studies(), "--name", "study.example.org") as running:
        browser, login = Browser(running.port), {"token": running.tokens["reader-1"]}
        proxy = {"Host": "study.example.org", "Origin": "https://study.example.org", "X-Forwarded-Proto": "https"}
        status, _, headers = browser.ask("/api/login", login, **proxy)
        assert status == 200
        assert "secure" in headers["set-cookie"].lower()
        assert browser.ask("/api/state", Host="other.example.org")[0] == 400


def test_a_new_token_replaces_the_old_one(studies):
    folder = studies()
    with served(folder) as running:
        old = running.tokens["reader-2"]
    with served(folder, "--new-token", "reader-2") as running:
        assert set(running.tokens) == {"reader-2"}
        assert Browser(running.port).ask("/api/login", {"token": old})[0] == 401
        assert Browser(running.port).ask("/api/login", {"token": running.tokens["reader-2"]})[0] == 200


def test_what_cannot_be_served_is_refused_in_one_line(studies, tmp_path):
    folder, said = studies(), []
    with pytest.raises(ConfigError, match=r"no reader 'x'; its readers are reader-1, reader-2"):
        serve_study(folder, "127.0.0.1", 0, said.append, ("x",))
    with pytest.raises(InputError, match="no such folder"):
        serve_study(tmp_path / "absent", "127.0.0.1", 0, said.append)
    with pytest.raises(ConfigError, match="cannot be served"):
        serve_study(folder, "127.0.0.1", 70_000, said.append)
    with pytest.raises(ConfigError, match=r"'https://study\.example\.org' is not the name of a host"):
        serve_study(folder, "127.0.0.1", 0, said.append, name="https://study.example.org")
    with locked(folder / ANSWERS), pytest.raises(Exception, match="is being written by process"):
        serve_study(folder, "127.0.0.1", 0, said.append)
    (folder / ANSWERS).write_bytes(b"not a database, but long enough to be read as the header of one")
    with pytest.raises(InputError, match="is not a usable database of answers"):
        serve_study(folder, "127.0.0.1", 0, said.append)
    (folder / ANSWERS).unlink()
    with pytest.raises(InputError, match="holds no answers yet"), opened_answers(folder / "absent.sqlite"):
        pass
    assert said == []


def test_a_full_disk_is_not_taken_for_damaged_answers(tmp_path):
    with files_of_at_most(1000), pytest.raises(OutputError) as refused, opened_answers(tmp_path / ANSWERS, is_new=True):
        pass
    assert "free some space" in str(refused.value)
    assert "backup" not in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [20_000, 40_000, 60_000])
def test_readers_get_all_of_their_tokens_or_none_where_the_disk_is_full(size, tmp_path):
    readers = [f"reader-{number}" for number in range(500)]
    with (
        files_of_at_most(size),
        pytest.raises(OutputError, match="free some space"),
        opened_answers(tmp_path / ANSWERS, is_new=True) as answers,
    ):
        answers.add_readers(readers)
    assert read_answers(tmp_path / ANSWERS) == []
    with opened_answers(tmp_path / ANSWERS) as answers:
        assert list(answers.add_readers(readers)) == readers
        assert list(answers.add_readers(readers, ("reader-7",))) == ["reader-7"]
