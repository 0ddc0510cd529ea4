#!lua flags=no-writes
-- The cached part of a range that lies within the cached head; nil, or {seq before the first
-- entry, digest there or '', entries}. Where the digest is '', one entry more stands in front:
-- its own digest is the one.
--
-- KEYS  entries (list), head (hash)
-- ARGV  1 server, 2 after, 3 up to and with
local call = redis.call
local after, up_to = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = call('HMGET', KEYS[2], 'run', 'head', 'base', 'before')
if held[1] ~= ARGV[1] then
    return
end
local head, base, before = tonumber(held[2]), tonumber(held[3]), held[4]
if up_to <= base or up_to > head or after >= up_to then
    return
end
local from = base
if after > base then
    from, base, before = after, base + 1, ''
end
local found = call('LRANGE', KEYS[1], from - base, up_to - tonumber(held[3]) - 1)
if #found ~= up_to - from + (before == '' and 1 or 0) then
    return -- the server, short of memory, took the list away
end
return {from, before, found}
