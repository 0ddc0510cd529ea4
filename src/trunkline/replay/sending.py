"""Sends the file: groups first, then every line, each sender's in order, over many connections."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from trunkline.client import Client
from trunkline.errors import ConversationExists, InvalidInput, NotAllowed, NotMember
from trunkline.model import ConversationId, ConversationKind, UserId
from trunkline.replay.audience import Audience
from trunkline.replay.chatfile import ChatFile, Message, Script, operation_id
from trunkline.replay.result import Incomplete
from trunkline.replay.witness import Witness

SCENE_LINES: Final = 8_192
"""So many lines are sent before the next: a sender of some of them connects once for all."""
SENDERS_AT_A_TIME: Final = 256
"""With a window of 32 sends each, fewer are in flight than the server's queue takes."""

Step = Callable[[], None]
"""Called after each acknowledged line."""


class Sent(msgspec.Struct):
    """What the server made of the sends.

    `made`: the groups that were created by this run, in which everyone sees everything.
    `refused`: lines that the server does not take, however often they are sent.
    """

    acked: int = 0
    already_stored: int = 0
    made: set[ConversationId] = msgspec.field(default_factory=set)
    refused: list[Incomplete] = msgspec.field(default_factory=list)


class Sending:
    """Sends a chat file over the clients that are online and, for all others, over new ones."""

    def __init__(self, audience: Audience, witness: Witness, step: Step) -> None:
        self._audience = audience
        self._witness = witness
        self._step = step
        self._room = asyncio.Semaphore(SENDERS_AT_A_TIME)
        self.sent = Sent()

    async def make_groups(self, chat: ChatFile) -> None:
        """Creates the file's groups with all their members; those that exist stay as they are."""
        by_creator: dict[UserId, list[Script]] = {}
        for script in chat.scripts.values():
            if script.kind is ConversationKind.GROUP:
                by_creator.setdefault(script.creator, []).append(script)
        if not by_creator:
            return
        most = (await self._witness.limits(next(iter(by_creator)))).users_per_operation
        async with asyncio.TaskGroup() as tasks:
            for creator, scripts in by_creator.items():
                tasks.create_task(self._make_groups(creator, scripts, most))

    async def send_lines(self, chat: ChatFile) -> None:
        """Sends every line and waits for its ack."""
        for scene in _scenes(chat.messages):
            async with asyncio.TaskGroup() as tasks:
                for sender, messages in scene.items():
                    tasks.create_task(self._send_all(sender, messages))

    async def _make_groups(self, creator: UserId, scripts: Sequence[Script], most: int) -> None:
        async with self._audience.speaking(creator, self._room) as client:
            for script in scripts:
                await self._make_group(client, script, most)

    async def _make_group(self, client: Client, script: Script, most: int) -> None:
        """The creator is a member by that; the rest come in as many operations as it takes."""
        rest = [user for user in script.members if user != script.creator]
        chunks = [rest[start : start + most] for start in range(0, len(rest), most)] or [[]]
        name = operation_id("create", script.id, [script.creator])
        try:
            created = await client.create(script.id, chunks[0], name=script.name, id=name)
            exists = created.duplicate
        except ConversationExists:
            exists = True
        if not exists:
            self.sent.made.add(script.id)
        for chunk in chunks if exists else chunks[1:]:
            await self._add(client, script, chunk)

    async def _add(self, client: Client, script: Script, users: list[UserId]) -> None:
        try:
            await client.add(script.id, users, id=operation_id("add", script.id, users))
        except InvalidInput:
            # They are members already, or there are none: what they end up with is compared.
            return

    async def _send_all(self, sender: UserId, messages: Sequence[Message]) -> None:
        async with (
            self._audience.speaking(sender, self._room) as client,
            asyncio.TaskGroup() as tasks,
        ):
            # Tasks begin in the order in which they were made: so the outbox has the file's.
            for message in messages:
                tasks.create_task(self._send(client, message))

    async def _send(self, client: Client, message: Message) -> None:
        text, id = message.text, message.id
        try:
            if message.to is not None:
                sent = await client.send_to(message.to, text, name=message.name, id=id)
            else:
                sent = await client.send(message.conversation, text, id=id)
        except (InvalidInput, NotAllowed, NotMember) as error:
            reason = f"line {id} refused: {error.code}: {error.detail}"
            self.sent.refused.append(Incomplete(message.sender, message.name, reason))
            return
        self.sent.acked += 1
        self.sent.already_stored += sent.duplicate
        self._step()


def _scenes(messages: Sequence[Message]) -> Iterator[dict[UserId, list[Message]]]:
    """The lines in slices, each slice by sender in the order of the file."""
    for start in range(0, len(messages), SCENE_LINES):
        by_sender: dict[UserId, list[Message]] = {}
        for message in messages[start : start + SCENE_LINES]:
            by_sender.setdefault(message.sender, []).append(message)
        yield by_sender
