#!lua flags=allow-oom
-- Own a room whose fence is still the one that was seen; 0 = there is none.
-- KEYS own, log, fct, ckp; ARGV node, fence seen, floor of the fence, floor of the offset, lane, kind, at_ms, body
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if (own[2] or '0') ~= ARGV[2] then return {'HELD', unpack(own)} end
local is_new = not own[2] or own[6] == 'ended'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = string.format('%.0f', math.max(now, tonumber(ARGV[2]) + 1, tonumber(ARGV[3]) + 1))
local offset = string.format('%.0f', math.max(tonumber(own[3] or '0'), tonumber(ARGV[4])) + 1)
local fact = own[4] or '0'
if is_new then redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4]) end
redis.call('XADD', KEYS[2], fence .. '-' .. offset, 'l', ARGV[5], 'k', ARGV[6], 't', ARGV[7], 'b', ARGV[8])
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'fence', fence, 'last', offset, 'f', fact, 'state', '')
if is_new then redis.call('HSET', KEYS[1], 'note', '') end
return {'OWN', fence, offset, fact, is_new and '1' or '0'}
