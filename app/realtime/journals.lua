-- Journals of resumable sessions. One script, called with an operation, so that each operation is one atomic round trip.
--
-- Each of KEYS is `carillon:{fleet}:journal:<SHA-256 of the session's token, in hexadecimal>`, a HASH; its hash tag is
-- the registry's, so that one server of a cluster has all of them. It expires when it is not renewed.
--   owner    `<how often the session was resumed>:<the connection that has it>`: what a former owner writes is refused,
--            also if it is the first to write after Redis has lost everything. "" once the session has ended: what its
--            former owners write is refused for as long as they may live
--   key      id of the API key it was started with; "" where none is required
--   start    JSON of app.realtime.journal_store.Beginning
--   sent     the sample up to which audio was sent
--   journal  app.realtime.journal.Journal.record: the text not yet spoken, and what was spoken in the last seconds
--
-- ARGV[1] is the operation, ARGV[2] the time to live in ms, the rest its arguments:
--   write  and for each key: owner key start sent journal  -> for each key 1, or 0 when another one has the session. It
--                                                             ends with a journal of ""
--   renew  and for each key: owner                         -> for each key 1, 0 when another one has the session, or -1
--                                                             when it is to be written again
--   take   connection key                                  -> [owner, former owner, start, sent, journal]; nil if there
--                                                             is no such session, or it was started with another key

local operation, ttl_ms = ARGV[1], ARGV[2]

local function count(owner)
  return tonumber(owner:match('^(%d+):')) or math.huge
end

local function has_it(present, owner)
  return not present or present == owner or count(owner) > count(present)
end

local function written(name, at)
  if not has_it(redis.call('HGET', name, 'owner'), ARGV[at]) then return 0 end
  if ARGV[at + 4] == '' then
    redis.call('DEL', name)
    redis.call('HSET', name, 'owner', '')
  else
    redis.call('HSET', name, 'owner', ARGV[at], 'key', ARGV[at + 1], 'start', ARGV[at + 2], 'sent', ARGV[at + 3],
      'journal', ARGV[at + 4])
  end
  redis.call('PEXPIRE', name, ttl_ms)
  return 1
end

local function renewed(name, owner)
  local present = redis.call('HGET', name, 'owner')
  if not has_it(present, owner) then return 0 end
  if present ~= owner then return -1 end
  redis.call('PEXPIRE', name, ttl_ms)
  return 1
end

local function taken(name, connection, key)
  local former, its_key, start, sent, journal =
    unpack(redis.call('HMGET', name, 'owner', 'key', 'start', 'sent', 'journal'))
  if not journal or its_key ~= key then return nil end
  local owner = string.format('%d:%s', count(former) + 1, connection)
  redis.call('HSET', name, 'owner', owner)
  redis.call('PEXPIRE', name, ttl_ms)
  return { owner, former, start, sent, journal }
end

if operation == 'take' then return taken(KEYS[1], ARGV[3], ARGV[4]) end
local answers = {}
for number, name in ipairs(KEYS) do
  if operation == 'write' then
    answers[number] = written(name, 3 + (number - 1) * 5)
  else
    answers[number] = renewed(name, ARGV[2 + number])
  end
end
return answers
