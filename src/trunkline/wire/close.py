"""WebSocket close codes: each says whether the client should come back."""

from enum import IntEnum


class Close(IntEnum):
    """Codes of the application's range (4000 to 4999), besides 1000 and 1009."""

    NORMAL = 1000
    BAD_FRAME = 4000
    WRONG_ORDER = 4001
    UNSUPPORTED_VERSION = 4002
    UNAUTHENTICATED = 4003
    TOKEN_EXPIRED = 4004
    FRAME_TOO_LARGE = 4009
    FLOODING = 4010
    SLOW_READER = 4100
    SHUTTING_DOWN = 4101
    IDLE = 4102
    REPLACED = 4103
    OVERLOADED = 4104
    INTERNAL = 4105

    @property
    def reconnect(self) -> bool:
        """Whether coming back, unchanged, makes sense."""
        return self >= 4100 and self is not Close.REPLACED
