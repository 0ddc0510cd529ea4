"""What an id may be, the canonical id of a single conversation, and the shard of a key."""

from hashlib import blake2b
from typing import Final

from trunkline.errors import InvalidId
from trunkline.model import ClientMessageId, ConversationId, ConversationKey, UserId

ID_BYTES: Final = 64
CONVERSATION_ID_BYTES: Final = 200
SHARDS: Final = 1024
SINGLE_PREFIX: Final = "single:"
_SHARD_SHIFT: Final = 54


def is_id(value: str, most_bytes: int) -> bool:
    """Whether it is one: neither empty nor longer than `most_bytes` of UTF-8, and without NUL."""
    if not 0 < len(value) <= most_bytes or "\0" in value:
        return False
    if value.isascii():
        return True
    try:
        return len(value.encode()) <= most_bytes
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may escape it
        return False


def check_id(value: str, what: str, *, most_bytes: int = ID_BYTES) -> None:
    """Refuses an id that is empty, longer than `most_bytes` of UTF-8, or holds a NUL."""
    if not is_id(value, most_bytes):
        raise InvalidId(f"The {what} must be 1 to {most_bytes} bytes of UTF-8 without NUL.")


def check_conversation_id(value: str) -> None:
    """The same for a conversation's id."""
    check_id(value, "conversation id", most_bytes=CONVERSATION_ID_BYTES)


def check_group_id(value: str) -> None:
    """Refuses what cannot be a group's id; `single:` is reserved for single conversations."""
    check_conversation_id(value)
    if value.startswith(SINGLE_PREFIX):
        raise InvalidId(f"A group's id must not start with `{SINGLE_PREFIX}`.")


def single_conversation_id(one: UserId, other: UserId) -> ConversationId:
    """The id of the conversation of two users, the same for both (DESIGN section 4).

    The users stand in it sorted by their bytes, each with its length before it, so that
    no two pairs share an id.
    """
    if one == other:
        raise InvalidId("A single conversation needs two different users.")
    parts = sorted((one, other), key=str.encode)
    return ConversationId(SINGLE_PREFIX + "".join(map(part_of_single, parts)))


def part_of_single(user: UserId) -> str:
    """How a user stands in the ids of their single conversations."""
    return f"{len(user.encode())}:{user}"


def may_be_of(conversation: ConversationId, part: str) -> bool:
    """Whether the id may be that of a conversation of the user of this `part_of_single`: a
    single conversation's id names its two.
    """
    return (
        not conversation.startswith(SINGLE_PREFIX)
        or conversation.endswith(part)
        or conversation.startswith(part, len(SINGLE_PREFIX))
    )


def users_of_single(conversation: ConversationId) -> tuple[UserId, UserId] | None:
    """The two users whose single conversation this is, or None for any other id."""
    if not conversation.startswith(SINGLE_PREFIX):
        return None
    users: list[UserId] = []
    try:
        rest = conversation[len(SINGLE_PREFIX) :].encode()
        while rest:
            size, rest = rest.split(b":", 1)
            users.append(UserId(rest[: int(size)].decode()))
            rest = rest[int(size) :]
    except ValueError:
        return None
    if len(users) != 2 or users[0] == users[1] or not all(users):
        return None
    one, other = users
    return (one, other) if single_conversation_id(one, other) == conversation else None


def shard_of(key: ConversationKey) -> int:
    """The shard, 0 to 1023: the key's top 10 bits."""
    return key >> _SHARD_SHIFT


def shard_hash(owner: ConversationId | UserId) -> int:
    """The shard of a conversation's key or of a user's list, 0 to 1023: a hash of the id."""
    digest = blake2b(owner.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SHARDS


def conversation_key(shard_hash: int, random_bits: int) -> ConversationKey:
    """A key from a hash of the conversation id (its low 10 bits count) and 54 random bits."""
    return ConversationKey(
        (shard_hash % SHARDS) << _SHARD_SHIFT | random_bits & ((1 << _SHARD_SHIFT) - 1)
    )


def uuid7(time_ms: int, random_bits: int) -> ClientMessageId:
    """A UUIDv7 (RFC 9562) in hex from a time and 74 random bits.

    Ids of one sender made in this way rise with time, which lets the server see that an
    id is new without a look-up.
    """
    value = (
        (time_ms & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random_bits >> 62 & 0xFFF) << 64
        | 0b10 << 62
        | random_bits & (1 << 62) - 1
    )
    return ClientMessageId(f"{value:032x}")
