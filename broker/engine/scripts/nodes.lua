#!lua flags=no-writes
-- Return the ids of the nodes that have a lease, and what they said.
-- KEYS ids; ARGV prefix of the keys of nodes
local found = {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local record = redis.call('GET', ARGV[1] .. id)
  if record then
    found[#found + 1] = id
    found[#found + 1] = record
  end
end
return found
