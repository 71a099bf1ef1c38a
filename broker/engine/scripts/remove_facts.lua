#!lua flags=allow-oom
-- Remove facts that later ones replace.
-- KEYS own, fct; ARGV node, fence, ids ...
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', unpack(own)} end
if #ARGV > 2 then redis.call('XDEL', KEYS[2], unpack(ARGV, 3)) end
return {'OK'}
