"""The door: no frame with an id that is none gets past it, whatever field the id stands in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from trunkline.core.door import RULES, check_ids, echo
from trunkline.errors import InvalidId
from trunkline.wire.encoding import JSON, MESSAGEPACK
from trunkline.wire.frames import ClientFrame

GOOD = "é" * 10
FRAMES: dict[str, dict[str, Any]] = {
    "hello": {"token": "t", "endpoint": GOOD, "user": GOOD},
    "refresh": {"token": "t"},
    "send": {"id": GOOD, "body": "x", "conversation": GOOD, "to": GOOD},
    "create": {"id": GOOD, "conversation": GOOD, "users": [GOOD, GOOD]},
    "add": {"id": GOOD, "conversation": GOOD, "users": [GOOD, GOOD]},
    "remove": {"id": GOOD, "conversation": GOOD, "users": [GOOD, GOOD]},
    "leave": {"id": GOOD, "conversation": GOOD},
    "rename": {"id": GOOD, "conversation": GOOD, "name": "n"},
    "pull": {"request": 1, "ranges": [{"conversation": GOOD, "after": 0}] * 2},
    "sync": {"request": 1, "vector": {GOOD: 1, GOOD + "2": 1}},
    "confirm": {"offsets": {GOOD: 1, GOOD + "2": 1}},
    "ahead": {"request": 1, "mark": "0", "claims": {GOOD: {"seq": 1}, GOOD + "2": {"seq": 1}}},
    "mark": {"conversation": GOOD, "seq": 1},
}
"""Each frame with every id that it may hold."""
LONG_CONVERSATION = "c" * 201
NO_IDS = ["", "a\0b", "x" * 1_000_000, "é" * 101, "\ud800"]
PLACES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "send.id": lambda f, bad: f.update(id=bad),
    "send.conversation": lambda f, bad: f.update(conversation=bad),
    "send.to": lambda f, bad: f.update(to=bad),
    "hello.endpoint": lambda f, bad: f.update(endpoint=bad),
    "hello.user": lambda f, bad: f.update(user=bad),
    "pull.ranges": lambda f, bad: f.update(
        ranges=[{"conversation": GOOD, "after": 0}, {"conversation": bad, "after": 0}]
    ),
    "sync.vector": lambda f, bad: f.update(vector={GOOD: 1, bad: 1}),
    "confirm.offsets": lambda f, bad: f.update(offsets={GOOD: 1, bad: 1}),
    "ahead.claims": lambda f, bad: f.update(claims={GOOD: {"seq": 1}, bad: {"seq": 1}}),
    "mark.conversation": lambda f, bad: f.update(conversation=bad),
    "leave.id": lambda f, bad: f.update(id=bad),
    "leave.conversation": lambda f, bad: f.update(conversation=bad),
    "rename.id": lambda f, bad: f.update(id=bad),
    "rename.conversation": lambda f, bad: f.update(conversation=bad),
} | {
    f"{type_}.{field}": lambda f, bad, field=field: f.update(
        {field: [GOOD, bad] if field == "users" else bad}
    )
    for type_ in ("create", "add", "remove")
    for field in ("id", "conversation", "users")
}


def frame(type_: str, fields: dict[str, Any]) -> ClientFrame:
    return msgspec.convert({"t": type_, **fields}, ClientFrame)


def ids_in(struct: type, within: str) -> set[str]:
    """The fields of a struct, and of those in it, that hold ids, by the types' own words."""
    found = set()
    for field in msgspec.structs.fields(struct):
        text = str(field.type)
        if any(f".{rule.__name__}" in text for rule in RULES) or "Range" in text:
            found.add(f"{within}.{field.name}")
    return found


def test_the_places_tried_here_are_all_that_there_are() -> None:
    kinds = {kind.__struct_config__.tag: kind for kind in get_args(ClientFrame)}
    assert set(kinds) == set(FRAMES)
    assert set().union(*(ids_in(kind, tag) for tag, kind in kinds.items())) == set(PLACES)


@pytest.mark.parametrize("type_", FRAMES)
def test_ids_pass(type_: str) -> None:
    whole = frame(type_, FRAMES[type_])
    check_ids(whole, most_items=10)
    assert echo(whole) == (FRAMES[type_].get("id", ""), FRAMES[type_].get("conversation"))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", NO_IDS, ids=["empty", "NUL", "1 MB", "202 bytes", "surrogate"])
def test_what_is_no_id_passes_nowhere(place: str, bad: str) -> None:
    type_, field = place.split(".")
    fields = dict(FRAMES[type_])
    PLACES[place](fields, bad)
    broken = frame(type_, fields)
    with pytest.raises(InvalidId):
        check_ids(broken, most_items=10)
    if field in ("id", "conversation"):
        assert echo(broken)[field == "conversation"] == bad[:200]


def test_lists_that_will_be_refused_are_not_gone_through() -> None:
    """Whoever serves them counts; a frame of 1 MiB names 200,000 users."""
    check_ids(frame("add", {"id": "1", "conversation": "g", "users": ["", ""]}), most_items=1)


@pytest.mark.parametrize("encoding", [JSON, MESSAGEPACK])
def test_a_conversation_has_longer_ids_than_a_user(encoding: Any) -> None:
    for id_, passes in (("c" * 200, True), (LONG_CONVERSATION, False)):
        data = encoding.encode(frame("leave", {"id": "1", "conversation": id_}))
        decoded = encoding.decode_client(data)
        if passes:
            check_ids(decoded, most_items=1)
        else:
            with pytest.raises(InvalidId):
                check_ids(decoded, most_items=1)
