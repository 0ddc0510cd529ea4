"""Between the cold tier and HBase anything may break: no answer is lost, short or another's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from test_hbase import segment

from trunkline.adapters.hbase.connection import Connection, ConnectionLost
from trunkline.adapters.hbase.opening import HbaseTier, open_hbase
from trunkline.adapters.hbase.pool import connected
from trunkline.adapters.hbase.settings import Settings
from trunkline.adapters.hbase.table import Table
from trunkline.errors import TierUnavailable
from trunkline.model import ConversationKey, Seq
from trunkline.testing.proxy import Proxy

# Conversations that no other module touches: the table need not be empty.
KEYS = 1_000_000
HASTY = {
    "call_seconds": 0.5, "connect_seconds": 0.5, "attempts": 2, "backoff_seconds": 0.01,
    "retry_seconds": 0.05,
}  # fmt: skip
BACK_SECONDS = 5.0


@pytest.fixture
async def proxy(hbase_table: Settings) -> AsyncIterator[Proxy]:
    async with Proxy(hbase_table.host, hbase_table.port, random.Random(1)) as proxy:
        yield proxy


@pytest.fixture
def open_through(hbase_table: Settings, proxy: Proxy) -> Callable[..., Any]:
    """Opens the tier through the proxy, with settings of its own."""

    @asynccontextmanager
    async def opened(**values: object) -> AsyncIterator[HbaseTier]:
        settings = msgspec.structs.replace(hbase_table, port=proxy.port, **values)
        async with open_hbase(settings, random.Random(2)) as tier:
            yield tier

    return opened


def one_of(key: int) -> Any:
    """A segment that says whose it is."""
    return segment(1, 9, KEYS + key, b"of %d " % key * 50)


async def read(tier: HbaseTier, key: int) -> object:
    return await tier.cold.read(ConversationKey(KEYS + key), Seq(0), Seq(9))


async def served_again(tier: HbaseTier, key: int) -> object:
    """The answer, once the tier is asked again."""
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            try:
                return await read(tier, key)
            except TierUnavailable:
                await asyncio.sleep(0.01)


def is_away(tier: HbaseTier) -> bool:
    """What operators see."""
    (reading,) = (one for one in tier.readings() if one.metric == "trunkline_cold_away")
    return bool(reading.read())


async def unavailable(question: Awaitable[object]) -> float:
    """Expects the error that says to retry later; the seconds until it came."""
    began = time.monotonic()
    with pytest.raises(TierUnavailable) as caught:
        await question
    assert caught.value.retryable
    return time.monotonic() - began


async def test_a_connection_that_the_server_ended_while_idle_is_replaced_unnoticed(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given one try a question, when idle connections end or are reset, then reads go on."""
    async with open_through(attempts=1) as tier:
        await tier.cold.put([one_of(1)], [])
        for end in (proxy.end_all, proxy.reset_all) * 3:
            end()
            await proxy.until_open(0, seconds=5)
            assert await read(tier, 1) == [one_of(1)]


