"""Redis 7 as the cached tier and the bus between workers (DESIGN sections 3 and 5)."""
