"""The two encodings of frames, chosen by WebSocket subprotocol: MessagePack and JSON."""

from typing import Final

import msgspec

from trunkline.errors import ProtocolError
from trunkline.model import Entry
from trunkline.wire.frames import ClientFrame, ServerFrame


class Encoding:
    """How frames stand on the wire.

    Attributes:
        subprotocol: the WebSocket subprotocol that asks for it.
        binary: whether a frame is a binary or a text message.
    """

    def __init__(
        self,
        subprotocol: str,
        *,
        binary: bool,
        encoder: msgspec.msgpack.Encoder | msgspec.json.Encoder,
        client: "msgspec.msgpack.Decoder[ClientFrame] | msgspec.json.Decoder[ClientFrame]",
        server: "msgspec.msgpack.Decoder[ServerFrame] | msgspec.json.Decoder[ServerFrame]",
    ) -> None:
        self.subprotocol = subprotocol
        self.binary = binary
        self.encode = encoder.encode
        self._client = client
        self._server = server

    def encode_entries(self, entries: list[Entry]) -> msgspec.Raw:
        """Returns entries encoded once, to stand in many frames as they are."""
        return msgspec.Raw(self.encode(entries))

    def decode_client(self, data: bytes | memoryview) -> ClientFrame:
        """Returns the frame that a client sent; raises `ProtocolError`."""
        try:
            return self._client.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"The frame is not valid: {error}.") from None

    def decode_server(self, data: bytes | memoryview) -> ServerFrame:
        """Returns the frame that the server sent; raises `ProtocolError`."""
        try:
            return self._server.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise ProtocolError(f"The server's frame is not valid: {error}.") from None


MESSAGEPACK: Final = Encoding(
    "trunkline.msgpack",
    binary=True,
    encoder=msgspec.msgpack.Encoder(),
    client=msgspec.msgpack.Decoder(ClientFrame),
    server=msgspec.msgpack.Decoder(ServerFrame),
)
JSON: Final = Encoding(
    "trunkline.json",
    binary=False,
    encoder=msgspec.json.Encoder(),
    client=msgspec.json.Decoder(ClientFrame),
    server=msgspec.json.Decoder(ServerFrame),
)
BY_SUBPROTOCOL: Final = {encoding.subprotocol: encoding for encoding in (MESSAGEPACK, JSON)}
