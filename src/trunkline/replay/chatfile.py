"""Reads a file of chat lines and says what must come of it: who writes what, who holds what.

One JSON object a line, in order of time: `sent_at` (ISO 8601), `conversation`, `kind`
(`group` or `single`), `sender`, `to` (single only) and `text`; gzip or plain. The members of
a group are the people who wrote in it; those of a single conversation are `sender` and `to`.
"""

import gzip
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec

from trunkline.core.ids import check_group_id, check_id, single_conversation_id
from trunkline.errors import InvalidInput, TrunklineError
from trunkline.model import ClientMessageId, ConversationId, ConversationKind, UserId

_GZIP_MAGIC: Final = b"\x1f\x8b"
_LINE_BYTES_MAX: Final = 1 << 20
_HASH_BYTES: Final = 8


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line of the file as it stands there."""

    sent_at: str
    conversation: str
    kind: ConversationKind
    sender: UserId
    text: str
    to: UserId | None = None


class Message(msgspec.Struct, frozen=True, gc=False):
    """One line as it is sent: under an id that is the same in every replay of the file."""

    id: ClientMessageId
    sender: UserId
    conversation: ConversationId
    text: str
    to: UserId | None
    name: str


class Script(msgspec.Struct, gc=False):
    """What the file asks of one conversation.

    Attributes:
        id: the conversation's id on the wire.
        name: its id in the file.
        members: everyone who must end up with a copy; the first sender comes first.
        texts: each sender's texts in the order of the file.
    """

    id: ConversationId
    name: str
    kind: ConversationKind
    members: dict[UserId, None]
    texts: dict[UserId, list[str]]

    @property
    def creator(self) -> UserId:
        """The first sender, who creates a group."""
        return next(iter(self.members))


class ChatFile(msgspec.Struct, gc=False):
    """A whole file, or its first lines: its messages in order, and its conversations by id."""

    messages: list[Message]
    scripts: dict[ConversationId, Script]

    def endpoints(self) -> dict[UserId, list[Script]]:
        """Every user (one endpoint each) with the conversations that the endpoint must hold."""
        held: dict[UserId, list[Script]] = {}
        for script in self.scripts.values():
            for user in script.members:
                held.setdefault(user, []).append(script)
        return held


def read_chat_file(path: Path, *, limit: int | None = None) -> ChatFile:
    """Reads the first `limit` lines (None: all); raises `InvalidInput`, which names the line."""
    chat = ChatFile([], {})
    named: dict[str, ConversationId] = {}
    decode = msgspec.json.Decoder(Line).decode
    for number, data in enumerate(_lines(path), 1):
        if limit is not None and number > limit:
            break
        try:
            line = decode(data)
            conversation = _place(line)
            if named.setdefault(line.conversation, conversation) != conversation:
                raise InvalidInput(f"{line.conversation!r} is of other people, or a group, above.")
        except (msgspec.MsgspecError, UnicodeDecodeError, TrunklineError) as error:
            raise InvalidInput(f"{path}, line {number}: {error}") from None
        script = chat.scripts.get(conversation)
        if script is None:
            script = Script(conversation, line.conversation, line.kind, {}, {})
            chat.scripts[conversation] = script
        script.members[line.sender] = None
        if line.to is not None:
            script.members[line.to] = None
        script.texts.setdefault(line.sender, []).append(line.text)
        chat.messages.append(
            Message(
                message_id(number, line), line.sender, conversation, line.text, line.to, script.name
            )
        )
    if not chat.messages:
        raise InvalidInput(f"{path} holds no lines.")
    return chat


def message_id(number: int, line: Line) -> ClientMessageId:
    """The id under which a line is sent: its number and a hash of all it says.

    It is the same in every run, rises along the file, and two files' lines do not share one.
    """
    content = msgspec.msgpack.encode((line.conversation, line.sender, line.to, line.text))
    return ClientMessageId(f"{number:010d}-{blake2b(content, digest_size=_HASH_BYTES).hexdigest()}")


def operation_id(name: str, conversation: ConversationId, users: list[UserId]) -> ClientMessageId:
    """The id of a membership operation: the same for the same users of the same conversation."""
    content = msgspec.msgpack.encode((name, conversation, users))
    return ClientMessageId(f"{name}-{blake2b(content, digest_size=_HASH_BYTES).hexdigest()}")


def _place(line: Line) -> ConversationId:
    """The conversation's id on the wire; refuses what no server would take."""
    check_id(line.sender, "sender")
    if not line.text:
        raise InvalidInput("`text` is empty.")
    if line.kind is ConversationKind.GROUP:
        if line.to is not None:
            raise InvalidInput("`to` belongs to single conversations.")
        check_group_id(line.conversation)
        return ConversationId(line.conversation)
    if line.to is None:
        raise InvalidInput("a single conversation needs `to`.")
    check_id(line.to, "recipient")
    return single_conversation_id(line.sender, line.to)


def _lines(path: Path) -> Iterator[bytes]:
    """Lines that are not blank; the content says whether it is gzip, not the name."""
    try:
        with path.open("rb") as raw:
            magic = raw.read(len(_GZIP_MAGIC))
        with gzip.open(path) if magic == _GZIP_MAGIC else path.open("rb") as file:
            while line := file.readline(_LINE_BYTES_MAX):
                if line.strip():
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path} cannot be read: {error}.") from None
