"""Whoever asks the tables of an open store does so through the overlay, pending first (I4, I6)."""

from __future__ import annotations

import ast
import asyncio
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

import trunkline.adapters.sqlite
from trunkline.adapters.keyring import open_keyring
from trunkline.adapters.sqlite import EmbeddedStores, Settings, open_embedded
from trunkline.adapters.sqlite.overlay import Overlay
from trunkline.model import Conversation, ConversationKey, EndpointId, OffsetMove, Seq, UserId
from trunkline.testing.conformance import SteppedClock, Writer
from trunkline.testing.conformance.writer import known_seq_of, mark_archived, seq_of, view

QUIET = Settings(
    materialiser="thread", idle_seconds=3_600.0, slice_age_seconds=3_600.0, cached_conversations=1
)
SOURCES = Path(trunkline.adapters.sqlite.__file__).parent
ANN, DAN, ZOE, PHONE = UserId("ann"), UserId("dan"), UserId("zoe"), EndpointId("phone")
OLDER = ConversationKey(7)

Reader = Callable[[EmbeddedStores, Conversation, Writer], Awaitable[object]]


class SliceBeforeTheAnswer(Executor):
    """A tables' thread that is overtaken: what it read is handed over after a slice has moved.

    `evicts`: commits went on besides, and sent whatever can be out of the cache.
    """

    def __init__(self, stores: EmbeddedStores, *, evicts: bool) -> None:
        self._stores = stores
        self._evicts = evicts
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1)
        self.overtaken = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        def work() -> Any:
            answer = fn(*args, **named)
            moved = asyncio.run_coroutine_threadsafe(self._stores.materialise(), self._loop)
            moved.result(10)
            if self._evicts:
                self._loop.call_soon_threadsafe(self._evict)
            self.overtaken += 1
            return answer

        return self._thread.submit(work)

    def _evict(self) -> None:
        state = self._stores.hot._state
        state._cached_conversations = 0
        state.evict()

    def close(self) -> None:
        self._thread.shutdown()


def overtake(stores: EmbeddedStores) -> list[SliceBeforeTheAnswer]:
    """From now on every answer of the tables comes after a slice."""
    threads = [SliceBeforeTheAnswer(stores, evicts=evicts) for evicts in (True, False)]
    # Who commits has the turn: nobody else evicts meanwhile.
    stores.hot._overlay._thread, stores.hot._commit_overlay._thread = threads
    return threads


async def resend(stores: EmbeddedStores, row: Conversation, writer: Writer) -> object:
    """I6: of what only the journal holds; the sender's ids are not cached after a crash."""
    again = await writer.append(stores.hot, writer.message("g", "ann", "late"))
    return known_seq_of(again[0])


async def rising(stores: EmbeddedStores, row: Conversation, writer: Writer) -> object:
    """I6: the highest id of a sender counts what is pending, or the next is taken for new."""
    first = seq_of((await writer.append(stores.hot, writer.message("g", "ann", "kk")))[0])
    again = await writer.append(stores.hot, writer.message("g", "ann", "late"))
    return first, known_seq_of(again[0])


