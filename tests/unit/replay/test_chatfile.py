"""What a chat file asks: who writes, who holds what, and under which ids it is sent."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trunkline.core.ids import single_conversation_id
from trunkline.errors import InvalidInput
from trunkline.model import ConversationKind, UserId
from trunkline.replay.chatfile import read_chat_file

Row = dict[str, Any]


def group(sender: str, text: str, conversation: str = "tea") -> Row:
    return {"sent_at": "2011-04-17T04:18:00+00:00", "conversation": conversation,
            "kind": "group", "sender": sender, "text": text}  # fmt: skip


def single(sender: str, to: str, text: str, conversation: str = "dm:ann~bob") -> Row:
    return {**group(sender, text, conversation), "kind": "single", "to": to}


def write(path: Path, rows: list[Row]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


ROWS = [
    group("ann", "one"),
    single("bob", "ann", "psst"),
    group("`c|[^]", "two"),
    group("ann", "three"),
    single("ann", "bob", "what"),
]


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.jsonl.gz"])
def test_members_of_a_group_are_its_writers_and_of_a_single_both_ends(
    tmp_path: Path, name: str
) -> None:
    chat = read_chat_file(write(tmp_path / name, ROWS))
    by_name = {script.name: script for script in chat.scripts.values()}
    assert list(by_name["tea"].members) == ["ann", "`c|[^]"]
    assert by_name["tea"].kind is ConversationKind.GROUP
    assert by_name["tea"].creator == "ann"
    assert by_name["tea"].texts == {"ann": ["one", "three"], "`c|[^]": ["two"]}
    assert list(by_name["dm:ann~bob"].members) == ["bob", "ann"]
    assert by_name["dm:ann~bob"].id == single_conversation_id(UserId("ann"), UserId("bob"))


def test_every_user_is_one_endpoint_with_all_its_conversations(tmp_path: Path) -> None:
    endpoints = read_chat_file(write(tmp_path / "chat.jsonl", ROWS)).endpoints()
    held = {user: sorted(script.name for script in scripts) for user, scripts in endpoints.items()}
    assert held == {"ann": ["dm:ann~bob", "tea"], "bob": ["dm:ann~bob"], "`c|[^]": ["tea"]}


def test_a_limit_is_as_if_the_file_ended_there(tmp_path: Path) -> None:
    whole = write(tmp_path / "chat.jsonl", ROWS)
    cut = write(tmp_path / "cut.jsonl", ROWS[:2])
    limited, short = read_chat_file(whole, limit=2), read_chat_file(cut)
    assert limited == short


def test_ids_are_the_same_in_every_run_rise_and_fit_the_wire(tmp_path: Path) -> None:
    rows = [group("ann", "again") for _ in range(1_200)]
    path = write(tmp_path / "chat.jsonl.gz", rows)
    ids = [message.id for message in read_chat_file(path).messages]
    assert ids == [message.id for message in read_chat_file(path).messages]
    assert ids == sorted(set(ids))
    assert max(len(one.encode()) for one in ids) <= 64


def test_the_same_line_number_of_another_file_has_another_id(tmp_path: Path) -> None:
    one = read_chat_file(write(tmp_path / "one.jsonl", [group("ann", "one")]))
    other = read_chat_file(write(tmp_path / "other.jsonl", [group("ann", "other")]))
    assert one.messages[0].id != other.messages[0].id


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"sender": "ann"}, "line 2"),
        (group("ann", ""), "`text` is empty"),
        (group("", "hello"), "sender"),
        (single("ann", "ann", "hello"), "two different users"),
        ({**single("ann", "bob", "hello"), "kind": "group"}, "`to` belongs to single"),
        ({**group("ann", "hello"), "kind": "single"}, "needs `to`"),
        (single("ann", "cid", "hello", "tea"), "other people"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: Row, says: str) -> None:
    path = write(tmp_path / "chat.jsonl", [group("ann", "one"), row])
    with pytest.raises(InvalidInput, match="line 2") as caught:
        read_chat_file(path)
    assert says in caught.value.detail


def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.gz"
    truncated.write_bytes(gzip.compress(json.dumps(group("ann", "x")).encode() * 99)[:40])
    for path in (tmp_path / "absent", truncated, write(tmp_path / "empty", [])):
        with pytest.raises(InvalidInput):
            read_chat_file(path)
