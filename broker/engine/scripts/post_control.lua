#!lua
-- Append an entry to the control stream, and drop those that are old.
-- KEYS ctl; ARGV body, how long entries stay in ms
local time = redis.call('TIME')
local oldest = string.format('%.0f', math.max(time[1] * 1000 - tonumber(ARGV[2]), 0))
return redis.call('XADD', KEYS[1], 'MINID', '~', oldest, '*', 'b', ARGV[1])
