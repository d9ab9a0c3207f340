-- Sessions that are open, by whom they are counted for. One script, called with an operation: each is atomic.
--
-- Each of KEYS is `carillon:limits:sessions:<id of a project or key>`, a ZSET of the sessions' ids, each with the time
-- in ms at which it counts no longer unless it is renewed. The key expires with the last of them.
--
-- ARGV[1] is the operation, ARGV[2] the time to live in ms, ARGV[3] the session, ARGV[4…] a limit for each key:
--   open    -> 0, and the session counts for every key; or the number of the key whose limit is reached
--   renew   -> 0
--   close   -> 0

local operation, ttl_ms, session = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

if operation == 'close' then
  for _, key in ipairs(KEYS) do redis.call('ZREM', key, session) end
  return 0
end

if operation == 'open' then
  for number, key in ipairs(KEYS) do
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    if redis.call('ZCARD', key) >= tonumber(ARGV[3 + number]) then return number end
  end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now_ms + ttl_ms, session)
  redis.call('PEXPIRE', key, ttl_ms)
end
return 0
