#!lua flags=allow-oom
-- Raises members' read offsets in one conversation, and drops what all of them hold; the
-- number of entries dropped. A server short of memory must let it: it makes room.
--
-- KEYS  entries (list), head (hash), offsets (sorted set)
-- ARGV  1 server, 2 count of present members or -1, 3 idle ms, then member, seq, member, seq …
local call = redis.call
local entries, row, offsets = KEYS[1], KEYS[2], KEYS[3]
local held = call('HMGET', row, 'run', 'head', 'base', 'digest')
if held[1] ~= ARGV[1] then
    return 0
end
for i = 4, #ARGV, 2 do
    call('ZADD', offsets, 'GT', ARGV[i + 1], ARGV[i])
end
call('PEXPIRE', offsets, ARGV[3])
local members = tonumber(ARGV[2])
if members < 0 or call('ZCARD', offsets) < members then
    return 0
end
local head, base = tonumber(held[2]), tonumber(held[3])
local lowest = math.min(head, tonumber(call('ZRANGE', offsets, 0, 0, 'WITHSCORES')[2]))
local passed = lowest - base
if passed <= 0 then
    return 0
end
local last = call('LINDEX', entries, passed - 1)
if lowest == head or not last then
    call('DEL', entries)
    call('HSET', row, 'base', head, 'before', held[4])
else
    call('LTRIM', entries, passed, -1)
    call('HSET', row, 'base', lowest, 'before', string.sub(last, 1, 16))
end
return passed
