"""`polaris check`: every mistake with its place and what was meant, and whether what is configured can be reached."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.commands import ROOT, Ended, Polaris

from polaris.cli._whereabouts import key_lines, mistakes, unread_variables, variables

BAD = """\
# A file with a mistake of each kind.
[htp]
port = 8080

[http]
port = "many"

[systems."web shop"]
interval_s = -1

[store]
engine = "sqllite"
"""


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


@pytest.fixture
def mute() -> Iterator[int]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def check(folder: Path, *arguments: str, **variables: str) -> Ended:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
    done = subprocess.run(
        [sys.executable, "-m", "polaris", "check", *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_every_mistake_is_told_with_file_line_value_and_suggestion(tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text(BAD)
    ended = check(tmp_path, POLARIS_HTTP_ENABLED="no", POLARIS_LOGING__LEVEL="info", polaris_http__port="1")
    assert ended.code == 78
    assert [line.removeprefix("polaris: ") for line in ended.complaint.splitlines()] == [
        "polaris.toml:2: htp: there is no such setting (did you mean http?)",
        "polaris.toml:6: http.port = 'many': expected int | null, got str",
        "polaris.toml:9: systems.web shop.interval_s = -1: expected float >= 0.05",
        "polaris.toml:8: systems.web shop.connector: is required",
        "polaris.toml:12: store.engine = 'sqllite': invalid enum value 'sqllite' (did you mean 'sqlite'?)",
        "POLARIS_HTTP_ENABLED: http_enabled = 'no': there is no such setting (did you mean POLARIS_HTTP__ENABLED?)",
        "POLARIS_LOGING__LEVEL: loging: there is no such setting (did you mean POLARIS_LOGGING__LEVEL?)",
        "polaris_http__port: is read by nobody (did you mean POLARIS_HTTP__PORT?)",
    ]


def test_as_json_each_mistake_has_its_parts(tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text(BAD)
    told = check(tmp_path, "--json", POLARIS_HTTP__HOTS="x").json
    assert told["ok"] is False
    assert told["settings"] is None
    assert len(told["mistakes"]) == len(told["problems"]) == 6
    first = told["mistakes"][0]
    assert (first["origin"], first["line"], first["key"]) == ("polaris.toml", 2, "htp")
    (variable,) = [one for one in told["mistakes"] if one["origin"] == "POLARIS_HTTP__HOTS"]
    assert (variable["line"], variable["key"]) == (None, "http.hots")


def test_every_command_tells_the_line(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text('[node]\n\nnaem = "x"\n')
    for command in (["run"], ["status"], ["systems"]):
        ended = polaris(*command)
        assert (ended.code, ended.output) == (78, "")
        assert ended.complaint.startswith("polaris: polaris.toml:3: node.naem = 'x': there is no such setting")


def test_a_secret_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text('[nats]\ntoken = ["s3cr3t-value"]\n')
    ended = check(tmp_path, "--json")
    assert ended.code == 78
    assert "polaris.toml:2" in ended.output
    assert "s3cr3t-value" not in ended.output + ended.complaint


def test_what_fits_each_by_itself_and_not_together_has_a_line_too(tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text('[nats]\nservers = ["nats://127.0.0.1:4222"]\nport = 4222\n')
    ended = check(tmp_path, "--offline")
    assert ended.complaint.startswith("polaris: polaris.toml:3: nats.port: is for the embedded server")


def test_what_cannot_be_reached_is_told_unless_it_is_not_asked_for(tmp_path: Path, mute: int) -> None:
    (tmp_path / "polaris.toml").write_text(
        f'[nats]\nservers = ["nats://127.0.0.1:{mute}", "nats://127.0.0.1:1"]\n[http]\nport = {mute}\n'
        '[store]\nengine = "postgresql"\ndsn = "postgresql://polaris:s3cr3t@127.0.0.1:1/polaris"\n'
        '[systems.web]\nconnector = "gunicorn"\noptions = { pidfile = "no-such.pid" }\n'
    )
    ended = check(tmp_path)
    assert ended.code == 78
    lines = ended.complaint.splitlines()
    assert [line.split(":")[2] for line in lines] == ["2", "2", "7", "8", "4"], lines
    assert f"nats://127.0.0.1:{mute} does not answer (TimeoutError)" in lines[0]
    assert "nats://127.0.0.1:1 does not answer (ConnectionRefusedError)" in lines[1]
    assert "the database cannot be used" in lines[2]
    assert "systems.web: cannot be read" in lines[3]
    assert f"http.port = {mute}: is in use" in lines[4]
    assert "s3cr3t" not in ended.complaint
    assert check(tmp_path, "--offline").code == 0
    assert not (tmp_path / "polaris-data").exists(), "checking leaves nothing behind"


def test_a_server_that_is_no_nats_server_is_found_out(tmp_path: Path) -> None:
    from threading import Thread

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"220 mail\r\n")

        thread = Thread(target=answer, daemon=True)
        thread.start()
        servers = json.dumps([f"nats://127.0.0.1:{listener.getsockname()[1]}"])
        (tmp_path / "polaris.toml").write_text(f"systems = {{}}\n[nats]\nservers = {servers}\n")
        ended = check(tmp_path)
        thread.join(10)
    assert ended.code == 78
    assert "is no NATS server" in ended.complaint


def test_the_lines_of_keys_are_found_in_any_spelling() -> None:
    text = 'a = 1\n[b]\nc.d = 2\n"e f" = 3\n[ g . "h.i" ] # words\nj = """\nk = 4\n"""\nl = 5\n[[m]]\nn = 6\nbroken\n'
    assert key_lines(text) == {
        "a": 1, "b": 2, "b.c.d": 3, "b.e f": 4, "g.h.i": 5, "g.h.i.j": 6, "g.h.i.l": 9, "m": 10, "m.n": 11,
    }  # fmt: skip


def test_a_problem_of_no_place_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "polaris.toml"
    file.write_text("")
    (plain,) = mistakes(["nats.port: is odd"], file)
    assert (plain.message, plain.line, plain.origin) == ("nats.port: is odd", None, None)
    (gone,) = mistakes([f"{file}: there is no such file"], file)
    assert (gone.message, gone.line) == (f"{file}: there is no such file", None)
    (torn,) = mistakes([f"{file}: not valid TOML: Expected '=' (at line 3, column 2)"], file)
    assert torn.line == 3


def test_variables_of_others_are_left_alone() -> None:
    known = list(variables())
    assert {"POLARIS_HTTP__PORT", "POLARIS_STORE__RETENTION__RAW_DAYS"} <= set(known)
    assert unread_variables({"PATH": "x", "PYTHONPATH": "y", "PORT": "1", "POLARIS_HTTP__PORT": "1"}) == []
    assert [one.origin for one in unread_variables({"POLARS_HTTP__PORT": "1", "POLARI_NODE__NAME": "n"})] == [
        "POLARI_NODE__NAME",
        "POLARS_HTTP__PORT",
    ]


def test_what_is_shown_is_what_is_set_otherwise_than_by_default_unless_all_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text("[node]\nname = 'n'\n[http]\nport = 0\n[systems]\n")
    polaris = Polaris(tmp_path)
    told = polaris("check", "--offline")
    *shown, more = told.lines
    assert shown == ["configuration is fine", '  node.name = "n"', "  http.port = 0", "  systems = {}"]
    everything = polaris("check", "--offline", "--all").lines
    assert "  nats.token = not set" in everything
    assert more == f"  {len(everything) - len(shown)} more have their defaults; --all shows them"
