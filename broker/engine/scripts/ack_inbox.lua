#!lua flags=allow-oom
-- Remove the messages of an inbox up to a number; answers how many.
-- KEYS in, meta; ARGV number
local number = tonumber(ARGV[1])
local removed = 0
local head = redis.call('LINDEX', KEYS[1], 0)
while head and tonumber(string.match(head, '^(%d+) ')) <= number do
  redis.call('LPOP', KEYS[1])
  removed = removed + 1
  head = redis.call('LINDEX', KEYS[1], 0)
end
local meta = redis.call('HMGET', KEYS[2], 'last', 'acked')
if meta[1] then
  local acked = math.max(tonumber(meta[2] or '0'), math.min(number, tonumber(meta[1])))
  redis.call('HSET', KEYS[2], 'acked', string.format('%.0f', acked))
end
return removed
