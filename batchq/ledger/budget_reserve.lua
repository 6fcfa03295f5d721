-- Holds what a call may use under its run's budget, or says that it has to wait or to stop.
-- KEYS 1 budget (hash)  2 held (hash: lease -> "nusd tokens estimated_nusd estimated_tokens owner")
-- ARGV 1 lease  2 owner  3 nano-dollars  4 tokens  5 prefix of the keys that say who is alive
-- Returns {"granted" | "wait" | "used up", need_nusd, need_tokens}
-- O(1); O(calls in flight) when the call does not fit, to take back what dead processes hold.
local UNITS = {'nusd', 'tokens'}

local function read(field) return tonumber(redis.call('HGET', KEYS[1], field) or '0') end
local function add(field, amount)
  if amount ~= 0 then redis.call('HINCRBY', KEYS[1], field, string.format('%.0f', amount)) end
end
local function split(value)
  local a, b, c, d, owner = string.match(value, '^(%d+) (%d+) (%d+) (%d+) (.*)$')
  return {nusd = tonumber(a), tokens = tonumber(b)}, owner
end
local function give_back(lease, value)
  local amounts = split(value)
  for _, unit in ipairs(UNITS) do add('held_' .. unit, 0 - amounts[unit]) end
  redis.call('HSET', KEYS[2], lease, '0 0 0 0 ') -- stays: its owner may only have been stunned
end

-- What calls used more than was estimated, the next ones will, too.
local need = {}
for i, unit in ipairs(UNITS) do
  local amount, estimated = tonumber(ARGV[2 + i]), read('estimated_' .. unit)
  local factor = 1
  if estimated > 0 then factor = math.max(1, read('settled_' .. unit) / estimated) end
  need[unit] = math.ceil(amount * factor)
end

local function judge()
  local verdict = 'granted'
  for _, unit in ipairs(UNITS) do
    local limit = redis.call('HGET', KEYS[1], 'limit_' .. unit)
    if limit then
      local free = tonumber(limit) - read('spent_' .. unit)
      if need[unit] > free then return 'used up' end
      if need[unit] > free - read('held_' .. unit) then verdict = 'wait' end
    end
  end
  return verdict
end

local mine = redis.call('HGET', KEYS[2], ARGV[1])
if mine then give_back(ARGV[1], mine) end -- asked again after a broken connection
local verdict = judge()
if verdict == 'wait' then
  local held = redis.call('HGETALL', KEYS[2])
  for i = 1, #held, 2 do
    local _, owner = split(held[i + 1])
    if owner ~= '' and redis.call('EXISTS', ARGV[5] .. owner) == 0 then
      give_back(held[i], held[i + 1])
    end
  end
  verdict = judge()
end
if verdict == 'granted' then
  local value = string.format('%.0f %.0f %s %s %s', need.nusd, need.tokens, ARGV[3], ARGV[4], ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[1], value)
  for _, unit in ipairs(UNITS) do add('held_' .. unit, need[unit]) end
elseif mine then
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return {verdict, string.format('%.0f', need.nusd), string.format('%.0f', need.tokens)}
