-- The registry of workers and leases. One script, called with an operation, so that each operation is one atomic round
-- trip. Times come from this server's clock (TIME), never from a client's.
--
-- KEYS[1] is the root `carillon:{fleet}:`; every key below starts with it, and its hash tag puts all of them into one
-- slot of a cluster.
--
--   workers        SET   ids of workers that may have a record
--   epochs         HASH  worker id -> the epoch of its latest start; never expires, so that an epoch is never reused
--   worker:<id>    STR   the worker's last heartbeat (JSON of app.core.models.Worker); expires after the worker's TTL
--   leases:<id>    ZSET  lease id -> when it expires, ms since 1970: one for each session at the worker
--   voices:<id>    HASH  lease id -> the adapter the session needs (`voice@version`); sessions without one are absent
--   background:<id> SET  those of the leases that have a spare place: interactive claims pass them over, and the worker
--                        then ends their sessions
--   pin:<lease>    STR   `<worker id> <epoch>`: where a session lives; expires with its lease
--   retired        ZSET  id of a deleted voice -> when, ms since 1970, each later than the one before: workers purge what
--                        they have of it. Kept for a day; whoever starts later than that has nothing of it
--
-- ARGV[1] is the operation, the rest its arguments:
--   join     id                                               -> epoch
--   beat     id epoch record_json record_ttl_ms lease_ttl_ms retired_since lease...
--                                                             -> [voice, retired_ms, ...] of the voices retired after
--                                                                retired_since (0 at first), earliest first; or
--                                                                nil when a later start has taken the id
--   leave    id epoch                                         -> 1, or 0 when a later start has taken the id
--   claim    id epoch lease adapter lease_ttl_ms kind         -> "claimed", or the reason it is refused:
--                                                                "gone" | "epoch" | "inactive" | "full" | "adapters"
--                                                                kind is "interactive" | "background"; the latter
--                                                                needs room beside everybody
--   release  id lease                                         -> 1 if there was such a lease
--   snapshot                                                  -> [[record_json, inflight, [adapter...],
--                                                                  background, [adapter...]]...]: the sessions and
--                                                                what they need, of interactive ones, and besides of
--                                                                background ones
--   retire   voice                                            -> 1

local root = KEYS[1]
local operation, id = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local retired_ttl_ms = 24 * 3600 * 1000

local function record_key(worker) return root .. 'worker:' .. worker end
local function leases_key(worker) return root .. 'leases:' .. worker end
local function voices_key(worker) return root .. 'voices:' .. worker end
local function background_key(worker) return root .. 'background:' .. worker end

local function prune(worker)
  local dead = redis.call('ZRANGEBYSCORE', leases_key(worker), '-inf', now_ms)
  for _, lease in ipairs(dead) do
    redis.call('ZREM', leases_key(worker), lease)
    redis.call('HDEL', voices_key(worker), lease)
    redis.call('SREM', background_key(worker), lease)
  end
end

