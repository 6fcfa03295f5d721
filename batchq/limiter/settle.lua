-- Returns a lease and corrects token limits to what a call really used.
--
-- KEYS   1 rates   2 leases   3 starts (as in reserve.lua)
-- ARGV   1 lease   then for each token limit: name, difference (used - reserved), amount,
--        window, base burst
-- RETURN 1 if the lease was held, 0 if it had expired or was returned before: then nothing is
--        corrected, so that settling twice is harmless.
-- TIME   O(limits + log leases)
local rates, leases, starts, lease = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local start = redis.call('HGET', starts, lease)
local held = redis.call('ZREM', leases, lease)
redis.call('HDEL', starts, lease)
if held == 0 then
  return 0
end

for i = 2, #ARGV, 5 do
  local name, difference = ARGV[i], tonumber(ARGV[i + 1])
  local amount, window, burst = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  local kept = redis.call('HMGET', rates, name, name .. ':burst', name .. ':idle', name .. ':next')
  -- A limit that stood idle after the grant has forgotten its tokens: nothing to give back.
  if kept[1] and (difference > 0 or tonumber(start) >= tonumber(kept[3] or 0)) then
    if difference > 0 and kept[2] then
      burst = math.max(burst, math.min(tonumber(kept[2]), amount / 2))
    end
    -- A refund counts at the smallest step: the grant may have been made at that one.
    local shift = difference * window / (amount - burst + 1)
    redis.call('HSET', rates, name, string.format('%.0f', math.ceil(kept[1] + shift)))
    if kept[4] and shift < 0 then
      redis.call('HSET', rates, name .. ':next', string.format('%.0f', math.ceil(kept[4] + shift)))
    end
    if shift > 0 then
      redis.call('PEXPIRE', rates, math.max(redis.call('PTTL', rates), 0) + math.ceil(shift / 1000))
    end
  end
end
return 1
