"""A cluster as its operator runs it: settings, migrate, workers, an archiver, replay, audit."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_process import ClusterProcess
from command_line import SECONDS, run, run_json, started, wait_for
from databases import everywhere

from trunkline.adapters.mysql.settings import Settings
from trunkline.config import load
from trunkline.replay.demonstration import SAMPLE
from trunkline.services.readings import READINGS

LINES = 400


def _databases(config: Path) -> Settings:
    """The hot tier of a settings file."""
    return load(config, {}, {}).mysql


def _tasks(config: Path) -> int:
    """Conversations that are not yet archived."""
    counts = asyncio.run(everywhere(_databases(config), "SELECT count(*) FROM archive_task"))
    return sum(rows[0][0] for rows in counts)


@contextmanager
def _archiving(config: Path) -> Iterator[subprocess.Popen[str]]:
    """`trunkline archiver`, once it works."""
    with started(
        "archiver", "--config", config, "--json", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process


def test_a_replay_over_two_workers_is_complete_and_the_audit_clean(
    cluster: ClusterProcess, config: Path
) -> None:
    """I1, I2, I6, I7, I14, with real Redis, two databases and HBase."""
    result = run_json("replay", SAMPLE, "--config", config, "--limit", LINES, "--online", "0.4")
    assert result["acked"] == result["messages"] == LINES
    assert result["endpoints_complete"] == result["endpoints"] > 0
    assert result["digest_mismatches"] == 0
    report = run_json("audit", "--config", config)
    assert report["entries"] > LINES
    assert report["findings"] == []
    assert len(cluster.told["processes"]) == 3


def test_the_processes_of_a_cluster_show_what_their_tiers_count(cluster: ClusterProcess) -> None:
    """Each reading that is described is there, of a worker all, of the archiver its tiers'."""
    *workers, archiver = (
        urllib.request.urlopen(f"{url}/metrics", timeout=SECONDS).read().decode()
        for url in cluster.told["processes"]
    )
    for name in READINGS:
        if name.startswith("trunkline_sqlite_"):
            continue  # of the embedded store
        assert all(f"\n{name}" in text for text in workers), name
        assert (f"\n{name}" in archiver) == (not name.startswith("trunkline_cached_")), name


def test_archivers_that_are_killed_leave_nothing_undone(config: Path) -> None:
    """I10: two at once, killed in the midst of it again and again; a third finishes."""
    assert run("migrate", "--config", config).returncode == 0
    text = config.read_text()
    config.write_text(text.replace("[services]", "[services]\nnewest_single = 3\nnewest_group = 5"))
    with started(
        "serve", "--config", config, "--workers", 1, "--no-archiver", "--json",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as workers:  # fmt: skip
        assert workers.stdout is not None
        workers.stdout.readline()
        replayed = run_json("replay", SAMPLE, "--config", config, "--limit", LINES)
        assert replayed["acked"] == LINES
        for tenths in (0, 1, 2, 4):
            with _archiving(config) as one, _archiving(config) as other:
                time.sleep(tenths / 10)
                for process in (one, other):
                    process.kill()
            assert run_json("audit", "--config", config)["findings"] == []
            # What the killed held would be free in a minute.
            asyncio.run(everywhere(_databases(config), "UPDATE archive_task SET not_before_ms = 0"))
        with _archiving(config):
            wait_for(lambda: not _tasks(config), SECONDS)
        report = run_json("audit", "--config", config)
        assert report["findings"] == []
        assert report["cold_entries"] >= report["entries"]
        workers.terminate()
        workers.wait(SECONDS)


def test_a_worker_that_is_killed_is_started_again(cluster: ClusterProcess, config: Path) -> None:
    """Its clients come back, nothing acknowledged is lost."""
    with started(
        "replay", SAMPLE, "--config", config, "--limit", LINES, "--json", stdout=subprocess.PIPE
    ) as replay:
        before = cluster.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(cluster.workers()) - set(before)) == 1)
        out, _ = replay.communicate(timeout=SECONDS)
    result = json.loads(out)
    assert result["acked"] == LINES
    assert result["endpoints_complete"] == result["endpoints"]
    assert run_json("audit", "--config", config)["findings"] == []


def test_migrate_twice_changes_nothing(config: Path) -> None:
    first = run_json("migrate", "--config", config)
    assert [bool(place["made"]) for place in first.values()] == [True, True, True]
    nothing = {"made": [], "waiting": []}
    assert run_json("migrate", "--config", config) == dict.fromkeys(first, nothing)


def test_a_cluster_that_was_not_migrated_does_not_start(config: Path) -> None:
    done = run("serve", "--config", config)
    assert done.returncode == 3
    assert done.stderr.startswith("trunkline: keyring_missing: ")


def test_another_keyring_than_the_databases_does_not_start(config: Path) -> None:
    assert run("migrate", "--config", config).returncode == 0
    keyring = config.parent / "node" / "keyring.json"
    key = base64.b64encode(bytes(32)).decode()
    keyring.write_text(json.dumps({"format": 1, "current": 1, "keys": {"1": key}}))
    for command in ("migrate", "serve"):
        done = run(command, "--config", config)
        assert done.returncode == 3
        assert "keyring_wrong" in done.stderr


def test_a_login_that_a_database_refuses_is_said_in_one_line(config: Path) -> None:
    """No waiting would mend it."""
    assert run("migrate", "--config", config).returncode == 0
    config.write_text(config.read_text().replace('password = "trunkline"', 'password = "other"'))
    done = run("serve", "--config", config)
    assert done.returncode == 4
    lines = [line for line in done.stderr.splitlines() if line.startswith("trunkline: ")]
    assert len(set(lines)) == 1
    assert "storage_unavailable" in lines[0]


def test_a_replay_without_a_running_cluster_says_how_to_start_it(config: Path) -> None:
    done = run("replay", SAMPLE, "--config", config)
    assert done.returncode == 4
    assert f"trunkline serve --config {config}" in done.stderr


def test_a_settings_file_is_checked(config: Path) -> None:
    assert run("config", "check", config).returncode == 0
    shown = run_json("config", "check", config)
    assert "password" not in shown["mysql"]
    config.write_text(config.read_text() + "\nunknown = 1\n")
    done = run("config", "check", config)
    assert done.returncode == 3
    assert "unknown" in done.stderr


def test_workers_need_a_cluster(tmp_path: Path) -> None:
    done = run("serve", "--data", tmp_path / "data", "--workers", 2)
    assert done.returncode == 2
    assert "cluster" in done.stderr
