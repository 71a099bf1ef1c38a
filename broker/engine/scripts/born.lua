#!lua flags=allow-oom
-- Take the lease of a node's name. The ids of nodes without a lease are dropped from the set.
-- KEYS lineage, ids, node; ARGV node, prefix of the keys of nodes, incarnation, body, TTL in ms, lineage if there is none
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local lineage = redis.call('GET', KEYS[1])
if not lineage then
  lineage = ARGV[6] .. ' ' .. now
  redis.call('SET', KEYS[1], lineage)
end
for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if redis.call('EXISTS', ARGV[2] .. id) == 0 then redis.call('SREM', KEYS[2], id) end
end
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('SET', KEYS[3], ARGV[3] .. ARGV[4], 'PX', ARGV[5])
return {lineage, now}
