-- Rate limits as they are in force, and how they are paced: see pacing.py.

-- What was granted lately: sums that fade, and since when.
local function read_meter(kept)
  local at, from = tonumber(kept['meter:at'] or now), tonumber(kept['meter:from'] or now)
  local past = math.max(0, now - at)
  if past > 6 * METER_US then return {from = now, requests = 0, tokens = 0} end
  local left = math.exp(-past / METER_US)
  return {from = from, requests = (kept['meter:requests'] or 0) * left,
          tokens = (kept['meter:tokens'] or 0) * left}
end

local function write_meter(m)
  write('meter:at', now)
  write('meter:from', m.from)
  write('meter:requests', m.requests)
  write('meter:tokens', m.tokens)
end

local function metered(sum, m, window)
  local span = METER_US * (1 - math.exp(-math.max(now - m.from, METER_US / 10) / METER_US))
  return sum / span * window
end

-- Finds the amount in force, whether it was learned, and the most that it may be.
local function enforce(limit)
  local most, told = limit.set or limit.given, limit.told
  if told and (most == 0 or told < most) then most = told end
  limit.most, limit.amount, limit.is_learned = most, most, false
  if limit.learned then
    local found = learned_amount(limit.learned)
    if most == 0 or found < most then limit.amount, limit.is_learned = found, true end
  end
  if limit.amount == 0 then return end
  limit.base = math.max(1, math.floor(limit.amount * limit.share))
  limit.burst = limit.base
  limit.largest = math.max(limit.base, limit.amount / 2)
  if limit.grown_burst and now - limit.large < 2 * limit.window then
    limit.burst = math.min(math.max(limit.base, limit.grown_burst), limit.largest)
  end
  limit.step = limit.window / (limit.amount - limit.burst + 1)
end

-- The limits of a call: what is given of them (see terms.py), and what is kept.
local function read_limits(given, tokens, kept)
  local limits = {}
  for i, one in ipairs(given) do
    local name, is_tokens = one[1], one[2] == 'tokens'
    limits[i] = {
      name = name, is_tokens = is_tokens, cost = is_tokens and tokens or 1,
      given = one[3], window = one[4], share = one[5],
      tat = tonumber(kept[name] or 0), idle = tonumber(kept[name .. ':idle'] or 0),
      grown_burst = tonumber(kept[name .. ':burst']), large = tonumber(kept[name .. ':large'] or 0),
      learned = read_learned(kept[name .. ':learned']),
      told = tonumber(kept[name .. ':told']), set = tonumber(kept[name .. ':set']),
      amount = 0, most = 0, is_learned = false, base = 0, burst = 0, largest = 0, step = 0,
    }
    enforce(limits[i])
  end
  return limits
end
