"""Checks every id in every frame of a client, before anything is looked up or queued.

What is checked follows from the frames' types: a field of an id's type is checked, wherever it
stands, in lists, maps and structs, too.
"""

from collections.abc import Collection, Mapping, Sequence
from types import UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from trunkline.core.ids import CONVERSATION_ID_BYTES, ID_BYTES, check_id, is_id
from trunkline.model import ClientMessageId, ConversationId, EndpointId, UserId
from trunkline.wire.frames import ClientFrame, Send

RULES: Final[Mapping[object, tuple[str, int]]] = {
    UserId: ("user id", ID_BYTES),
    EndpointId: ("endpoint id", ID_BYTES),
    ClientMessageId: ("client message id", ID_BYTES),
    ConversationId: ("conversation id", CONVERSATION_ID_BYTES),
}
"""What each id is called, and how many bytes of UTF-8 it has at most."""


class _Field(NamedTuple):
    """A field that holds an id, or many; `inner`: its items are structs that hold some."""

    name: str
    what: str
    most_bytes: int
    many: bool
    inner: "Sequence[_Field]"


def check_ids(frame: ClientFrame, *, most_items: int) -> None:
    """Refuses a frame of which an id is none (`InvalidId`).

    Lists of more than `most_items` are not looked at: who serves the frame refuses them.
    """
    if (
        type(frame) is Send  # what comes most often takes the shortest way
        and is_id(frame.id, ID_BYTES)
        and (frame.conversation is None or is_id(frame.conversation, CONVERSATION_ID_BYTES))
        and (frame.to is None or is_id(frame.to, ID_BYTES))
    ):
        return
    _check(frame, _FIELDS[type(frame)], most_items)


def echo(frame: ClientFrame) -> tuple[ClientMessageId, ConversationId | None]:
    """By which `id` and conversation a refusal names a frame: cut where they are no ids."""
    id_: str = getattr(frame, "id", "")
    conversation: str | None = getattr(frame, "conversation", None)
    if conversation is not None:
        conversation = conversation[:CONVERSATION_ID_BYTES]
    return (
        ClientMessageId(id_[:CONVERSATION_ID_BYTES]),
        None if conversation is None else ConversationId(conversation),
    )


def _check(holder: object, fields: Sequence[_Field], most_items: int) -> None:
    for name, what, most_bytes, many, inner in fields:
        value = getattr(holder, name)
        if value is None:
            continue
        if not many:
            check_id(value, what, most_bytes=most_bytes)
            continue
        if isinstance(value, list) and len(value) > most_items:
            continue
        for item in value:
            if inner:
                _check(item, inner, most_items)
            else:
                check_id(item, what, most_bytes=most_bytes)


def _fields_of(struct: type) -> Sequence[_Field]:
    found: list[_Field] = []
    for name, hint in get_type_hints(struct).items():
        for one in _alternatives(hint):
            many = get_origin(one) in (list, tuple, dict, set, frozenset)
            kind = get_args(one)[0] if many else one
            if kind in RULES:
                found.append(_Field(name, *RULES[kind], many, ()))
            elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                inner = _fields_of(kind)
                if inner:
                    assert many, f"{struct.__name__}.{name}: structs with ids stand in lists."
                    found.append(_Field(name, "", 0, many, inner))
    return found


def _alternatives(hint: Any) -> Collection[Any]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


_FIELDS: Final[Mapping[type, Sequence[_Field]]] = {
    kind: _fields_of(kind) for kind in get_args(ClientFrame)
}
