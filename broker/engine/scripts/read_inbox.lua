#!lua flags=no-writes
-- Return the messages of an inbox above a number. They are numbered without a hole.
-- KEYS in; ARGV number, count
local head = redis.call('LINDEX', KEYS[1], 0)
if not head then return {} end
local skip = math.max(tonumber(ARGV[1]) + 1 - tonumber(string.match(head, '^(%d+) ')), 0)
return redis.call('LRANGE', KEYS[1], skip, skip + tonumber(ARGV[2]) - 1)
