#!lua flags=allow-oom
-- Give a lease up where this incarnation has it.
-- KEYS node; ARGV incarnation
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
