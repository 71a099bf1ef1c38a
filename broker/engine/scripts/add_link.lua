#!lua
-- Note a connection of a user; links of incarnations that are not live are dropped first.
-- KEYS links; ARGV connection, incarnation, since_ms, limit, '1' = displace the oldest, TTL in ms, live incarnations ...
local live = {}
for index = 7, #ARGV do live[ARGV[index]] = true end
local others = {}
local all = redis.call('HGETALL', KEYS[1])
for index = 1, #all, 2 do
  local incarnation, since = string.match(all[index + 1], '^(%S*) (%d+)$')
  if not live[incarnation] then
    redis.call('HDEL', KEYS[1], all[index])
  elseif all[index] ~= ARGV[1] then
    others[#others + 1] = {all[index], incarnation, since}
  end
end
local over = #others - tonumber(ARGV[4]) + 1
if over > 0 and ARGV[5] ~= '1' then return {'0'} end
table.sort(others, function(a, b)
  if tonumber(a[3]) ~= tonumber(b[3]) then return tonumber(a[3]) < tonumber(b[3]) end
  return a[1] < b[1]
end)
local answer = {'1'}
for index = 1, over do
  redis.call('HDEL', KEYS[1], others[index][1])
  for _, part in ipairs(others[index]) do answer[#answer + 1] = part end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return answer
