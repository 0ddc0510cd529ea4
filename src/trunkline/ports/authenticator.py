"""Authenticator: who is there, by the token that the application's backend minted."""

from typing import Protocol

import msgspec

from trunkline.model import UserId


class Grant(msgspec.Struct, frozen=True):
    """A token's word: this user, until then (milliseconds since 1970)."""

    user: UserId
    expires_ms: int


class Authenticator(Protocol):
    """Checks tokens; holds no state of users."""

    def authenticate(self, token: str) -> Grant:
        """The token's grant; raises `TokenMissing`, `TokenExpired` or `Unauthenticated`."""
        ...
