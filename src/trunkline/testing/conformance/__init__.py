"""One suite a port, run on every adapter: subclass it in a test module and give its fixture.

Each suite is a class of tests that takes its makers by a pytest fixture:

    class TestMyHotStore(HotStoreSuite):
        @pytest.fixture
        def make_store(self, tmp_path: Path) -> StoreMaker: ...
"""

from trunkline.testing.conformance.archiving import ArchivingSuite
from trunkline.testing.conformance.bus import BusMaker, BusSuite, Resubscribe
from trunkline.testing.conformance.cached import CachedTierSuite, TierMaker
from trunkline.testing.conformance.cached_eviction import BoundedTierMaker, CachedEvictionSuite
from trunkline.testing.conformance.cached_heads import CachedHeadsSuite, HeadsMaker
from trunkline.testing.conformance.clock import SteppedClock
from trunkline.testing.conformance.cold import ColdStoreSuite
from trunkline.testing.conformance.generations import GenerationsMaker, GenerationsSuite
from trunkline.testing.conformance.heads import HeadsSuite
from trunkline.testing.conformance.hot import HotStoreSuite
from trunkline.testing.conformance.keys import WrappedKeysSuite
from trunkline.testing.conformance.membership import MembershipSuite
from trunkline.testing.conformance.resending import ResendingSuite
from trunkline.testing.conformance.sealer import SealerSuite
from trunkline.testing.conformance.stores import StoreMaker, Stores
from trunkline.testing.conformance.tasks import TaskStoreSuite
from trunkline.testing.conformance.watching import TiersMaker, WatchingSuite
from trunkline.testing.conformance.writer import Writer

__all__ = [
    "ArchivingSuite",
    "BoundedTierMaker",
    "BusMaker",
    "BusSuite",
    "CachedEvictionSuite",
    "CachedHeadsSuite",
    "CachedTierSuite",
    "ColdStoreSuite",
    "GenerationsMaker",
    "GenerationsSuite",
    "HeadsMaker",
    "HeadsSuite",
    "HotStoreSuite",
    "MembershipSuite",
    "ResendingSuite",
    "Resubscribe",
    "SealerSuite",
    "SteppedClock",
    "StoreMaker",
    "Stores",
    "TaskStoreSuite",
    "TierMaker",
    "TiersMaker",
    "WatchingSuite",
    "WrappedKeysSuite",
    "Writer",
]
