"""Accepts connections while there is room: descriptors are kept in reserve, strangers are few."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

import structlog

from trunkline.errors import AddressInUse

_AT_ONCE: Final = 32
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_log = structlog.get_logger("trunkline.gateway")

Accept = Callable[[socket.socket, str], None]


class Acceptor:
    """The listening sockets. Who cannot be accepted yet waits in the kernel's queue."""

    def __init__(self, accept: Accept, has_room: Callable[[], bool], most_files: int) -> None:
        """`accept` is given each connection and its address, while `has_room` says yes.

        `most_files`: the descriptor from which on the rest is kept in reserve.
        """
        self._accept = accept
        self._has_room = has_room
        self._most_files = most_files
        self._listening: list[socket.socket] = []
        self._paused = False
        self._short = False
        self._said_short = False

    async def open(self, host: str, port: int, *, backlog: int, shared: bool) -> int:
        """Opens the port at every address of the host, returns its number.

        `shared`: other processes may open it, too. Raises `AddressInUse`.
        """
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                # Further addresses get the port that the first one was given.
                there = (address[0], port, *address[2:])
                self._listening.append(_listener(family, there, backlog, shared=shared))
                port = int(self._listening[-1].getsockname()[1])
        except OSError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(f"{host}:{port} is in use: choose another port.") from None
            raise
        return port

    def start(self) -> None:
        """Accepts from now on."""
        self._read()

    def close(self) -> None:
        """No new connections; who waited is refused."""
        listening, self._listening = self._listening, []
        for listener in listening:
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()

    def look(self) -> None:
        """Goes on accepting where it was paused and there is room again; says so once."""
        if self._short and self._listening and self._lowest_free() < self._most_files:
            self._short = False
        if self._paused and not self._short and self._has_room():
            self._read()
        if self._short is not self._said_short:
            self._said_short = self._short
            if self._short:
                _log.warning("accepting_paused", why="open files", most_files=self._most_files)
            else:
                _log.info("accepting_resumed")

    def room_again(self) -> None:
        """There is room for a connection more."""
        if self._paused and not self._short and self._has_room():
            self._read()

    def _read(self) -> None:
        self._paused = False
        for listener in self._listening:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._take, listener)

    def _pause(self) -> None:
        self._paused = True
        for listener in self._listening:
            asyncio.get_running_loop().remove_reader(listener.fileno())

    def _take(self, listener: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if not self._has_room():
                self._pause()
                return
            try:
                accepted, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._short = True
                self._pause()
                return
            # Each has the lowest number that is free: all below are taken.
            self._short = accepted.fileno() + 1 >= self._most_files
            self._accept(accepted, address[0])
            if self._short:
                self._pause()
                return

    def _lowest_free(self) -> int:
        try:
            descriptor = os.dup(self._listening[0].fileno())
        except OSError:
            return self._most_files
        os.close(descriptor)
        return descriptor


def _listener(
    family: int, address: tuple[object, ...], backlog: int, *, shared: bool
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
