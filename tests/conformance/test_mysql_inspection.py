"""An audit of the hot databases is silent about sound ones and names what was damaged."""

from __future__ import annotations

import pytest
from databases import database, everywhere
from nothing_cold import NothingCold

from trunkline.adapters.mysql.inspection import MysqlInspection
from trunkline.adapters.mysql.settings import Settings
from trunkline.adapters.mysql.stores import open_mysql
from trunkline.core.auditing import AuditReport
from trunkline.model import (
    ConversationKey,
    EndpointId,
    MarkerMove,
    OffsetMove,
    Seq,
    UserId,
)
from trunkline.ports.hot import HotStore
from trunkline.ports.inspection import HotInspection
from trunkline.services.audit import Audit
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import name_on_shard_of, read_all, view

LOW, HIGH = 5, (1 << 64) - 5
"""Keys of the first and of the last shard."""
USERS = ["bob", "cid", "dan", "eve"]
LONG = 1_100


async def audit(hot: HotInspection, writer: Writer) -> AuditReport:
    return await Audit(hot, NothingCold(), writer.sealer, SteppedClock()).run()


async def fill(hot: HotStore, writer: Writer, key: int) -> None:
    """A group at this key of ann and others, with everything in it that rows are made of."""
    name = name_on_shard_of(key)
    await writer.append(
        hot,
        writer.create(name, "ann", "c", USERS, name="Room", key=key),
        *(writer.message(name, ("ann", "bob")[i % 2], f"m{i}") for i in range(6)),
        writer.leave(name, "dan", "l"),
        writer.rename(name, "ann", "r", "Hall"),
        writer.join(name, "ann", "j", ["fay"]),
        *(writer.message(name, "cid", f"m{i}") for i in range(3)),
    )
    row, _ = await view(hot, "ann", name)
    entries = await read_all(hot, row)
    await hot.record(
        [MarkerMove(row.key, UserId("bob"), Seq(8), entries[7].countable)],
        [OffsetMove(row.key, UserId("bob"), EndpointId(f"e{i}"), Seq(3 * i)) for i in range(4)],
    )


@pytest.fixture
async def filled(settings: Settings, writer: Writer) -> Settings:
    async with open_mysql(settings, SteppedClock()) as stores:
        for key in (LOW, HIGH):
            await fill(stores.hot, writer, key)
        await writer.append(stores.hot, writer.first_send("ann", "bob", "s"))
    return settings


async def test_sound_databases_give_no_finding_and_every_record_is_counted(
    filled: Settings, writer: Writer
) -> None:
    async with MysqlInspection(filled) as hot:
        report = await audit(hot, writer)

    assert report.findings == ()
    counted = report.counted
    assert (counted.conversations, counted.entries, counted.members) == (3, 28, 14)
    assert (counted.known_ids, counted.listings, counted.offsets) == (27, 14, 8)


async def test_what_is_longer_than_a_page_is_told_whole(settings: Settings, writer: Writer) -> None:
    """Entries, client message ids, keys and users come in pages; no page's edge loses one."""
    async with open_mysql(settings, SteppedClock()) as stores:
        await fill(stores.hot, writer, LOW)
        name = name_on_shard_of(LOW)
        for start in range(0, LONG, 100):
            drafts = [writer.message(name, "ann", f"l{i}") for i in range(start, start + 100)]
            await writer.append(stores.hot, *drafts)
        for start in range(0, LONG, 100):
            await writer.append(
                stores.hot,
                *(writer.create(f"x{i}", f"u{i}", "c") for i in range(start, start + 100)),
            )
    async with MysqlInspection(settings) as hot:
        report = await audit(hot, writer)
        keys = [key async for key in hot.keys()]  # noqa: SIM118 - it is no dict
        runs = [run async for run in hot.entries(ConversationKey(LOW))]
        known = [row async for run in hot.known_ids(ConversationKey(LOW)) for row in run]

    assert report.findings == ()
    assert report.counted.entries == 13 + LONG + LONG
    assert keys == sorted(set(keys))
    assert len(keys) == 1 + LONG
    assert [entry.seq for run in runs for entry in run] == list(range(1, 14 + LONG))
    assert max(map(len, runs)) < LONG
    assert len(known) == len(set(known)) == 13 + LONG


