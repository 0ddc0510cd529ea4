#!lua flags=allow-oom
-- The life of the data set: the mark that stands there, or the one that is put there. A server
-- that takes no writes refuses.
--
-- KEYS  the mark
-- ARGV  1 what it becomes if there is none
local life = redis.call('GET', KEYS[1])
if not life then
    life = ARGV[1]
    redis.call('SET', KEYS[1], life)
end
return life
