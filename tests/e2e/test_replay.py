"""Real chat through real clients: everyone complete, or it is said who is not."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from command_line import SECONDS, is_alive, run, run_json, serving, started, wait_for

from trunkline.replay.chatfile import ChatFile, read_chat_file
from trunkline.replay.demonstration import LOADED_FILE, SAMPLE, demonstration

LINES = [json.loads(line) for line in gzip.decompress(SAMPLE.read_bytes()).splitlines()]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def counts(lines: list[dict[str, Any]]) -> dict[str, int]:
    """What a whole replay must say, by the file alone."""
    users = {line["sender"] for line in lines} | {line["to"] for line in lines if "to" in line}
    return {
        "messages": len(lines), "acked": len(lines),
        "conversations": len({line["conversation"] for line in lines}),
        "endpoints": len(users), "endpoints_complete": len(users),
        "digest_mismatches": 0, "gaps": 0, "doubles": 0, "incomplete": [],
    }  # fmt: skip


def told(result: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in wanted}


def texts(lines: list[dict[str, Any]]) -> dict[str, list[str]]:
    by_sender = defaultdict(list)
    for line in lines:
        if line.get("text") is not None:
            by_sender[line["sender"]].append(line["text"])
    return by_sender


def test_every_endpoint_is_complete_and_what_is_stored_is_the_files(tmp_path: Path) -> None:
    data = tmp_path / "d"
    result = run_json("replay", SAMPLE, "--limit", 400, "--online", 0.5, "--data", data)
    lines = LINES[:400]
    assert told(result, counts(lines)) == counts(lines)
    assert min(result["pushed"], result["pulled"], result["acked_per_second"]) > 0
    report = run_json("audit", data)
    assert report["findings"] == []
    assert report["entries"] == 400 + result["conversations"]
    for kind in ("group", "single"):
        name = next(line["conversation"] for line in lines if line["kind"] == kind)
        exported = [json.loads(line) for line in run("export", data, name).stdout.splitlines()]
        assert [entry["seq"] for entry in exported] == list(range(1, len(exported) + 1))
        assert texts(exported) == texts([line for line in lines if line["conversation"] == name])


def test_chaos_loses_nothing_and_stores_nothing_twice(tmp_path: Path) -> None:
    data = tmp_path / "d"
    result = run_json(
        "replay", SAMPLE, "--limit", 600, "--online", 0.6, "--chaos", "--seed", 5, "--data", data
    )
    assert told(result, counts(LINES[:600])) == counts(LINES[:600])
    assert min(result["chaos"].values()) > 0
    assert run_json("audit", data)["entries"] == 600 + result["conversations"]


def test_a_second_replay_stores_nothing_and_a_longer_one_only_what_is_new(tmp_path: Path) -> None:
    data = tmp_path / "d"
    first, second, longer = (
        run_json("replay", SAMPLE, "--limit", limit, "--data", data) for limit in (200, 200, 300)
    )
    assert (first["already_stored"], second["already_stored"], longer["already_stored"]) == (
        0, 200, 200,
    )  # fmt: skip
    assert told(longer, counts(LINES[:300])) == counts(LINES[:300])
    stored = run_json("audit", data)["entries"]
    # The group's later writers were added when they were first seen: one entry.
    assert stored <= 300 + longer["conversations"] + 1


def test_a_killed_replay_takes_its_server_along_and_can_be_finished(tmp_path: Path) -> None:
    data = tmp_path / "d"

    def stored() -> bool:
        journal = data / "journal.db-wal"
        return journal.exists() and journal.stat().st_size > 200_000

    with started(
        "replay", SAMPLE, "--data", data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(stored)
        server = json.loads((data / "server.json").read_bytes())["pid"]
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(server))
    report = run_json("audit", data)
    assert report["findings"] == []
    assert report["entries"] > 100
    result = run_json("replay", SAMPLE, "--data", data)
    assert told(result, counts(LINES)) == counts(LINES)
    assert result["already_stored"] > 0


def test_a_replay_ends_with_its_server(tmp_path: Path) -> None:
    data = tmp_path / "d"
    with started(
        "replay", SAMPLE, "--data", data, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        found = wait_for(lambda: (data / "server.json").exists())
        assert found
        os.kill(json.loads((data / "server.json").read_bytes())["pid"], signal.SIGKILL)
        assert process.wait(SECONDS) == 3
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1].startswith("trunkline: internal: ")


def test_a_running_server_is_driven_within_its_limits(tmp_path: Path) -> None:
    data = tmp_path / "d"
    limits = tmp_path / "limits.toml"
    limits.write_text("[services]\nsends_per_second = 200.0\nsend_burst = 5\n")
    with serving(data, "--config", limits) as listening:
        result = run_json("replay", SAMPLE, "--limit", 200, "--url", listening["url"],
                          "--data", data)  # fmt: skip
        keyless = run("replay", SAMPLE, "--url", listening["url"])
    assert told(result, counts(LINES[:200])) == counts(LINES[:200])
    assert result["read_from"].keys() == {"cached", "hot", "cold"}
    assert keyless.returncode == 2


def test_what_is_not_complete_is_listed_and_ends_with_1(tmp_path: Path) -> None:
    """The conversation holds a text that the file does not: every member's copy says so."""
    data = tmp_path / "d"
    single = next(line for line in LINES if line["kind"] == "single")
    with serving(data):
        run_json("send", "--data", data, "--user", single["sender"], "--to", single["to"], "extra")
    done = run("replay", SAMPLE, "--limit", 100, "--data", data, "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1
    wrong = [one for one in result["incomplete"] if one["reason"] == "1 texts not of the file"]
    assert {one["endpoint"] for one in wrong} == {single["sender"], single["to"]}
    assert {one["conversation"] for one in wrong} == {single["conversation"]}
    assert result["endpoints_complete"] == result["endpoints"] - 2
    shown = run("replay", SAMPLE, "--limit", 100, "--data", data)
    assert shown.returncode == 1
    assert f"incomplete: {single['sender']}, {single['conversation']}: " in shown.stderr


def test_a_file_that_is_no_chat_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.jsonl", [LINES[0], {"text": "?"}])
    done = run("replay", path, "--data", tmp_path / "d")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("trunkline: invalid_input: ")
    assert "line 2" in done.stderr


@pytest.fixture
def short_sample(tmp_path: Path) -> ChatFile:
    return read_chat_file(SAMPLE, limit=500)


async def test_the_demonstration_survives_two_power_cuts_and_loads_only_once(
    tmp_path: Path, short_sample: ChatFile
) -> None:
    data = tmp_path / "demo"
    stages: list[str] = []

    def progress(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    async with demonstration(data, short_sample, Random(1), progress) as first:
        assert first.result.is_whole
        assert (first.kills, first.result.acked, first.result.doubles) == (2, 500, 0)
    assert (data / LOADED_FILE).exists()
    stages.clear()
    async with demonstration(data, short_sample, Random(2), progress) as second:
        assert second.result.is_whole
        assert second.kills == 0
        assert second.result.copies == first.result.copies
    assert set(stages) == {"proven"}
