#!lua flags=allow-oom
-- Take a room off the list of rooms with reports, unless one was written since its score was read.
-- KEYS rooms; ARGV room, score
if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
