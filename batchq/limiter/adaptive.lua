-- Limits that nobody told: the twin of adaptive.py, where the reasons are.
local function learned_amount(l)
  if l.top == 0 then
    return math.min(LARGEST, l.floor * 2 ^ math.min(60, l.age / DOUBLE_US))
  end
  local x = (l.age - l.plateau) / l.plateau
  return math.min(LARGEST, l.top + (l.top - l.floor) * x * x * x)
end

local function read_learned(text)
  if not text then return nil end
  local n = cjson.decode(text)
  return {floor = n[1], top = n[2], plateau = n[3], age = n[4], grown = n[5], cut = n[6],
          spent = n[7], quick = n[8]}
end

local function write_learned(name, l)
  write(name .. ':learned', string.format('[%.6f,%.6f,%.0f,%.0f,%.0f,%.0f,%.0f,%d]', l.floor, l.top,
                                          l.plateau, l.age, l.grown, l.cut, l.spent, l.quick))
end

local function grow(l)
  l.age, l.grown = l.age + math.max(0, math.min(now - l.grown, 1000000)), now
end

local function least(cost, window)
  return math.max(1, cost * window / SLOWEST_US)
end

local function measured(l, cost, window)
  if l.age < BOUND_SHARE * (now - l.cut) then return math.huge end
  return math.max(0, l.spent - cost) / math.max(1, now - l.cut) * window
end

local function far_off(l, amount, cost, window)
  local quick = l.quick + 1
  if window == 0 then
    local floor = math.max(1, amount * 0.7)
    return {floor = floor, top = math.max(floor, amount), plateau = UNSURE_US, age = 0, grown = now,
            cut = now, spent = 0, quick = quick}, 0
  end
  local accepted = math.max(0, l.spent - cost)
  local rate = accepted / math.max(1, now - l.cut) * window
  local floor = math.max(least(cost, window), math.min(0.8 * amount, math.max(0.15 * amount, 0.95 * rate)))
  local hold = HOLD_US
  if accepted == 0 then hold = math.min(LONGEST_HOLD_US, HOLD_US * 2 ^ math.min(quick, 10)) end
  return {floor = floor, top = math.max(floor, math.min(amount, 1.2 * floor)), plateau = UNSURE_US,
          age = 0, grown = now + hold, cut = now, spent = 0, quick = quick}, hold
end

-- Lowers a limit that refused a call; window 0 is for calls in flight. Also: how long to hold all.
local function step_back(l, amount, cost, window)
  cost = math.max(1, cost)
  if l and l.cut > 0 and l.age < QUICK_US then return far_off(l, amount, cost, window) end
  local is_first = l and l.top == 0
  if l and l.cut > 0 and window > 0 then
    local accepted = measured(l, cost, window)
    amount = math.min(amount, amount <= NEAR * accepted and accepted or (amount + accepted) / 2)
  end
  local floor = math.max(least(cost, window), amount * (is_first and 0.5 or 0.95))
  local plateau = is_first and UNSURE_US or math.max(PLATEAU_US, PLATEAU_CALLS * window * cost / amount)
  local hold = window > 0 and HOLD_US or 0
  return {floor = floor, top = math.max(amount, floor), plateau = plateau, age = 0, grown = now + hold,
          cut = now, spent = 0, quick = 0}, hold
end
