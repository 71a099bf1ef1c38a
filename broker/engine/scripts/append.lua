#!lua
-- Write events, facts, reports and idempotency keys of a room: every check precedes every write.
-- KEYS own, log, fct, out, the idempotency keys ...
-- ARGV node, fence, last offset, last fact, length of the log, '1' = the room ends, number of items, of reports, then
--   of each item: lane ('' = a fact), kind, at_ms, body; of each report: topic, endpoint, line, at_ms, body, item;
--   of each key: TTL in ms, head, answer, item (from 1, 0 = none)
local own = redis.call('HMGET', KEYS[1], 'node', 'fence', 'last', 'f', 'note', 'state')
if own[1] ~= ARGV[1] or own[2] ~= ARGV[2] then return {'FENCED', unpack(own)} end
if own[3] ~= ARGV[3] or own[4] ~= ARGV[4] then return {'PLACE', own[3], own[4]} end
if #KEYS > 4 then
  local known = {'KNOWN'}
  local values = redis.call('MGET', unpack(KEYS, 5))
  for index = 1, #KEYS - 4 do
    if values[index] then
      known[#known + 1] = index
      known[#known + 1] = values[index]
    end
  end
  if #known > 1 then return known end
end
local fence = ARGV[2]
local last, fact = tonumber(ARGV[3]), tonumber(ARGV[4])
local items, reports = tonumber(ARGV[7]), tonumber(ARGV[8])
local offsets = {[0] = '0'}
local at = 9
for index = 1, items do
  if ARGV[at] == '' then
    fact = fact + 1
    redis.call('XADD', KEYS[3], string.format('%.0f-0', fact), 'e', fence, 'a', string.format('%.0f', last),
      'k', ARGV[at + 1], 't', ARGV[at + 2], 'b', ARGV[at + 3])
  else
    last = last + 1
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], string.format('%s-%.0f', fence, last),
      'l', ARGV[at], 'k', ARGV[at + 1], 't', ARGV[at + 2], 'b', ARGV[at + 3])
  end
  offsets[index] = string.format('%.0f', last)
  at = at + 4
end
for _ = 1, reports do
  redis.call('XADD', KEYS[4], '*', 'p', ARGV[at], 'e', ARGV[at + 1], 'l', ARGV[at + 2], 't', ARGV[at + 3],
    'b', ARGV[at + 4], 'n', offsets[tonumber(ARGV[at + 5])])
  at = at + 6
end
for index = 5, #KEYS do
  redis.call('SET', KEYS[index], ARGV[at + 1] .. offsets[tonumber(ARGV[at + 3])] .. ' ' .. fence .. ' ' .. ARGV[at + 2],
    'PX', ARGV[at])
  at = at + 4
end
local ends = ''
if ARGV[6] == '1' then ends = 'ended' end
local last_text, fact_text = string.format('%.0f', last), string.format('%.0f', fact)
redis.call('HSET', KEYS[1], 'last', last_text, 'f', fact_text, 'state', ends)
return {'OK', last_text, fact_text}
