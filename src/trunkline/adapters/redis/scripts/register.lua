#!lua flags=allow-oom
-- Enters a worker among those that watch, or serve; 1 if it did not stand there. A server short
-- of memory must let it: who connects is pushed.
--
-- KEYS  workers (hash)
-- ARGV  1 worker, 2 ms after which it is forgotten
local new = redis.call('HSET', KEYS[1], ARGV[1], '')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return new
