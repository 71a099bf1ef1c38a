#!lua flags=allow-oom
-- Replace the checkpoint of a room, and drop the facts that it covers.
-- KEYS own, ckp, fct; ARGV node, fence, checkpoint, id of the first fact that it does not cover
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', unpack(own)} end
redis.call('SET', KEYS[2], ARGV[3])
redis.call('XTRIM', KEYS[3], 'MINID', ARGV[4])
return {'OK'}