-- What is held at a worker: the interactive sessions and the distinct adapters they need, the background sessions and
-- the adapters that only they need, and a table of all these adapters: "interactive" or "background".
local function held(worker)
  local spare, leases = {}, redis.call('SMEMBERS', background_key(worker))
  for _, lease in ipairs(leases) do spare[lease] = true end
  local interactive = { sessions = redis.call('ZCARD', leases_key(worker)) - #leases, adapters = {} }
  local background = { sessions = #leases, adapters = {} }
  local voices, holder = redis.call('HGETALL', voices_key(worker)), {}
  local function collect(list, kind, wanted)
    for i = 1, #voices, 2 do
      local lease, adapter = voices[i], voices[i + 1]
      if (spare[lease] or false) == wanted and not holder[adapter] then
        holder[adapter] = kind
        list[#list + 1] = adapter
      end
    end
  end
  collect(interactive.adapters, 'interactive', false)
  collect(background.adapters, 'background', true)
  return interactive, background, holder
end

local function forget(worker)
  redis.call('DEL', record_key(worker), leases_key(worker), voices_key(worker), background_key(worker))
  redis.call('SREM', root .. 'workers', worker)
end

local function current_epoch(worker)
  return tonumber(redis.call('HGET', root .. 'epochs', worker) or 0)
end

local function join()
  forget(id)
  return redis.call('HINCRBY', root .. 'epochs', id, 1)
end

local function beat()
  local epoch, record, record_ttl_ms, lease_ttl_ms = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
  local retired_since = ARGV[7]
  if current_epoch(id) > epoch then return false end
  redis.call('HSET', root .. 'epochs', id, epoch)
  redis.call('SADD', root .. 'workers', id)
  redis.call('SET', record_key(id), record, 'PX', record_ttl_ms)
  -- XX: a lease released a moment ago must not come back because this list is a moment old.
  for i = 8, #ARGV do
    redis.call('ZADD', leases_key(id), 'XX', now_ms + lease_ttl_ms, ARGV[i])
    redis.call('PEXPIRE', root .. 'pin:' .. ARGV[i], lease_ttl_ms)
  end
  prune(id)
  redis.call('PEXPIRE', leases_key(id), lease_ttl_ms)
  redis.call('PEXPIRE', voices_key(id), lease_ttl_ms)
  redis.call('PEXPIRE', background_key(id), lease_ttl_ms)
  return redis.call('ZRANGEBYSCORE', root .. 'retired', '(' .. retired_since, '+inf', 'WITHSCORES')
end

local function leave()
  if current_epoch(id) ~= tonumber(ARGV[3]) then return 0 end
  forget(id)
  return 1
end

local function claim()
  local epoch, lease, adapter, lease_ttl_ms = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
  local yields = ARGV[7] == 'background'
  local record = redis.call('GET', record_key(id))
  if not record then return 'gone' end
  local worker = cjson.decode(record)
  if worker.epoch ~= epoch then return 'epoch' end
  if worker.state ~= 'active' then return 'inactive' end
  prune(id)
  local interactive, background, holder = held(id)
  local sessions, slots = interactive.sessions, #interactive.adapters
  local has_slot = holder[adapter] == 'interactive'
  if yields then
    sessions, slots = sessions + background.sessions, slots + #background.adapters
    has_slot = holder[adapter] ~= nil
  end
  if sessions >= worker.capacity then return 'full' end
  if adapter ~= '' then
    if not has_slot and slots >= worker.max_voices then return 'adapters' end
    redis.call('HSET', voices_key(id), lease, adapter)
    redis.call('PEXPIRE', voices_key(id), lease_ttl_ms)
  end
  if yields then
    redis.call('SADD', background_key(id), lease)
    redis.call('PEXPIRE', background_key(id), lease_ttl_ms)
  end
  redis.call('ZADD', leases_key(id), now_ms + lease_ttl_ms, lease)
  redis.call('PEXPIRE', leases_key(id), lease_ttl_ms)
  redis.call('SET', root .. 'pin:' .. lease, id .. ' ' .. epoch, 'PX', lease_ttl_ms)
  return 'claimed'
end

local function release()
  local lease = ARGV[3]
  redis.call('HDEL', voices_key(id), lease)
  redis.call('SREM', background_key(id), lease)
  redis.call('DEL', root .. 'pin:' .. lease)
  return redis.call('ZREM', leases_key(id), lease)
end

local function snapshot()
  local found = {}
  for _, worker in ipairs(redis.call('SMEMBERS', root .. 'workers')) do
    local record = redis.call('GET', record_key(worker))
    if record then
      prune(worker)
      local interactive, background = held(worker)
      found[#found + 1] = {
        record, interactive.sessions, interactive.adapters, background.sessions, background.adapters,
      }
    else
      redis.call('SREM', root .. 'workers', worker)
    end
  end
  return found
end

local function retire()
  local key = root .. 'retired'
  local latest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  -- A worker asks for what is later than the latest it knows: two at one moment, or a clock set back, must not hide one.
  local retired_ms = math.max(now_ms, tonumber(latest or 0) + 1)
  redis.call('ZADD', key, retired_ms, id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms - retired_ttl_ms)
  redis.call('PEXPIRE', key, retired_ttl_ms)
  return 1
end

local operations = {
  join = join, beat = beat, leave = leave, claim = claim, release = release, snapshot = snapshot, retire = retire,
}
return operations[operation]()
