#!lua
-- Replace the note of a room.
-- KEYS own; ARGV node, fence, note
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', unpack(own)} end
redis.call('HSET', KEYS[1], 'note', ARGV[3])
return {'OK'}
