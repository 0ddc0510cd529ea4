"""The command line as users and programs meet it: help, exit codes, output, signals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SECONDS, interrupt, is_alive, run, run_json, serving, started, wait_for

from trunkline.adapters.jwt import JwtAuthenticator, TokenKeys
from trunkline.adapters.memory.clock import SystemClock
from trunkline.cli.main import COMMANDS

# --- help -------------------------------------------------------------------------------


def test_help_names_every_command_and_what_an_exit_code_means() -> None:
    shown = run("--help").stdout
    for name in COMMANDS:
        assert f"\n  {name} " in shown
    assert "Exit codes" in shown


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_teaches_by_its_help(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert "Usage: trunkline" in done.stdout
    assert f"trunkline {name}" in done.stdout.split("Usage:")[1]


def test_the_command_itself_imports_nothing_that_is_slow() -> None:
    heavy = "{'asyncio', 'aiohttp', 'picows', 'rich', 'cryptography', 'trunkline.services'}"
    code = f"import sys, trunkline.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout.strip() == "[]"


# --- errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing-of-the-kind",),
        ("send", "--user", "ann", "hello"),
        ("send", "--user", "ann", "--to", "bob", "--conversation", "tea", "hello"),
        ("tail", "--user", "ann", "--once"),
        ("token", "chat", "ann", "--ttl", "soon"),
        ("replay", "absent.jsonl"),
        ("serve", "--log-level", "loud"),
    ],
)
def test_a_wrong_command_line_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_an_error_is_one_line_with_its_code_and_no_traceback(tmp_path: Path) -> None:
    refused = run("token", tmp_path / "absent", "ann")
    later = run("send", "--data", tmp_path / "absent", "--user", "ann", "--to", "bob", "hello")
    assert (refused.returncode, later.returncode) == (3, 4)
    assert refused.stderr.startswith("trunkline: config_invalid: ")
    assert later.stderr.startswith("trunkline: unreachable: ")
    for done in (refused, later):
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1


def test_a_directory_that_is_in_use_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    with serving(tmp_path / "d"):
        second = run("serve", "--data", tmp_path / "d", "--port", 0, "--ops-port", 0)
        audited = run("audit", tmp_path / "d")
    assert second.returncode == audited.returncode == 3
    assert "trunkline: data_dir_locked: " in second.stderr
    assert audited.stderr.startswith("trunkline: data_dir_locked: ")


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    config = tmp_path / "trunkline.toml"
    config.write_text("[services]\nbody_bites = 3\n")
    done = run("serve", "--data", tmp_path / "d", "--config", config)
    assert done.returncode == 3
    assert "config_invalid" in done.stderr
    assert "body_bites" in done.stderr
    assert not (tmp_path / "d").exists()


# --- serve ------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [1, 2])
def test_an_interrupted_server_drains_and_ends_with_0(tmp_path: Path, signals: int) -> None:
    data = tmp_path / "d"
    with started(
        "serve", "--data", data, "--port", 0, "--ops-port", 0,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Listening on ws://127.0.0.1:")
        for _ in range(signals):
            interrupt(process)
        assert process.wait(SECONDS) == 0
    assert not (data / "server.json").exists()


def test_a_server_that_hangs_on_a_pipe_ends_when_the_pipe_does(tmp_path: Path) -> None:
    with started(
        "serve", "--data", tmp_path / "d", "--port", 0, "--ops-port", 0, "--until-stdin-closes",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(SECONDS) == 0


# --- token, send, tail ------------------------------------------------------------------


def test_a_token_proves_the_user_and_nothing_longer_than_asked(tmp_path: Path) -> None:
    with serving(tmp_path / "d"):
        made = run_json("token", tmp_path / "d", "Ann ✓", "--ttl", "15m")
        plain = run("token", tmp_path / "d", "bob").stdout.strip()
    clock = SystemClock()
    authenticator = JwtAuthenticator(TokenKeys.load(tmp_path / "d" / "tokens.json"), clock)
    assert authenticator.authenticate(made["token"]).user == "Ann ✓"
    assert authenticator.authenticate(plain).user == "bob"
    assert 0 < made["expires"] - clock.now_ms() / 1000 <= 15 * 60


def test_what_is_sent_is_tailed_once_however_often_it_was_sent(tmp_path: Path) -> None:
    data = tmp_path / "d"
    with serving(data):
        first = run_json("send", "--data", data, "--user", "ann", "--to", "bob", "--id", "1", "hm")
        again = run_json("send", "--data", data, "--user", "ann", "--to", "bob", "--id", "1", "hm")
        piped = run("send", "--data", data, "--user", "bob", "--to", "ann", "-", input="so?\n")
        tailed = run("tail", "--data", data, "--user", "bob", "ann", "--once", "--json")
    assert (first["seq"], first["duplicate"]) == (again["seq"], not again["duplicate"])
    assert piped.returncode == 0
    lines = [json.loads(line) for line in tailed.stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["created", "message", "message"]
    said = [(line["seq"], line["sender"], line["text"]) for line in lines[1:]]
    assert said == [(2, "ann", "hm"), (3, "bob", "so?")]


def test_an_outsider_is_refused_and_learns_nothing(tmp_path: Path) -> None:
    """I13: a conversation that does not exist and one of others look the same."""
    data = tmp_path / "d"
    with serving(data):
        sent = run_json("send", "--data", data, "--user", "ann", "--to", "bob", "hello")
        answers = [
            run("send", "--data", data, "--user", "eve", "--conversation", conversation, "me too")
            for conversation in (sent["conversation"], "no-such-conversation")
        ]
    assert [answer.returncode for answer in answers] == [3, 3]
    assert answers[0].stderr == answers[1].stderr


def test_tail_shows_what_comes_while_it_runs_and_nothing_that_steers_a_terminal(
    tmp_path: Path,
) -> None:
    data = tmp_path / "d"
    with serving(data):
        run_json("send", "--data", data, "--user", "ann", "--to", "bob", "old")
        with started(
            "tail", "--data", data, "--user", "bob", "ann", stdout=subprocess.PIPE
        ) as tailing:
            assert tailing.stdout is not None
            assert "[created]" in tailing.stdout.readline()
            assert tailing.stdout.readline().endswith("ann: old\n")
            run_json("send", "--data", data, "--user", "ann", "--to", "bob", "new\x1b[2J\nline")
            line = tailing.stdout.readline()
            interrupt(tailing)
            assert tailing.wait(SECONDS) == 130
    assert line.endswith(" 3 ann: new\\x1b[2J\\nline\n")


# --- audit, export ----------------------------------------------------------------------


def test_what_was_sent_is_audited_and_exported_after_the_server_is_gone(tmp_path: Path) -> None:
    data = tmp_path / "d"
    with serving(data):
        sent = run_json("send", "--data", data, "--user", "ann", "--to", "bob", "hello")
    report = run_json("audit", data)
    exported = run("export", data, sent["conversation"])
    assert (report["entries"], report["conversations"], report["findings"]) == (2, 1, [])
    assert "entries" in run("audit", data).stdout
    last = json.loads(exported.stdout.splitlines()[-1])
    assert (last["seq"], last["sender"], last["text"], last["kind"]) == (
        2,
        "ann",
        "hello",
        "message",
    )
    assert run("export", data, "no-such-conversation").returncode == 3
    assert run("audit", tmp_path / "absent").returncode == 3


# --- demo -------------------------------------------------------------------------------


def test_the_demo_reaches_its_verdict_and_stops_cleanly_on_ctrl_c_twice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        out.open("w") as file,
        started("demo", "--data", tmp_path / "demo", stdout=file, stderr=file) as process,
    ):
        wait_for(lambda: "Ctrl-C" in out.read_text() or process.poll() is not None, SECONDS)
        server = json.loads((tmp_path / "demo" / "server.json").read_text())["pid"]
        interrupt(process)
        interrupt(process)
        assert process.wait(SECONDS) == 0
    verdict = dict(
        line.strip().split("  ", 1) for line in out.read_text().splitlines() if "  " in line.strip()
    )
    assert verdict["endpoints complete"].strip() == "205 of 205"
    assert (verdict["gaps"].strip(), verdict["doubles"].strip()) == ("0", "0")
    assert verdict["power cuts (kill -9)"].strip() == "2"
    assert not is_alive(server)
    assert run_json("audit", tmp_path / "demo")["findings"] == []
