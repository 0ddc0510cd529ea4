"""One connection to the Thrift server: blocking, used by one thread at a time.

thriftpy2 encodes and decodes. Its client is not used: it believes any answer, whereas here the
answer must carry the name and the number of the question, and what fails leaves the connection
closed, so that nobody can find another's answer on it.
"""

import select
import socket
import ssl
from threading import Lock
from typing import Any

from thriftpy2.protocol.cybin import ProtocolError, TCyBinaryProtocol  # type: ignore[attr-defined]
from thriftpy2.thrift import TApplicationException, TException, TMessageType
from thriftpy2.transport import TCyBufferedTransport, TSocket, TTransportException

from trunkline.adapters.hbase.idl import Struct, idl
from trunkline.ports.tls import why_refused

_MOST_SEQUENCE = 2**31 - 1


class ConnectionLost(Exception):
    """There is no answer, and there will be none on this connection: it is closed.

    Attributes:
        silent: whether time ran out, rather than that the connection ended.
        answered: whether something came that is no answer to what was asked.
    """

    def __init__(self, why: str, *, silent: bool = False, answered: bool = False) -> None:
        super().__init__(why)
        self.silent = silent
        self.answered = answered


class Untrusted(ConnectionLost):
    """The server is not the one that the certificates of the settings speak of."""


class Refused(Exception):
    """HBase answered with an error. The connection stands.

    Attributes:
        retryable: whether HBase says that the same may succeed later.
    """

    def __init__(self, why: str, *, retryable: bool) -> None:
        super().__init__(why)
        self.retryable = retryable


class Connection:
    """Opens at its first call."""

    def __init__(
        self, host: str, port: int, *, connect_seconds: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._connect_seconds = connect_seconds
        self._lock = Lock()
        self._socket: socket.socket | None = None
        self._protocol: Any = None
        self._calling = False
        self._aborted = False
        self._sequence = 0

    def call(self, name: str, arguments: tuple[object, ...], silence_seconds: float) -> Any:
        """Asks and waits for the answer, as long as the server is never silent for longer.

        Raises `Refused` if HBase answered with an error, and `ConnectionLost` for
        everything else that is no answer.
        """
        with self._lock:
            self._refuse_if_aborted()
            self._calling = True
        sound = False
        try:
            if self._socket is None:
                self._open()
            self._set_timeout(silence_seconds)
            answer = self._ask(name, arguments)
            sound = True
            return answer
        except Refused:
            sound = True
            raise
        except TimeoutError as error:
            raise ConnectionLost("it is silent", silent=True) from error
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(why_refused(error)) from error
        except OSError as error:
            raise ConnectionLost(why_refused(error) or type(error).__name__) from error
        except TTransportException as error:
            raise ConnectionLost(str(error) or "it ended the connection") from error
        except (TException, ProtocolError, ValueError, MemoryError) as error:
            raise ConnectionLost(str(error) or type(error).__name__, answered=True) from error
        finally:
            with self._lock:
                self._calling = False
                if self._aborted or not sound:
                    self._close()

    def abort(self) -> None:
        """Ends the connection, from any thread; a call under way fails at once.

        Only the calling thread itself may close the socket under its call: the number of a
        closed socket goes to the next that is opened, and the call would read from that one.
        """
        with self._lock:
            self._aborted = True
            if not self._calling:
                self._close()
            elif self._socket is not None:
                try:
                    # Of the socket beneath: TLS's own would have a call under way go on in clear.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                except OSError:  # it was not connected yet, or is no longer
                    return

    def is_quiet(self) -> bool:
        """Whether the idle connection is open with nothing to read on it.

        The server's end, or an answer that nobody awaits, is something to read.
        """
        with self._lock:
            if self._socket is None:
                return False
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return not poll.poll(0)

    def _refuse_if_aborted(self) -> None:
        if self._aborted:
            raise ConnectionLost("it was given up")

    def _open(self) -> None:
        opened = socket.create_connection(self._address, self._connect_seconds)
        if self._tls is not None:  # in the same time that the connecting may take
            opened = self._tls.wrap_socket(opened, server_hostname=self._address[0])
        with self._lock:
            self._socket = opened
            self._refuse_if_aborted()
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain = TSocket(sock=opened)  # type: ignore[no-untyped-call]
        self._protocol = TCyBinaryProtocol(TCyBufferedTransport(plain))

    def _set_timeout(self, seconds: float) -> None:
        if self._socket is not None:
            self._socket.settimeout(seconds)

    def _close(self) -> None:
        self._aborted = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, name: str, arguments: tuple[object, ...]) -> Any:
        protocol, service = self._protocol, idl.THBaseService
        self._sequence = self._sequence % _MOST_SEQUENCE + 1
        asked: Struct = getattr(service, name + "_args")(*arguments)
        protocol.write_message_begin(name, TMessageType.CALL, self._sequence)
        asked.write(protocol)
        protocol.write_message_end()
        protocol.trans.flush()
        answered, kind, sequence = protocol.read_message_begin()
        if (answered, sequence) != (name, self._sequence):
            wrong = f"it answered {answered} {sequence} to {name} {self._sequence}"
            raise ConnectionLost(wrong, answered=True)
        if kind == TMessageType.EXCEPTION:
            fault = TApplicationException()
            fault.read(protocol)
            protocol.read_message_end()
            raise ConnectionLost(f"it failed inside: {fault.message}", answered=True)
        result: Struct = getattr(service, name + "_result")()
        result.read(protocol)
        protocol.read_message_end()
        if result.io is not None:
            # The rest is the server's stack.
            why = (result.io.message or "no reason given").partition("\n")[0]
            raise Refused(why, retryable=result.io.canRetry is not False)
        answer = getattr(result, "success", None)
        if answer is None and hasattr(result, "success"):
            raise ConnectionLost(f"it answered nothing to {name}", answered=True)
        return answer
