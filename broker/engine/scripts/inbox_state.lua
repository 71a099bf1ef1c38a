#!lua flags=no-writes
-- Return the last number of an inbox, the last that was acknowledged, how many wait and how many have expired.
-- KEYS in, meta
local meta = redis.call('HMGET', KEYS[2], 'last', 'acked', 'expired')
return {meta[1] or '0', meta[2] or '0', tostring(redis.call('LLEN', KEYS[1])), meta[3] or '0'}
