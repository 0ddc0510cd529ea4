"""I12 on the disks: no body stands in plaintext in any file of any server, nor in a log."""

from __future__ import annotations

import asyncio
import random
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import hbase_tables
import pytest
from addresses import shared_redis, state_directory
from clusters import running
from command_line import SECONDS, run, run_json
from databases import database
from redis_server import PrivateRedis, private_redis
from test_cluster_keys import archived, client_of, node

from trunkline.adapters.hbase.layout import table_name
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings as HbaseSettings
from trunkline.client import Client
from trunkline.config import load
from trunkline.errors import NotMember

CANARIES = 200
_SEARCHES = 10


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[PrivateRedis]:
    """A Redis that writes everything to disk, in ways that can be searched."""
    folder = tmp_path / "redis"
    folder.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always", "--rdbcompression", "no")
    with private_redis(folder, *options) as server:
        yield server


def holding(places: Sequence[Path], texts: Sequence[str], scratch: Path) -> set[Path]:
    """Files under these places that hold one of the texts, as UTF-8 or in hex."""
    patterns = scratch / "patterns"
    patterns.write_text("\n".join([*texts, *(text.encode().hex() for text in texts)]))
    for _ in range(_SEARCHES):  # a server may take a file away while it is searched
        found = subprocess.run(
            ["grep", "--recursive", "--text", "--files-with-matches", "--fixed-strings",
             "--ignore-case", "--file", str(patterns), *map(str, places)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if found.returncode in (0, 1):
            break
    else:
        pytest.fail(found.stderr)
    return {Path(line) for line in found.stdout.splitlines()}


async def send_canaries(config: Path, url: str, canaries: Sequence[str]) -> None:
    """In single conversations and in a group, pushed, pulled, and refused with an error."""
    async with (
        client_of(config, url, "ann", "phone") as ann,
        client_of(config, url, "bob", "phone") as bob,
    ):
        await ann.create("harbour", ["bob"], name=canaries[0])
        for number, canary in enumerate(canaries):
            sender: Client = (ann, bob)[number % 2]
            if number % 3 == 0:
                await sender.send_to("carl", canary)
            else:
                await sender.send("harbour", canary)
        with pytest.raises(NotMember):
            await ann.send("elsewhere", canaries[1])
        await archived(config)
        async with client_of(config, url, "bob", "tablet") as reader:
            await reader.wait_synced()
            assert len(await reader.history("harbour")) > CANARIES // 2


async def write_in_the_clear(config: Path, control: str, own_redis: PrivateRedis) -> None:
    """Into each server, as a fault of ours would: the search must find it there."""
    settings = load(config, {}, {})
    for number in range(len(settings.mysql.databases)):
        async with database(settings.mysql, number) as opened:
            await opened.query("CREATE TABLE control (text VARBINARY(100)) ENGINE = InnoDB")
            await opened.query(f"INSERT INTO control VALUES ('{control}')")
    await hbase_tables.put_row(settings.hbase, b"control", {b"h": control.encode()})
    with own_redis.client() as client:
        client.set("control", control)


def flush_everything(config: Path, state: Path, own_redis: PrivateRedis) -> None:
    """What the servers hold in memory goes into their files."""
    settings = load(config, {}, {})
    with own_redis.client() as client:
        client.save()
    name = settings.mysql.databases[0].database
    tables = ", ".join(f"`{name}`.{table}" for table in ("message", "conversation", "control"))
    for number, _ in enumerate(settings.mysql.databases, 1):
        socket = state / f"mariadb{number}.sock"
        flush = f"FLUSH TABLES {tables} FOR EXPORT; UNLOCK TABLES"
        subprocess.run(
            ["mariadb", "--no-defaults", "-uroot", "-S", str(socket), "-e", flush],
            check=True, timeout=SECONDS,
        )  # fmt: skip
    asyncio.run(close_regions(settings.hbase))


async def close_regions(settings: HbaseSettings) -> None:
    """They are written to HFiles when they close; then they are opened again."""
    async with connected(settings, random.Random()) as pool:
        for call in ("disableTable", "enableTable"):
            await pool.call(call, table_name(settings.table), seconds=60.0)


def test_no_canary_stands_in_any_file_of_any_server(
    config: Path, own_redis: PrivateRedis, tmp_path: Path
) -> None:
    """I12; and what the test itself writes in the clear is found in all of them."""
    state = state_directory()
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace(f'"{shared_redis()}"', f'"{own_redis.address}"'), encoding="utf-8"
    )
    assert run("migrate", "--config", config).returncode == 0
    # Short, since a longer body is compressed: unsealed, it would not be found either.
    run_token = secrets.token_hex(4)
    canaries = [f"Canary-{run_token}-{number}" for number in range(CANARIES)]
    control = f"Control-{run_token}"
    with running(config, "--log-level", "debug") as cluster:
        asyncio.run(send_canaries(config, cluster.told["url"], canaries))
    assert run_json("audit", "--config", config)["findings"] == []
    asyncio.run(write_in_the_clear(config, control, own_redis))
    flush_everything(config, state, own_redis)
    log = config.parent / "server.log"
    places = [state, own_redis.folder, node(config), log]
    found = holding(places, canaries, tmp_path)
    assert not found, found
    clear = holding(places, [control], tmp_path)
    kinds = {
        "Redis RDB": lambda path: path.suffix == ".rdb",
        "Redis AOF": lambda path: path.suffix == ".aof",
        "InnoDB table": lambda path: path.suffix == ".ibd",
        "InnoDB log": lambda path: path.name.startswith("ib_logfile"),
        "binary log": lambda path: path.name.startswith("bin."),
        "HBase log": lambda path: "WALs" in path.parts or "oldWALs" in path.parts,
        "HFile": lambda path: "data" in path.parts and "s" in path.parts,
    }
    unseen = [kind for kind, is_one in kinds.items() if not any(map(is_one, clear))]
    assert not unseen, (unseen, clear)
    assert log.stat().st_size
