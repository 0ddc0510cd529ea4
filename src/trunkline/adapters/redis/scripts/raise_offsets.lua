#!lua
-- Raises an endpoint's read offsets; they are whole once those of the hot tier were filled in.
--
-- KEYS  the endpoint's offsets (hash: conversation's key in 8 bytes to seq)
-- ARGV  1 server, 2 idle ms, 3 '1' if these fill in the hot tier's, then key, seq, key, seq …
local call = redis.call
local offsets = KEYS[1]
if call('HGET', offsets, 'run') ~= ARGV[1] then
    call('DEL', offsets) -- nothing, or what another server left
    call('HSET', offsets, 'run', ARGV[1])
end
local from = 4
while from <= #ARGV do
    local to = math.min(from + 999, #ARGV)
    local keys, raised = {}, {}
    for i = from, to, 2 do
        keys[#keys + 1] = ARGV[i]
    end
    local held = call('HMGET', offsets, unpack(keys))
    for i, key in ipairs(keys) do
        local seq = ARGV[from + 2 * i - 1]
        if not held[i] or tonumber(held[i]) < tonumber(seq) then
            raised[#raised + 1] = key
            raised[#raised + 1] = seq
        end
    end
    if #raised > 0 then
        call('HSET', offsets, unpack(raised))
    end
    from = to + 1
end
if ARGV[3] == '1' then
    call('HSET', offsets, 'whole', '1')
end
call('PEXPIRE', offsets, ARGV[2])
