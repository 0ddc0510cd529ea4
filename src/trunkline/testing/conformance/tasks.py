"""Suite of archive tasks: every append wakes, a lease is one archiver's, tokens prove it."""

from trunkline.model import Seq
from trunkline.ports.tasks import ArchiveTask, Waiting
from trunkline.testing.conformance.stores import StoreMaker, Stores
from trunkline.testing.conformance.writer import FOREVER_SECONDS, Writer, view


class TaskStoreSuite:
    """Promises of `ports.tasks.TaskStore`. Fixtures: `make_store`, `writer`."""

    async def test_every_append_makes_a_task_that_survives_a_crash(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """No wake-up is lost between append and archive."""
        async with make_store() as stores:
            await writer.append(stores.hot, *(writer.create(n, "ann", "c") for n in "gh"))
            assert (await stores.tasks.waiting()).conversations == 2
            await make_store.crash()
        async with make_store() as stores:
            assert (await stores.tasks.waiting()).conversations == 2
            tasks = await stores.tasks.lease(10, FOREVER_SECONDS)
            assert {task.conversation.id for task in tasks} == {"g", "h"}

    async def test_the_age_of_the_longest_waiting_task_is_known(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """From the first append that is not archived, over leases, failures and crashes."""
        async with make_store() as stores:
            assert await stores.tasks.waiting() == Waiting(0, 0.0)
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            make_store.clock.advance(100.0)
            assert await _oldest(stores) == (1, 100)
            await writer.append(stores.hot, writer.create("h", "ann", "c"))
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
            tasks = await _leased(stores, 30.0)
            await stores.tasks.failed(tasks["g"], "tier_unavailable", 30.0)
            make_store.clock.advance(100.0)
            assert await _oldest(stores) == (2, 200)
            await make_store.crash()
        async with make_store() as stores:
            assert await _oldest(stores) == (2, 200)
            await writer.append(stores.hot, writer.create("i", "ann", "c"))
            tasks = await _leased(stores, FOREVER_SECONDS)
            await _finish(stores, tasks["h"])
            make_store.clock.advance(100.0)
            assert await _oldest(stores) == (2, 300)
            await writer.append(stores.hot, writer.message("g", "ann", "n"))
            await _finish(stores, tasks["g"])
            assert await _oldest(stores) == (2, 100), "what came meanwhile waits anew"
            await _finish(stores, tasks["i"])
            assert await _oldest(stores) == (1, 0)

    async def test_a_leased_task_is_nobody_elses_until_its_lease_ends(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Then it is given out again, under another token."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (task,) = await stores.tasks.lease(10, 30.0)
            assert list(await stores.tasks.lease(10, 30.0)) == []
            make_store.clock.advance(31.0)
            (again,) = await stores.tasks.lease(10, 30.0)
            assert again.conversation.key == task.conversation.key
            assert again.token != task.token

    async def test_a_lease_takes_no_more_than_asked_and_the_longest_waiting_first(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """None starves."""
        async with make_store() as stores:
            for name in "abcd":
                await writer.append(stores.hot, writer.create(name, "ann", "c"))
                make_store.clock.advance(1.0)
            first = await stores.tasks.lease(3, FOREVER_SECONDS)
            assert [task.conversation.id for task in first] == ["a", "b", "c"]
            rest = await stores.tasks.lease(3, FOREVER_SECONDS)
            assert [task.conversation.id for task in rest] == ["d"]

    async def test_a_task_archived_to_its_head_is_done(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """The next append makes it again."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (task,) = await stores.tasks.lease(10, FOREVER_SECONDS)
            await stores.tasks.archived([(task, task.conversation.head)])
            await stores.tasks.done([task])
            assert (await stores.tasks.waiting()).conversations == 0
            assert list(await stores.tasks.lease(10, FOREVER_SECONDS)) == []
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 1
        async with make_store() as stores:
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 1
            assert (await stores.tasks.waiting()).conversations == 0
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
            (task,) = await stores.tasks.lease(10, FOREVER_SECONDS)
            row = task.conversation
            assert (row.head, row.archived_up_to) == (2, 1)

    async def test_what_was_appended_during_a_lease_stays_to_be_archived(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Done ends the lease, and the task only at the head."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (task,) = await stores.tasks.lease(10, FOREVER_SECONDS)
            await writer.append(stores.hot, writer.message("g", "ann", "m"))
            await stores.tasks.archived([(task, task.conversation.head)])
            await stores.tasks.done([task])
            assert (await stores.tasks.waiting()).conversations == 1
            (again,) = await stores.tasks.lease(10, FOREVER_SECONDS)
            assert (again.conversation.archived_up_to, again.conversation.head) == (1, 2)

    async def test_a_token_that_lost_its_lease_changes_nothing(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """I10: an archiver that was frozen past its lease does not speak for the next one."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (old,) = await stores.tasks.lease(10, 30.0)
            make_store.clock.advance(31.0)
            (new,) = await stores.tasks.lease(10, 30.0)
            await stores.tasks.archived([(old, Seq(1))])
            await stores.tasks.failed(old, "tier_unavailable", 1_000.0)
            await stores.tasks.done([old])
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 0
            assert list(await stores.tasks.lease(10, 30.0)) == []
            await stores.tasks.archived([(new, Seq(1))])
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 1

    async def test_archived_up_to_only_rises(self, make_store: StoreMaker, writer: Writer) -> None:
        """I10: what was trimmed on its word stays archived."""
        async with make_store() as stores:
            await writer.append(
                stores.hot, writer.create("g", "ann", "c"), writer.message("g", "ann", "m")
            )
            (task,) = await stores.tasks.lease(10, FOREVER_SECONDS)
            await stores.tasks.archived([(task, Seq(2))])
            await stores.tasks.archived([(task, Seq(1))])
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 2

    async def test_a_failed_task_waits_before_it_is_tried_again(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """It counts its attempts, and goes on waiting as a task."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (task,) = await stores.tasks.lease(10, 30.0)
            await stores.tasks.failed(task, "tier_unavailable", 60.0)
            assert list(await stores.tasks.lease(10, 30.0)) == []
            assert (await stores.tasks.waiting()).conversations == 1
            make_store.clock.advance(61.0)
            (again,) = await stores.tasks.lease(10, 30.0)
            assert (task.attempts, again.attempts) == (0, 1)

    async def test_a_task_given_back_is_free_at_once_as_if_it_had_not_been_leased(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """Attempts stay as they were; a token that lost its lease gives nothing back."""
        async with make_store() as stores:
            await writer.append(stores.hot, *(writer.create(n, "ann", "c") for n in "gh"))
            await stores.tasks.failed((await _leased(stores, 30.0))["g"], "data_damaged", 10.0)
            make_store.clock.advance(31.0)
            old = await _leased(stores, 30.0)
            assert {name: task.attempts for name, task in old.items()} == {"g": 1, "h": 0}
            await stores.tasks.give_back(list(old.values()))
            new = await _leased(stores, 30.0)
            assert {name: task.attempts for name, task in new.items()} == {"g": 1, "h": 0}
            await stores.tasks.give_back(list(old.values()))
            assert await _leased(stores, 30.0) == {}

    async def test_a_lease_that_a_crash_left_ends_and_its_token_never_comes_again(
        self, make_store: StoreMaker, writer: Writer
    ) -> None:
        """An archiver of before the crash cannot pass for one of after."""
        async with make_store() as stores:
            await writer.append(stores.hot, writer.create("g", "ann", "c"))
            (old,) = await stores.tasks.lease(10, 30.0)
            await make_store.crash()
        make_store.clock.advance(31.0)
        async with make_store() as stores:
            (new,) = await stores.tasks.lease(10, 30.0)
            assert new.token != old.token
            await stores.tasks.archived([(old, Seq(1))])
            assert (await view(stores.hot, "ann", "g"))[0].archived_up_to == 0


async def _oldest(stores: Stores) -> tuple[int, int]:
    """How many wait, and the age of the oldest in tens of seconds, since real clocks go on."""
    waiting = await stores.tasks.waiting()
    return waiting.conversations, 10 * round(waiting.oldest_seconds / 10)


async def _leased(stores: Stores, seconds: float) -> dict[str, ArchiveTask]:
    """Leases all that are free; by conversation."""
    tasks = await stores.tasks.lease(10, seconds)
    return {task.conversation.id: task for task in tasks}


async def _finish(stores: Stores, task: ArchiveTask) -> None:
    await stores.tasks.archived([(task, task.conversation.head)])
    await stores.tasks.done([task])
