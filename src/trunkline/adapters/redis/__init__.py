"""Redis 7 as the cached tier and the bus between workers (DESIGN sections 3 and 5)."""

from trunkline.adapters.redis.cached import EvictionCause, RedisCachedTier
from trunkline.adapters.redis.settings import Settings
from trunkline.adapters.redis.stores import RedisStores, open_redis

__all__ = ["EvictionCause", "RedisCachedTier", "RedisStores", "Settings", "open_redis"]
