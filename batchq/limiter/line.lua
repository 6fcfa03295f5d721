-- Who is next when several runs wait for one provider: the twin of line.py, where the reasons are.
local function run_of(member)
  return string.match(member, '^[^/]*')
end

-- Forgets waiters that did not come back, and what their runs were charged for them.
local function prune(unit)
  local gone = redis.call('ZRANGEBYSCORE', due, '-inf', now - GRACE_US, 'LIMIT', 0, 100)
  for _, member in ipairs(gone) do
    redis.call('ZREM', queue, member)
    redis.call('ZREM', due, member)
    redis.call('ZINCRBY', runs, -unit, run_of(member))
  end
  return #gone
end

local function next_tag(run, reached)
  local head = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  return math.max(tonumber(head[2] or reached or 0), tonumber(redis.call('ZSCORE', runs, run) or 0))
end

-- Puts a call in its place: how long it waits there, or nil where that is longer than it may.
local function join(lease, run, unit, wait, spread, patience, reached)
  local tag
  if not redis.call('ZSCORE', queue, lease) then
    tag = next_tag(run, reached)
    redis.call('ZADD', queue, tag, lease)
  end
  wait = math.max(1, math.ceil(wait + redis.call('ZRANK', queue, lease) * spread))
  if wait > patience then
    redis.call('ZREM', queue, lease)
    redis.call('ZREM', due, lease)
    if not tag then redis.call('ZINCRBY', runs, -unit, run) end
    return nil
  end
  if tag then redis.call('ZADD', runs, tag + unit, run) end
  redis.call('ZADD', due, now + wait, lease)
  if redis.call('PTTL', queue) < wait / 1000 + KEEP_MS / 2 then
    for _, key in ipairs({state, queue, due, runs}) do keep(key, wait) end
  end
  return wait
end

-- How long a call stays away that is not in line; unit is the time between two calls.
local function come_back(run, unit, index, wait, patience)
  local spacing = index == OUTAGE and SPACING_MAX_US or math.min(AWAY_SPACING_US, AWAY_SHARE * unit)
  if index ~= PAUSE and index ~= OUTAGE and wait <= HOPELESS_US then wait = math.min(wait, LOOK_US) end
  local from = math.max(now + math.max(patience, wait), tonumber(redis.call('ZSCORE', away, run) or 0))
  local at = math.ceil(from + spacing)
  redis.call('ZREMRANGEBYSCORE', away, '-inf', now)
  redis.call('ZADD', away, at, run)
  keep(away, at - now)
  return at - now
end

-- Whether no other run is before this call, and there to go.
local function is_turn(run, own, heads, unit)
  for i = 1, #heads, 2 do
    if run_of(heads[i]) ~= run and tonumber(heads[i + 1]) < own - math.max(2 * unit, AHEAD_US) then
      local at = tonumber(redis.call('ZSCORE', due, heads[i]))
      if now - LATE_US <= at and at <= now + SOON_US then return false end
    end
  end
  return true
end

-- Takes out a call that goes; one of the same run that was before it changes places.
local function leave(lease, run, own, head, head_tag, unit, reached)
  local was_in = redis.call('ZSCORE', queue, lease)
  if not was_in then redis.call('ZADD', runs, own + unit, run) end
  if head ~= lease and run_of(head) == run and head_tag < own then
    redis.call('ZADD', queue, own, head)
    own = head_tag
  end
  redis.call('ZREM', queue, lease)
  redis.call('ZREM', due, lease)
  if redis.call('EXISTS', queue) == 0 then
    redis.call('DEL', runs)
    redis.call('HDEL', state, 'reached')
  else
    write('reached', math.ceil(math.max(own, tonumber(reached or 0))))
  end
end
