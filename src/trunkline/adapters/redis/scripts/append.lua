#!lua
-- Takes over what a batch wrote to one conversation; nil, or {entries dropped by a gap,
-- entries dropped by length, workers that watch, but the writer}.
--
-- KEYS  entries (list), head (hash), offsets (sorted set), watchers (hash)
-- ARGV  1 server, 2 writer, 3 head, 4 countable, 5 digest, 6 membership version, 7 first seq
--       or 0, 8 digest before it, 9 entries kept, 10 entries at which they are cut,
--       11 idle ms, 12 the stamp that the head is believed under, 13 how many members left,
--       then these, then the entries
--
-- The list holds base+1..head without a hole; an entry's first 16 bytes are its digest.
local call = redis.call
local entries, row, offsets = KEYS[1], KEYS[2], KEYS[3]
local run, new_head, first = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[7])
local first_entry = 14 + ARGV[13]
local count = #ARGV - first_entry + 1

local held = call('HMGET', row, 'run', 'head', 'base')
local head, base, before
local fresh = held[1] ~= run
if fresh then
    -- Nothing, or what another server left: a restored one may hold what was erased since.
    call('DEL', entries, row, offsets)
    if count > 0 then
        head, before = first - 1, ARGV[8]
    else
        head, before = new_head, ARGV[5]
    end
    base = head
else
    head, base = tonumber(held[2]), tonumber(held[3])
end

local function let_go()
    local dropped = head - base
    call('DEL', entries)
    base, before = new_head, ARGV[5]
    return dropped
end

local gap, cut = 0, 0
if fresh or new_head > head then
    if count > 0 and first <= head + 1 then
        local from, length = first_entry + head + 1 - first, 0
        while from <= #ARGV do
            local to = math.min(from + 999, #ARGV)
            length = call('RPUSH', entries, unpack(ARGV, from, to))
            from = to + 1
        end
        if length ~= new_head - base then
            let_go() -- the server, short of memory, took the list away
        end
    elseif new_head > head then
        gap = let_go()
    end
    for i = 14, first_entry - 1 do
        call('ZREM', offsets, ARGV[i])
    end
    if new_head - base > tonumber(ARGV[10]) then
        cut = new_head - ARGV[9] - base
        before = string.sub(call('LINDEX', entries, cut - 1), 1, 16)
        call('LTRIM', entries, cut, -1)
        base = base + cut
    end
    call('HSET', row, 'head', new_head, 'countable', ARGV[4], 'digest', ARGV[5],
        'version', ARGV[6], 'at', ARGV[12] .. ARGV[3])
    if before then
        call('HSET', row, 'run', run, 'base', base, 'before', before)
    end
elseif new_head == head and ARGV[12] ~= '' then
    call('HSET', row, 'at', ARGV[12] .. ARGV[3])
end
call('PEXPIRE', row, ARGV[11])
call('PEXPIRE', entries, ARGV[11])

local answer = {gap, cut}
for _, worker in ipairs(call('HKEYS', KEYS[4])) do
    if worker ~= ARGV[2] then
        answer[#answer + 1] = worker
    end
end
if gap > 0 or cut > 0 or #answer > 2 then
    return answer
end
