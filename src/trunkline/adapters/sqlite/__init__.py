"""The embedded default: SQLite, journal first, on one data directory (DESIGN section 5)."""

from trunkline.adapters.sqlite.embedded import EmbeddedStores, open_embedded
from trunkline.adapters.sqlite.settings import Settings

__all__ = ["EmbeddedStores", "Settings", "open_embedded"]
