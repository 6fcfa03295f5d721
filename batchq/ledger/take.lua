-- Takes messages off a queue, oldest first, up to the first one that lacks a mark.
-- KEYS 1 queue (list)  2 what the slot has in hand (list): it is done with what is there
-- ARGV 1 most messages  2 most bytes  3 seconds until a hand that nobody looks at expires
--      4.. marks: what stands in the text of each
-- Returns the messages.  O(messages taken, and in hand)
redis.call('DEL', KEYS[2])
local taken, bytes = {}, 0
local function is_wanted(text)
  for i = 4, #ARGV do
    if not string.find(text, ARGV[i], 1, true) then return false end
  end
  return true
end
while #taken < tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) do
  local text = redis.call('LINDEX', KEYS[1], -1)
  if not text or not is_wanted(text) then break end
  redis.call('RPOPLPUSH', KEYS[1], KEYS[2])
  taken[#taken + 1] = text
  bytes = bytes + #text
end
if #taken > 0 then redis.call('EXPIRE', KEYS[2], ARGV[3]) end
return taken
