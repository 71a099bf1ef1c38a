#!lua flags=allow-oom
-- Renew the lease of a node where this incarnation has it; 0: it is lost.
-- KEYS node; ARGV incarnation, body, TTL in ms
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
return 1