async def test_a_connection_that_dies_under_a_question_is_replaced(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given one try a question, when an idle one is dead without a sign, then it is asked anew."""
    async with open_through(attempts=1) as tier:
        await tier.cold.put([one_of(1)], [])
        proxy.pause()
        reading = asyncio.ensure_future(read(tier, 1))
        await proxy.until_held(seconds=5)
        proxy.reset_all()
        await proxy.until_open(0, seconds=5)
        proxy.resume()
        assert await reading == [one_of(1)]


async def test_answers_in_slices_are_whole(open_through: Callable[..., Any], proxy: Proxy) -> None:
    """I8: TCP promises no boundaries."""
    proxy.slice_bytes = 7
    async with open_through() as tier:
        await tier.cold.put([one_of(1)], [])
        assert await read(tier, 1) == [one_of(1)]


async def test_an_answer_that_breaks_off_is_no_short_answer(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """I8: at whatever byte it breaks."""
    async with open_through(**HASTY) as tier:
        await tier.cold.put([one_of(1)], [])
        for cut in (0, 1, 20, 60, 150, 400):
            proxy.end_all()
            proxy.cut_after_bytes = cut
            await unavailable(read(tier, 1))
            proxy.cut_after_bytes = None
            assert await served_again(tier, 1) == [one_of(1)]


async def test_a_server_that_refuses_is_an_error_that_says_to_retry(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Then it is back, and all is well."""
    async with open_through(**HASTY) as tier:
        await tier.cold.put([one_of(1)], [])
        proxy.refusing = True
        proxy.reset_all()
        for question in (
            read(tier, 1), tier.cold.metadata(ConversationKey(1)), tier.cold.put([one_of(1)], []),
            anext(tier.cold.keys()),
        ):  # fmt: skip
            await unavailable(question)
        proxy.refusing = False
        assert await served_again(tier, 1) == [one_of(1)]


async def test_a_silent_server_is_waited_for_as_long_as_the_settings_say(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Two tries of half a second; what was asked in silence is answered to nobody."""
    async with open_through(**HASTY) as tier:
        await tier.cold.put([one_of(1), one_of(2)], [])
        proxy.pause()
        assert 0.9 < await unavailable(read(tier, 1)) < 2.0
        proxy.resume()
        assert await served_again(tier, 2) == [one_of(2)]


async def test_more_tries_do_not_make_a_silent_server_be_waited_for_longer(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """All tries together take twice the time of one, at most."""
    async with open_through(**(HASTY | {"attempts": 9})) as tier:
        proxy.pause()
        assert await unavailable(read(tier, 1)) < 1.5


async def test_while_it_is_silent_questions_fail_at_once_but_for_one_probe_at_a_time(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given a question that was given up, then nobody waits but the probe, for one try; its
    answer lets all ask again."""
    async with open_through(**HASTY) as tier:
        await tier.cold.put([one_of(key) for key in range(30)], [])
        assert not is_away(tier)
        proxy.pause()
        await unavailable(read(tier, 1))
        assert is_away(tier)
        for _ in range(3):
            await asyncio.sleep(2 * HASTY["retry_seconds"])
            waits = await asyncio.gather(*(unavailable(read(tier, key)) for key in range(30)))
            probes = [seconds for seconds in waits if seconds > 0.25]
            assert len(probes) == 1
            assert 0.4 < probes[0] < 0.9
        assert is_away(tier)
        proxy.resume()
        await served_again(tier, 1)
        assert not is_away(tier)
        found = await asyncio.gather(*(read(tier, key) for key in range(30)))
        assert found == [[one_of(key)] for key in range(30)]


async def test_questions_that_wait_for_a_turn_end_with_the_first_that_is_given_up(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given a silent server and few connections, when many ask, then none waits for a try of
    its own after it is known that there is no answer."""
    patient = HASTY | {"connections": 2, "connect_seconds": 2.0, "call_seconds": 2.0, "attempts": 1}
    async with open_through(**patient) as tier:
        proxy.pause()
        asked = [asyncio.ensure_future(read(tier, key)) for key in range(2)]
        await asyncio.sleep(1.0)
        assert max(await asyncio.gather(*(unavailable(read(tier, 1)) for _ in range(20)))) < 1.5
        await asyncio.gather(*map(unavailable, asked))


async def test_a_cancelled_probe_leaves_the_next_question_free_to_be_one(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Whoever asked may go away at any time."""
    async with open_through(**HASTY) as tier:
        await tier.cold.put([one_of(1)], [])
        proxy.pause()
        await unavailable(read(tier, 1))
        await asyncio.sleep(2 * HASTY["retry_seconds"])
        opened = proxy.opened
        probe = asyncio.ensure_future(read(tier, 1))
        async with asyncio.timeout(5):
            while proxy.opened == opened:
                await asyncio.sleep(0.001)
        probe.cancel()
        await asyncio.wait([probe])
        proxy.resume()
        assert await read(tier, 1) == [one_of(1)]


async def test_what_is_refused_by_hbase_itself_lets_all_ask(
    hbase_table: Settings, proxy: Proxy
) -> None:
    """A refusal is an answer: it ends an away, and begins none."""
    settings = msgspec.structs.replace(hbase_table, port=proxy.port, **HASTY)
    async with connected(settings, random.Random()) as pool:
        (away,) = (one for one in pool.readings() if one.metric == "trunkline_cold_away")
        proxy.refusing = True
        await unavailable(pool.call("tableExists", None))
        assert away.read()
        proxy.refusing = False
        await asyncio.sleep(2 * settings.retry_seconds)
        with pytest.raises(TierUnavailable, match="absent"):
            await Table(pool, "absent").get(b"row")
        assert not away.read()


async def test_idle_connections_that_died_without_a_sign_cost_one_try(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given some that a firewall forgot, then the second try is made on a new one, and the
    others are not tried in turn."""
    forgotten = False
    proxy.filtered = lambda: lambda data: b"" if forgotten else data
    async with open_through(**HASTY, connections=4) as tier:
        await tier.cold.put([one_of(1)], [])
        proxy.latency_seconds = (0.05, 0.05)
        await asyncio.gather(*(read(tier, 1) for _ in range(4)))
        assert proxy.open == 4
        proxy.latency_seconds = (0.0, 0.0)
        forgotten, proxy.filtered = True, None
        assert await read(tier, 1) == [one_of(1)]
        began = time.monotonic()
        for _ in range(3):
            assert await read(tier, 1) == [one_of(1)]
        assert time.monotonic() - began < 0.4


async def test_an_answer_that_drips_is_given_up_in_time(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """A little now and then is not silence, but no answer either."""
    large = segment(1, 9, KEYS + 99, bytes(100_000))
    async with open_through(**HASTY) as tier:
        await tier.cold.put([large], [])
        # The question passes in one slice, the answer would take 4 s.
        proxy.slice_bytes, proxy.latency_seconds = 500, (0.02, 0.02)
        assert await unavailable(read(tier, 99)) < 2.0


async def test_no_more_connections_are_open_than_the_settings_say(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """However many ask."""
    async with open_through(connections=3) as tier:
        await tier.cold.put([one_of(key) for key in range(30)], [])
        proxy.latency_seconds = (0.001, 0.01)
        found = await asyncio.gather(*(read(tier, key) for key in range(30)))
        assert found == [[one_of(key)] for key in range(30)]
        assert proxy.most_open <= 3


async def test_who_waits_for_a_turn_too_long_is_told_so(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given one connection and a silent server, when two ask, then neither waits for ever."""
    async with open_through(**HASTY, connections=1) as tier:
        proxy.pause()
        first = asyncio.ensure_future(read(tier, 1))
        await proxy.until_held(seconds=5)
        with pytest.raises(TierUnavailable, match="busy"):
            await read(tier, 2)
        await unavailable(first)


async def test_a_cancelled_question_takes_its_connection_along(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Its answer may still come; nobody is there to hear it."""
    async with open_through() as tier:
        await tier.cold.put([one_of(1)], [])
        proxy.pause()
        reading = asyncio.ensure_future(read(tier, 1))
        await proxy.until_held(seconds=5)
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        proxy.resume()
        await proxy.until_open(0, seconds=5)


async def test_a_thousand_cancelled_questions_hand_no_row_to_another(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """Given answers that dawdle, when most who ask give up, then the others get their own."""
    rnd = random.Random(4)
    given_up = 0
    answered = 0

    async def ask(tier: HbaseTier) -> None:
        nonlocal given_up, answered
        while given_up < 1_000:
            key = rnd.randrange(50)
            try:
                async with asyncio.timeout(rnd.choice([0.0005, 0.002, 0.004, 0.01, 1.0])):
                    found = await read(tier, key)
            except TimeoutError:
                given_up += 1
            else:
                answered += 1
                assert found == [one_of(key)]

    async with open_through(connections=6) as tier:
        await tier.cold.put([one_of(key) for key in range(50)], [])
        proxy.latency_seconds = (0.0, 0.004)
        await asyncio.gather(*(ask(tier) for _ in range(12)))
        assert answered > 100
    await proxy.until_open(0, seconds=5)


async def test_closing_ends_questions_under_way(
    open_through: Callable[..., Any], proxy: Proxy
) -> None:
    """A server that goes down does not wait for HBase."""
    async with open_through() as tier:
        proxy.pause()
        reading = asyncio.ensure_future(read(tier, 1))
        await proxy.until_held(seconds=5)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    await unavailable(reading)
    await unavailable(read(tier, 1))


# --- the connection alone, against a server that lies ---------------------------------------


@asynccontextmanager
async def liar(answer: bytes) -> AsyncIterator[int]:
    """A server that gives the same answer to everything; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_024):
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def reply(name: bytes, sequence: int, kind: int = 2) -> bytes:
    """A reply in Thrift's binary protocol whose success is `true`."""
    head = b"\x80\x01\x00" + bytes([kind]) + len(name).to_bytes(4, "big") + name
    return head + sequence.to_bytes(4, "big") + b"\x02\x00\x00\x01\x00"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply(b"isTableAvailable", 1), "answered"),
        (reply(b"tableExists", 2), "answered"),
        (reply(b"tableExists", 1)[:-5] + b"\x00", "nothing"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol|header|version"),
        (b"\x80\x01\x00\x02\x7f\xff\xff\xff", "buffer"),
        (reply(b"tableExists", 1, kind=3), "failed inside"),
    ],
    ids=["another question's", "another number's", "empty", "no Thrift", "endless", "exception"],
)
async def test_an_answer_to_another_question_is_none(answer: bytes, says: str) -> None:
    """Thrift clients have been seen to hand out another request's row."""
    async with liar(answer) as port:
        connection = Connection("127.0.0.1", port, connect_seconds=1)
        with pytest.raises(ConnectionLost, match=says):
            await asyncio.to_thread(connection.call, "tableExists", (None,), 0.3)
        with pytest.raises(ConnectionLost, match="given up"):
            await asyncio.to_thread(connection.call, "tableExists", (None,), 0.3)


async def test_an_answer_to_another_question_does_not_shut_out_the_next_question() -> None:
    """Somebody is there; only silence and a connection that ends are none."""
    async with liar(reply(b"isTableAvailable", 1)) as port:
        settings = Settings(port=port, attempts=1)
        async with connected(settings, random.Random()) as pool:
            (away,) = (one for one in pool.readings() if one.metric == "trunkline_cold_away")
            with pytest.raises(TierUnavailable, match="answered"):
                await pool.call("tableExists", None)
            assert not away.read()


async def test_an_answer_that_nobody_awaits_is_not_taken_for_the_next() -> None:
    """Whether it was read along with the one before, or is still to come."""
    async with liar(reply(b"tableExists", 1) * 2) as port:
        connection = Connection("127.0.0.1", port, connect_seconds=1)
        assert await asyncio.to_thread(connection.call, "tableExists", (None,), 1.0)
        with pytest.raises(ConnectionLost, match="answered"):
            await asyncio.to_thread(connection.call, "tableExists", (None,), 1.0)


async def test_an_idle_connection_with_something_to_read_is_not_quiet() -> None:
    """The server's end, or an answer that nobody awaits: it is not asked again."""
    late = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_024)
        writer.write(reply(b"tableExists", 1))
        await late.wait()
        writer.write(reply(b"tableExists", 1))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = Connection("127.0.0.1", port, connect_seconds=1)
        assert not connection.is_quiet()
        assert await asyncio.to_thread(connection.call, "tableExists", (None,), 1.0)
        assert connection.is_quiet()
        late.set()
        async with asyncio.timeout(5):
            while connection.is_quiet():
                await asyncio.sleep(0.001)
        connection.abort()
