-- Counts header tasks of a chord that have ended, as Celery's own script does one by one.
-- What is to be done once all have ended stays with that: it is asked to count one of them again.
-- KEYS 1 results (sorted set, or list)  2 who is counted (set)  3 claim of the callback (string)
--      4 how many tasks there are (string)  5 how many more (string)
-- ARGV 1 "1" if results are sorted  2 seconds until all of this expires, or 0
--      3.. member, place, result, member, place, result, ...
-- Returns 1 if that was the last of them, else 0.  O(tasks)
if redis.call('GET', KEYS[3]) == 'done' then return 0 end
for i = 3, #ARGV, 3 do
  if redis.call('SADD', KEYS[2], ARGV[i]) == 1 then
    if ARGV[1] == '1' then
      redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i + 2])
    else
      redis.call('RPUSH', KEYS[1], ARGV[i + 2])
    end
  end
end
if tonumber(ARGV[2]) > 0 then
  for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4], KEYS[5]}) do
    redis.call('EXPIRE', key, ARGV[2])
  end
end
local size = redis.call('GET', KEYS[4])
if not size then return 0 end
local count = redis.call(ARGV[1] == '1' and 'ZCARD' or 'LLEN', KEYS[1])
return count == tonumber(size) + tonumber(redis.call('GET', KEYS[5]) or 0) and 1 or 0