async def members(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    """Two of the three are only pending; the conversation is not cached in full."""
    return sorted(await stores.hot.members(row.key))


async def read(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    return [entry.seq for entry in await stores.hot.read(row.key, Seq(0), row.head)]


async def rows(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    """One of the two is not cached, so that the tables are asked."""
    return [(r.id, r.head) for r in await stores.hot.rows([row.key, OLDER])]


async def views(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    """The user's row is in the tables, the conversation's newer one is not."""
    found = await stores.hot.views(ZOE, [row.id])
    return {name: (r.head, member.visible_from) for name, (r, member) in found.items()}


async def lists(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    return [line.conversation for line in await stores.hot.conversations_of(DAN)]


async def offsets(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    return await stores.hot.offsets(ANN, PHONE)


async def unarchived(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    """That one of them was archived stands in the journal only."""
    return sorted(task.conversation.id for task in await stores.tasks.lease(9, 60.0))


async def kek_counts(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    return await stores.keys.counts()


async def kek_rows(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    return [r.id async for run in stores.keys.wrapped_otherwise(99) for r in run]


async def kek_find(stores: EmbeddedStores, row: Conversation, _: Writer) -> object:
    found = await stores.keys.find(row.id)
    return None if found is None else found.head


READERS: Final[dict[str, tuple[Reader, ...]]] = {
    "load": (resend, rising),
    "Tables.members": (members,),
    "Tables.part": (read,),
    "Tables.rows": (rows,),
    "Tables.views": (views,),
    "Tables.conversations_of": (lists,),
    "Tables.offsets": (offsets,),
    "Tables.unarchived": (unarchived,),
    "Tables.wrapped_headers": (kek_counts,),
    "Tables.wrapped_otherwise": (kek_rows,),
    "Tables.conversation_by_id": (kek_find,),
}
"""Who asks what of the tables."""


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(open_keyring(tmp_path / "keyring.json", create=True))


async def left_by_a_crash(writer: Writer, folder: Path) -> None:
    """Three conversations in the tables; in the journal a fourth, and more of two of them."""
    async with open_embedded(folder / "data", QUIET, SteppedClock()) as stores:
        await writer.append(stores.hot, writer.create("older", "eve", "c", key=OLDER))
        await writer.append(stores.hot, writer.create("old", "eve", "c"))
        await writer.append(stores.hot, writer.create("g", "ann", "c", ["zoe"]))
        row = (await view(stores.hot, "ann", "g"))[0]
        await writer.append(stores.hot, writer.message("g", "ann", "early"))
        await stores.materialise()
        await writer.append(stores.hot, writer.join("g", "ann", "j", ["bob", "dan"]))
        await writer.append(
            stores.hot, writer.message("g", "ann", "late"), writer.create("new", "eve", "c")
        )
        await stores.hot.record([], [OffsetMove(row.key, ANN, PHONE, Seq(2))])
        await mark_archived(stores.tasks, {(await view(stores.hot, "eve", "old"))[0].key: 1})
        shutil.copytree(folder / "data", folder / "left")


@pytest.mark.parametrize(
    "reader", [r for of_one in READERS.values() for r in of_one], ids=lambda r: r.__name__
)
async def test_a_slice_that_moves_while_the_tables_are_asked_hides_nothing(
    writer: Writer, tmp_path: Path, reader: Reader
) -> None:
    """I4, I6: the answer is the one that a store gives which has everything in its tables."""
    await left_by_a_crash(writer, tmp_path)
    shutil.copytree(tmp_path / "left", tmp_path / "moved")
    async with open_embedded(tmp_path / "moved", QUIET, SteppedClock()):
        pass  # closing moves everything
    async with open_embedded(tmp_path / "moved", QUIET, SteppedClock()) as stores:
        row = (await view(stores.hot, "ann", "g"))[0]
        answer = await reader(stores, row, writer)
    async with open_embedded(tmp_path / "left", QUIET, SteppedClock()) as stores:
        row = (await view(stores.hot, "ann", "g"))[0]
        threads = overtake(stores)
        assert await reader(stores, row, writer) == answer
        assert any(thread.overtaken for thread in threads)
        for thread in threads:
            thread.close()


def _asked() -> dict[str, set[str]]:
    """What modules ask through an overlay, and where a thread is used past it."""
    asked: dict[str, set[str]] = {}
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, owner = node.func.attr, ast.unparse(node.func.value)
            if owner.endswith("overlay") and name in ("read", "read_moved"):
                question = node.args[1 if name == "read" else 0]
                asked.setdefault(ast.unparse(question), set()).add(path.stem)
            elif name == "run_in_executor":
                asked.setdefault(name, set()).add(path.stem)
    return asked


def test_every_question_to_the_tables_goes_through_the_overlay_and_is_tried_above() -> None:
    asked = _asked()
    # The cold file is another one; upkeep moves slices, commits look after the journal.
    assert asked.pop("run_in_executor") == {"overlay", "cold", "upkeep", "commits"}
    assert set(asked) == set(READERS)
    holders = {
        path.stem
        for path in SOURCES.glob("*.py")
        if "Tables.make(" in (text := path.read_text(encoding="utf-8")) or " Tables(" in text
    }
    assert holders == {"embedded", "takeover"}


async def test_what_is_pending_is_given_back_beside_the_tables_answer(tmp_path: Path) -> None:
    async with open_embedded(tmp_path / "data", QUIET, SteppedClock()) as stores:
        overlay: Overlay = stores.hot._overlay
        assert await overlay.read("pending", lambda tables: tables.watermark()) == (
            "pending",
            (0, 0),
        )
