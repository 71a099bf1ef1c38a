#!lua flags=no-writes
-- Return what follows a position, or 0 where that very event is not in the log.
-- KEYS log; ARGV id, count
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then return 0 end
return redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
