#!lua flags=allow-oom
-- Give a room up; its fence stays.
-- KEYS own; ARGV node, fence
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', unpack(own)} end
redis.call('HSET', KEYS[1], 'node', '')
return {'OK'}
