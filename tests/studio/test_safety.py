"""Safe to put on a ward's server: who may ask, what is kept apart, what is freed, and what is never written."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
from studio_server import Page, file_of, map_body, studio, until
from study_server import Browser

from histoloom.errors import ConfigError, RequestError
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.studio.catalog import Model
from histoloom.studio.job import Job
from histoloom.studio.serving import serve_studio
from histoloom.studio.sessions import Sessions
from histoloom.studio.settings import StudioConfig
from histoloom.studio.shelf import Shelf, ShownCrop, Upload
from histoloom.web.names import host_name
from histoloom.web.tokens import new_token

SLOW = 1000  # steps


@pytest.fixture(scope="module")
def port(tiny):
    with studio(tiny, leave_seconds=1, users=500, queue=3) as port:
        yield port


@pytest.fixture
def page(port):
    return Page(port)


def slow_body(steps: int = SLOW) -> dict:
    """A map that takes a while."""
    return {"model": "tiny", "steps": steps} | map_body(np.zeros((96, 96), np.uint8))


def test_every_answer_is_guarded_and_every_cookie_is_strict(port):
    browser = Browser(port)
    headers = browser.ask("/api/state")[2]
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in headers["set-cookie"].split(";")}
    for path in ("/api/state", "/api/images/x.png", "/static/study.js", "/absent"):
        headers = browser.ask(path)[2]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "data:" not in policy
        assert "server" not in headers
    assert browser.ask("/api/state", Host="elsewhere.example")[0] == 400
    assert browser.ask("/api/weave", slow_body(), Origin="http://elsewhere.example")[0] == 403
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert browser.ask("/api/state", **{"Sec-Fetch-Site": site})[0] == status
    assert browser.ask("/", **{"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link leads here
    assert browser.ask("/api/state", Host="[::1")[0] == 400
    assert browser.ask("/api/weave", slow_body(), Origin="http://[")[0] == 403


def test_nobody_without_a_session_reaches_anything_and_nobody_else_reaches_what_is_mine(page, tissue_image):

    stranger, other = Browser(page.port), Page(page.port)
    image = page.ask("/api/images", file_of(tissue_image))[1]
    result = page.weave(page.example())[0]
    job = page.ask("/api/weave", slow_body())[1]["job"]
    mine = [image["url"], result["url_image"], f"/api/results/{result['result']}/zip", f"/api/jobs/{job}/events"]
    for path in mine:
        assert stranger.ask(path)[0] == 401
        assert other.ask(path)[0] == 404
    posts = [("/api/crops", {"image": image["image"]}), (f"/api/jobs/{job}/cancel", {})]
    for path, body in posts:
        assert stranger.ask(path, body)[0] == 401
        assert other.ask(path, body)[0] == 404
    for path in ("/api/maps", "/api/images", "/api/weave", "/api/reopen"):
        assert stranger.ask(path, {})[0] == 401
    page.ask(f"/api/jobs/{job}/cancel", {})


def test_a_token_is_needed_where_it_was_set(tiny):
    token = new_token()
    with studio(tiny, token=token, hosts=None) as port:
        browser = Browser(port)
        assert browser.ask("/api/state")[:2] == (401, {"error": "log in with the token of this studio"})
        for wrong in ("", token[:-1], token + "x", "\u00e4"):
            assert browser.ask("/api/login", {"token": wrong})[0] == 401
        assert browser.ask("/api/login", {"token": 1})[0] == 400
        assert browser.ask("/api/state")[0] == 401
        status, _, headers = browser.ask("/api/login", {"token": f" {token} "})
        assert status == 200
        assert "samesite=strict" in headers["set-cookie"].lower()
        assert browser.ask("/api/state")[1]["needs_token"] is True
        proxied = browser.ask("/api/login", {"token": token}, **{"X-Forwarded-Proto": "https"})[2]
        assert "secure" in proxied["set-cookie"].lower()


def test_users_have_a_limit_and_are_told():
    sessions = Sessions(StudioConfig(users=2))
    used, unused = sessions.begin(), sessions.begin()
    assert sessions.find(used) is not None
    assert sessions.find(second := sessions.begin()) is not None  # whoever never came back makes room
    assert sessions.find(unused) is None
    assert sessions.find(used) is not None
    assert sessions.find(second) is not None
    with pytest.raises(RequestError, match="2 users are here already; try again in some minutes") as refused:
        sessions.begin()
    assert refused.value.status == 503


def test_two_users_take_turns_and_see_their_place(port):
    one, two = Page(port), Page(port)
    first = one.ask("/api/weave", slow_body(60) | {"variations": 3})[1]
    second = two.ask("/api/weave", slow_body(60))[1]
    assert (first["place"], second["place"]) == (0, 1)
    events = two.events(second["job"])
    assert events[0][0] in ("place", "step")
    assert events[-1][0] == "result"
    assert sum(name == "result" for name, _ in one.events(first["job"], 1)) <= 2  # it has not waited for all three
    one.ask(f"/api/jobs/{first['job']}/cancel", {})


def test_one_user_cannot_fill_the_line(page):
    jobs = [page.ask("/api/weave", slow_body())[1]["job"] for _ in range(3)]
    status, found, _ = page.ask("/api/weave", slow_body())
    assert (status, found["error"]) == (429, "3 of your requests are in line; wait for one, or cancel it")
    for job in jobs:
        assert page.ask(f"/api/jobs/{job}/cancel", {})[0] == 200
    assert page.ask("/api/weave", slow_body(1))[0] == 200


def test_cancel_works_within_a_step(page, tiny, monkeypatch):
    steps = []
    call = HistoloomPipeline.__call__

    def counted(self, *given, callback_on_step_end=None, **options):
        def step_end(*of):
            steps.append(of[1])
            return callback_on_step_end(*of)

        return call(self, *given, callback_on_step_end=step_end, **options)

    monkeypatch.setattr(HistoloomPipeline, "__call__", counted)
    job = page.ask("/api/weave", slow_body())[1]["job"]
    until(lambda: len(steps) > 2)
    page.ask(f"/api/jobs/{job}/cancel", {})
    seen = len(steps)
    assert page.events(job) == [("canceled", {})]
    assert page.weave(slow_body(1))  # the next one does not wait for the rest
    assert len(steps) <= seen + 3


def test_a_studio_that_stops_tells_those_who_watch_and_logs_no_error(tiny, caplog):
    with studio(tiny) as port:
        page = Page(port)
        job = page.ask("/api/weave", slow_body())[1]["job"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"/api/jobs/{job}/events", headers={"Cookie": page.cookie})
        stream = connection.getresponse()
        assert stream.readline().startswith(b"id: ")
    assert stream.read().endswith(b"event: canceled\ndata: {}\n\n")
    connection.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_client_that_leaves_frees_its_turn(page):
    job = page.ask("/api/weave", slow_body())[1]["job"]
    assert page.events(job, 1)  # then the connection is closed
    never_watched = Page(page.port)
    other = never_watched.ask("/api/weave", slow_body())[1]["job"]
    last = Page(page.port)
    assert last.weave(slow_body(1))
    assert page.events(job) == never_watched.events(other) == [("canceled", {})]


def test_a_fault_ends_one_job_and_not_the_studio(page, monkeypatch):
    def fails(self, *given, **options):
        raise RuntimeError("secret of the weights")

    with monkeypatch.context() as patched:
        patched.setattr(HistoloomPipeline, "__call__", fails)
        job = page.ask("/api/weave", slow_body(1))[1]["job"]
        assert page.events(job)[-1] == ("failed", {"error": "the studio failed at this; its log says why"})
    assert page.weave(slow_body(1))


def test_a_client_that_leaves_in_the_middle_of_an_upload_logs_no_error(page, caplog):
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        head = f"POST /api/images HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\nCookie: {page.cookie}\r\n"
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\n".encode() + b"half")
    page.weave(slow_body(1))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_fault_of_the_server_is_said_in_json_and_guarded(page, monkeypatch):
    def fails(*given):
        raise RuntimeError("secret of the server")

    with monkeypatch.context() as patched:
        patched.setattr("histoloom.studio.pages.read_upload", fails)
        status, said, headers = page.ask("/api/images", b"picture")
    assert (status, said) == (500, {"error": "the server failed at this; its log says why"})
    assert headers["cache-control"] == "no-store"
    assert page.ask("/api/state")[0] == 200


def test_crops_outlive_uploads_and_what_is_used_outlives_the_rest():
    pixels = np.zeros((10, 10, 3), np.uint8)
    shelf = Shelf(4 * pixels.nbytes)
    crop, *uploads = (shelf.put(kind(pixels)) for kind in (ShownCrop, Upload, Upload, Upload))
    assert shelf.find(uploads[0], Upload) is not None
    shelf.put(Upload(pixels))
    assert [shelf.find(name, Upload) is not None for name in uploads] == [True, False, True]
    assert shelf.find(crop, ShownCrop) is not None
    large = shelf.put(Upload(np.zeros((36, 10, 3), np.uint8)))
    assert shelf.find(crop, ShownCrop) is shelf.find(uploads[0], Upload) is None
    assert shelf.find(large, Upload) is not None


def test_a_name_that_no_browser_sends_is_refused_before_anything_is_served():
    assert host_name("Studio.Example.org") == "studio.example.org"
    assert host_name("[2001:DB8::1]") == "2001:db8::1"
    for name in (
        "https://studio.example.org",
        "studio.example.org:8443",
        "studio.example.org/",
        "a b",
        "*",
        "münchen.de",
    ):
        with pytest.raises(ConfigError, match="is not the name of a host; give what browsers reach, without https"):
            serve_studio([], StudioConfig(), "127.0.0.1", 0, pytest.fail, name)


def test_what_a_bank_leaves_out_is_said_when_its_studio_starts(studio_folder, tmp_path, monkeypatch):
    bank, said = tmp_path / "crops", []
    shutil.copytree(studio_folder / "crops", bank)
    (next(path for path in bank.rglob("*.png")).parent / "crop.svs").write_bytes(b"a slide")
    models = [Model.open(str(studio_folder), bank)]
    assert "crop.svs" in models[0].bank.notes[0]
    monkeypatch.setattr("histoloom.studio.serving.serve", lambda *_: None)
    serve_studio(models, StudioConfig(), "127.0.0.1", 0, said.append)
    assert said[0] == models[0].bank.notes[0]
    assert said[1].startswith("serving ")


def test_what_a_user_holds_is_bounded_and_the_oldest_leaves_first(tiny):
    with studio(tiny, held_bytes=200_000) as port:
        page = Page(port)
        results = [page.weave(slow_body(1) | {"seed": seed})[0] for seed in range(6)]
        statuses = [page.ask(result["url_image"])[0] for result in results]
    assert statuses == sorted(statuses, reverse=True)
    assert statuses[0] == 404
    assert statuses[-1] == 200


def test_idle_sessions_end(monkeypatch):
    now, sessions = [0.0], Sessions(StudioConfig(idle_seconds=60, users=2))
    monkeypatch.setattr("histoloom.studio.sessions.monotonic", lambda: now[0])
    one = sessions.begin()
    now[0] = 50.0
    two = sessions.begin()
    assert sessions.find(two) is not None
    now[0] = 100.0
    three = sessions.begin()  # the first has been idle for too long
    assert sessions.find(one) is None
    assert sessions.find(two) is not None
    now[0] = 400.0
    job = Job(None, None, 1)
    sessions.find(three).jobs["job"] = job
    now[0] = 800.0
    sessions.begin()  # what is being woven keeps its session
    assert sessions.find(three) is not None
    assert sessions.find(two) is None


def test_the_command_prints_its_token_once_and_writes_nothing(studio_folder, tmp_path, tissue_image):

    words = (sys.executable, "-m", "histoloom", "studio", str(studio_folder), "--host", "0.0.0.0", "--port", "0")
    place = os.environ | {"TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=place)
    try:
        printed = []
        while not printed or not printed[-1].startswith("serving"):
            printed.append(process.stdout.readline())
        token, port = printed[0].removeprefix("token: ").strip(), int(printed[-1].split(":")[2].split("/")[0])
        assert any("put a TLS proxy before it" in line for line in printed)
        browser = Browser(port)
        assert browser.ask("/api/state")[0] == 401
        browser.ask("/api/login", {"token": token})
        browser.ask("/api/login", {"token": "wrong"})
        name = "..%2f..%2fetc%2fpasswd"
        assert browser.ask(f"/api/images/{name}.png")[0] == 404
        image = browser.ask("/api/images", file_of(tissue_image), **{"X-Name": "/etc/shadow"})[1]
        assert browser.ask(image["url"])[0] == 200
        job = browser.ask("/api/weave", slow_body(2))[1]["job"]
        until(lambda: browser.ask(f"/api/jobs/{job}/events")[1]["bytes"].count(b"event: result"))
        with pytest.raises((OSError, http.client.HTTPException)):
            Browser(port + 1 if port < 65_000 else 1).ask("/api/state")
        os.kill(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert (*printed, out)[0].count(token) == 1
    assert token not in "".join(printed[1:]) + out + errors
    assert errors.splitlines() == ["histoloom: stopped by Ctrl-C; the same command serves again"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
