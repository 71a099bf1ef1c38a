#!lua
-- Append messages to an inbox as far as its cap allows; expired ones at its head are dropped first.
-- KEYS in, meta; ARGV now in ms, cap, then of each message: when it expires, what follows that in the list
local meta = redis.call('HMGET', KEYS[2], 'last', 'expired')
local last, expired = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
local now = tonumber(ARGV[1])
local head = redis.call('LINDEX', KEYS[1], 0)
while head and tonumber(string.match(head, '^%d+ (%d+) ')) <= now do
  redis.call('LPOP', KEYS[1])
  expired = expired + 1
  head = redis.call('LINDEX', KEYS[1], 0)
end
local left = tonumber(ARGV[2]) - redis.call('LLEN', KEYS[1])
local numbers = {}
for index = 3, #ARGV, 2 do
  if left <= 0 then break end
  left = left - 1
  last = last + 1
  local number = string.format('%.0f', last)
  redis.call('RPUSH', KEYS[1], number .. ' ' .. ARGV[index] .. ' ' .. ARGV[index + 1])
  numbers[#numbers + 1] = number
end
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', last), 'expired', string.format('%.0f', expired))
return numbers