OF_HIGH = f"WHERE ckey = {HIGH}"
DAMAGES = {
    "an entry deleted": (f"DELETE FROM message {OF_HIGH} AND seq = 4", "hole"),
    "the last entry deleted": (f"DELETE FROM message {OF_HIGH} AND seq = 13", "hole"),
    "an entry beyond head": (
        f"""INSERT INTO message SELECT ckey, 14, sender, client_message_id, kind, time_ms,
            refers_to, countable, entry_hash, digest, sealed FROM message {OF_HIGH} AND seq = 13""",
        "head_wrong",
    ),
    "an entry moved": (f"UPDATE message SET seq = 40 {OF_HIGH} AND seq = 4", "hole"),
    "a running digest changed": (
        f"UPDATE message SET digest = x'{'07' * 16}' {OF_HIGH} AND seq = 4",
        "digest_wrong",
    ),
    "an entry hash changed": (
        f"UPDATE message SET entry_hash = x'{'07' * 16}' {OF_HIGH} AND seq = 4",
        "entry_hash_wrong",
    ),
    "a sealed body changed": (
        f"UPDATE message SET sealed = CONCAT(sealed, 'x') {OF_HIGH} AND seq = 4",
        "seal_broken",
    ),
    "a kind that is none": (
        f"UPDATE message SET kind = 99 {OF_HIGH} AND seq = 4",
        "unreadable",
    ),
    "a sender that is no text": (
        f"UPDATE message SET sender = x'ff' {OF_HIGH} AND seq = 4",
        "unreadable",
    ),
    "a head raised": (f"UPDATE conversation SET head = 14 {OF_HIGH}", "hole"),
    "a conversation deleted": (f"DELETE FROM conversation {OF_HIGH}", "conversation_missing"),
    "a member deleted": (f"DELETE FROM member {OF_HIGH} AND user = 'dan'", "members_wrong"),
    "a member that is no text": (
        f"UPDATE member SET user = x'ff' {OF_HIGH} AND user = 'dan'",
        "unreadable",
    ),
    "a read marker past head": (
        f"UPDATE member SET marker = 14 {OF_HIGH} AND user = 'ann'",
        "marker_wrong",
    ),
    "a read offset past head": (
        f"UPDATE endpoint_offset SET seq = 14 {OF_HIGH} AND endpoint = 'e3'",
        "offset_wrong",
    ),
    "a read offset of an outsider": (
        f"UPDATE endpoint_offset SET user = 'zoe' {OF_HIGH} AND endpoint = 'e3'",
        "offset_wrong",
    ),
    "a line of a list deleted": (
        f"DELETE FROM user_conversation {OF_HIGH} AND user = 'eve'",
        "list_wrong",
    ),
    "a client message id forgotten": (
        f"DELETE FROM idempotency {OF_HIGH} AND client_message_id = 'm3'",
        "known_id_missing",
    ),
    "a client message id of another entry": (
        f"UPDATE idempotency SET seq = 6 {OF_HIGH} AND client_message_id = 'm3'",
        "known_id_double",
    ),
    "a version that was never given out": (
        "UPDATE user_version SET version = 1 WHERE user = 'bob'",
        "file_damaged",
    ),
    "an epoch deleted": ("DELETE FROM shard WHERE shard = 1023", "file_damaged"),
    "tables of another version": (
        "INSERT INTO schema_step (version, phase) VALUES (99, 'after')",
        "file_damaged",
    ),
    "a table that is gone": ("RENAME TABLE endpoint_offset TO gone", "unreadable"),
}
MENDED = {
    "an epoch deleted": "INSERT INTO shard (shard, epoch) VALUES (1023, 1)",
    "tables of another version": "DELETE FROM schema_step WHERE version = 99",
    "a table that is gone": "RENAME TABLE gone TO endpoint_offset",
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_found_and_named(damage: str, filled: Settings, writer: Writer) -> None:
    text, code = DAMAGES[damage]
    last = len(filled.databases) - 1
    on_users = "user_conversation" in text or "user_version" in text or "endpoint_offset" in text
    if on_users and damage not in MENDED:
        await everywhere(filled, text)
    else:
        async with database(filled, last) as opened:
            await opened.query(text)
    try:
        async with MysqlInspection(filled) as hot:
            report = await audit(hot, writer)
    finally:
        if damage in MENDED:
            async with database(filled, last) as opened:
                await opened.query(MENDED[damage])

    assert code in {finding.code for finding in report.findings}, report.findings
    assert report.counted.conversations == 3
    assert report.counted.members >= 8


def in_sql(value: object) -> str:
    if value is None:
        return "NULL"
    return f"x'{value.hex()}'" if isinstance(value, bytes) else f"'{value}'"


@pytest.mark.parametrize("table", ["conversation", "message", "member", "idempotency"])
async def test_a_row_in_the_wrong_database_is_named(
    table: str, filled: Settings, writer: Writer
) -> None:
    if len(filled.databases) == 1:
        pytest.skip("one database holds everything")
    async with database(filled, 1) as there:
        found = await there.query(f"SELECT * FROM {table} WHERE ckey = {HIGH} LIMIT 1")
    row = ",".join(in_sql(value) for value in found[0])
    async with database(filled, 0) as here:
        await here.query(f"INSERT INTO {table} VALUES ({row})")
    async with MysqlInspection(filled) as hot:
        report = await audit(hot, writer)

    assert {finding.code for finding in report.findings} == {"file_damaged"}
    assert table in report.findings[0].what
    assert f"{HIGH:#018x}" in report.findings[0].what


async def test_a_user_in_the_wrong_database_is_named(filled: Settings, writer: Writer) -> None:
    if len(filled.databases) == 1:
        pytest.skip("one database holds everything")
    line = f"INSERT IGNORE INTO user_conversation VALUES ('cid', {LOW}, 'x', 1)"
    version = "INSERT IGNORE INTO user_version VALUES ('cid', 9)"
    await everywhere(filled, line, version)
    async with MysqlInspection(filled) as hot:
        report = await audit(hot, writer)

    assert {finding.code for finding in report.findings} == {"file_damaged", "list_wrong"}
    told = [f.what for f in report.findings if f.code == "file_damaged"]
    assert all("'cid'" in what for what in told)
    assert len(told) == 2


async def test_a_line_that_still_waits_in_the_outbox_counts_as_listed(
    filled: Settings, writer: Writer
) -> None:
    name = name_on_shard_of(HIGH)
    await everywhere(filled, f"DELETE FROM user_conversation {OF_HIGH} AND user = 'eve'")
    async with database(filled, len(filled.databases) - 1) as opened:
        waiting = f"(1, 'eve', {HIGH}, '{name}'), (2, 'bob', {HIGH}, '{name}')"
        await opened.query(f"INSERT INTO outbox (number, user, ckey, id) VALUES {waiting}")
    async with MysqlInspection(filled) as hot:
        report = await audit(hot, writer)

    assert report.findings == ()
    assert report.counted.listings == 14


async def test_the_snapshot_stays_as_it_was_while_others_write(
    filled: Settings, writer: Writer
) -> None:
    """Also behind the check of the tables, which would commit what is open."""
    name = name_on_shard_of(LOW)
    async with MysqlInspection(filled) as hot, open_mysql(filled, SteppedClock()) as stores:
        before = await hot.conversation(ConversationKey(LOW))
        assert await hot.faults() == []
        await writer.append(stores.hot, writer.message(name, "ann", "later"))
        await writer.append(stores.hot, writer.create("later", "ann", "c"))
        report = await audit(hot, writer)
        assert await hot.conversation(ConversationKey(LOW)) == before

    assert report.findings == ()
    assert report.counted.entries == 28
