"""The real link: a WebSocket to the named address, and to no other."""

from __future__ import annotations

import asyncio

from trunkline.client import Client
from trunkline.errors import Redirected, TrunklineError


async def test_a_redirect_is_not_followed_so_the_token_goes_nowhere_else() -> None:
    followed: list[bytes] = []
    reports: list[TrunklineError] = []
    said = asyncio.Event()

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        followed.append(await reader.read(1))
        writer.close()

    def report(error: TrunklineError) -> None:
        reports.append(error)
        said.set()

    async with await asyncio.start_server(elsewhere, "127.0.0.1", 0) as other:
        target = f"ws://localhost:{other.sockets[0].getsockname()[1]}/v1"

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
            writer.write(answer.encode())
            writer.close()

        async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            client = Client(
                url, token="secret", user="ann", endpoint="phone", report=report,
                reconnect_first_seconds=0.01,
            )  # fmt: skip
            async with client, asyncio.timeout(10):
                while len(reports) < 2:
                    said.clear()
                    await said.wait()
    assert followed == []
    assert all(isinstance(error, Redirected) and target in error.detail for error in reports)


async def test_an_answer_that_is_no_handshake_is_no_redirect() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    reported: asyncio.Future[TrunklineError] = asyncio.get_running_loop().create_future()

    def report(error: TrunklineError) -> None:
        if not reported.done():
            reported.set_result(error)

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with (
            Client(url, token="secret", user="ann", endpoint="phone", report=report),
            asyncio.timeout(10),
        ):
            assert (await reported).code == "unreachable"
