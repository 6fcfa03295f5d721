-- Stands back from a provider that does not answer: the twin of breaker.py, where the reasons are.
local function read_breaker(text)
  if not text then
    return {fails = 0, since = 0, opens = 0, opened = 0, till = 0, probe_until = 0, probe = ''}
  end
  local n = cjson.decode(text)
  return {fails = n[1], since = n[2], opens = n[3], opened = n[4], till = n[5], probe_until = n[6],
          probe = n[7]}
end

local function write_breaker(b)
  write('breaker', string.format('[%d,%.0f,%d,%.0f,%.0f,%.0f,%s]', b.fails, b.since, b.opens, b.opened,
                                 b.till, b.probe_until, cjson.encode(b.probe)))
end

-- Takes what a call showed; an event where that opened or closed it.
local function note_answer(b, lease, verdict)
  local is_probe = lease == b.probe
  if verdict == 'unsent' then
    if is_probe then
      b.probe, b.probe_until = '', 0
      write_breaker(b)
    end
  elseif b.opens > 0 and not is_probe then
    return nil -- granted before it opened: no news, the probe decides
  elseif verdict == 'down' or verdict == 'overloaded' then
    if b.fails == 0 then b.since = now end
    b.fails = b.fails + 1
    if b.opens > 0 or b.fails >= OPEN_AFTER then
      b.opens, b.opened = b.opens + 1, now
      b.till = now + math.min(LONGEST_OPEN_US, OPEN_US * 2 ^ math.min(b.opens - 1, 10))
      b.probe, b.probe_until = '', 0
    end
    write_breaker(b)
    return b.opens == 1 and 'open'
  elseif b.fails > 0 then
    local was_open = b.opens > 0
    b.fails, b.opens = 0, 0
    redis.call('HDEL', state, 'breaker')
    return was_open and 'closed'
  end
end
