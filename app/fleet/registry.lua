-- The registry of workers and leases. One script, called with an operation, so that each operation is one atomic round
-- trip. Times come from this server's clock (TIME), never from a client's.
--
-- KEYS[1] is the root `carillon:{fleet}:`; every key below starts with it, and its hash tag puts all of them into one
-- slot of a cluster.
--
--   workers        ZSET  worker id -> until when its record holds, ms since 1970
--   changes        ZSET  worker id -> when its record or its leases last changed, µs since 1970, each later than the one
--                        before: a front door fetches what is later than it knows. The id "" is for the workers
--                        themselves: when one last came or went
--   epochs         HASH  worker id -> the epoch of its latest start; never expires, so that an epoch is never reused.
--                        An epoch is at least the time of its start, ms since 1970: nor is it after a flush
--   worker:<id>    STR   the worker's last heartbeat (JSON of app.fleet.worker.Worker); expires after the worker's TTL
--   leases:<id>    ZSET  lease id -> when it expires, ms since 1970: one for each session at the worker
--   voices:<id>    HASH  lease id -> the adapter the session needs (`voice@version`); sessions without one are absent
--   background:<id> SET  those of the leases that have a spare place: interactive claims pass them over, and the worker
--                        then ends their sessions
--   drains         HASH  worker id -> until when its sessions may go on, ms since 1970. Such a worker is no longer
--                        active, whatever its record says; its next heartbeat returns it. Until it is gone
--   retired        ZSET  id of a deleted voice -> when, ms since 1970, each later than the one before: workers purge what
--                        they have of it. Kept for a day; a worker that starts later has nothing of it
--   checkpoint:<model> STR the checkpoint that the model's living workers hold; expires with the last of their records
--   demand:<model> ZSET  adapter -> the interactive claims for it, each counting half as much every ten minutes
--   versions:<model> HASH adapter -> its AdapterVersion (JSON), for a worker that has never seen it
--   faded:<model>  STR   when `demand` was last brought up to date, ms since 1970. The three have the same adapters, of
--                        which the least demanded are dropped; they expire a day after the last claim
--
-- Beside these there is `journal:<hash>` for each resumable session: see journals.lua.
--
-- ARGV[1] is the operation, the rest its arguments:
--   join     id                                               -> epoch
--   beat     id epoch record_json record_ttl_ms lease_ttl_ms retired_since model checkpoint, and for each session:
--            lease adapter how
--                                                             -> [[voice, retired_ms, ...] of the voices retired after
--                                                                retired_since (0 at first), earliest first;
--                                                                [lease...] that are not known here;
--                                                                ms until a drain's deadline, or nil without one]; or
--                                                                nil when a later start has taken the id; or
--                                                                "checkpoint" when others of this model have another
--                                                                how is "interactive" | "background": renew the lease,
--                                                                or one of these and "!": bring it back if need be. All
--                                                                are brought back when there is no record of the worker
--   leave    id epoch                                         -> 1, or 0 when a later start has taken the id
--   claim    id epoch lease adapter lease_ttl_ms kind bound version_json
--                                                             -> ["claimed", or the reason it is refused:
--                                                                "gone" | "epoch" | "inactive" | "full" | "adapters" |
--                                                                "over"; the sessions found there]
--                                                                kind is "interactive" | "background"; the latter
--                                                                needs room beside all others. bound is how many
--                                                                sessions there may be, "" for as many as places
--   release  id lease                                         -> 1 if there was such a lease
--   drain    id deadline_ms epoch                             -> [epoch, ms until the deadline, whether the worker's
--                                                                record says that it drains], of an earlier order if
--                                                                there is one, the second nil if the worker drains of
--                                                                itself; nil if there is no such worker, or it is
--                                                                in another epoch than this ("" for any)
--   snapshot changed_since                                    -> [the latest change; [id...] of all workers, or nil if
--                                                                none came or went after changed_since (0 for all), as
--                                                                JSON; as JSON too, for one text is quicker read than a
--                                                                thousand values, [[id, record_json, inflight,
--                                                                [adapter...], background, [adapter...],
--                                                                drains 0|1]...] of those
--                                                                changed after it: the sessions and what they need,
--                                                                of interactive ones, and besides of background ones].
--                                                                A lease that was not renewed counts until the
--                                                                worker's next beat
--   retire   voice                                            -> 1
--   most_demanded model                                       -> [version_json...], the most demanded first, without
--                                                                those of retired voices

local root = KEYS[1]
local operation, id = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)
local day_ms = 24 * 3600 * 1000
local demand_half_life_ms = 600 * 1000
local demand_fades_every_ms = 60 * 1000
local demand_kept, demand_most = 1000, 2000

local function record_key(worker) return root .. 'worker:' .. worker end
local function leases_key(worker) return root .. 'leases:' .. worker end
local function voices_key(worker) return root .. 'voices:' .. worker end
local function background_key(worker) return root .. 'background:' .. worker end

local function whole(number) return string.format('%.0f', number) end

local function latest_change()
  return tonumber(redis.call('ZREVRANGE', root .. 'changes', 0, 0, 'WITHSCORES')[2] or 0)
end

local function touch(worker)
  redis.call('ZADD', root .. 'changes', whole(math.max(now_us, latest_change() + 1)), worker)
end

local function prune(worker)
  local dead = redis.call('ZRANGEBYSCORE', leases_key(worker), '-inf', now_ms)
  if #dead > 0 then touch(worker) end
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

local function strike_off(worker)
  redis.call('ZREM', root .. 'workers', worker)
  redis.call('ZREM', root .. 'changes', worker)
  redis.call('HDEL', root .. 'drains', worker)
  touch('')
end

local function forget(worker)
  redis.call('DEL', record_key(worker), leases_key(worker), voices_key(worker), background_key(worker))
  strike_off(worker)
end

local function current_epoch(worker)
  return tonumber(redis.call('HGET', root .. 'epochs', worker) or 0)
end

local function drains_until(worker)
  return tonumber(redis.call('HGET', root .. 'drains', worker) or nil)
end

local function join()
  local epoch = math.max(current_epoch(id) + 1, now_ms)
  forget(id)
  redis.call('HSET', root .. 'epochs', id, epoch)
  return epoch
end

local function hold(worker, lease, adapter, yields, lease_ttl_ms)
  redis.call('ZADD', leases_key(worker), now_ms + lease_ttl_ms, lease)
  if adapter ~= '' then redis.call('HSET', voices_key(worker), lease, adapter) end
  if yields then redis.call('SADD', background_key(worker), lease) end
  touch(worker)
end

local function keep(worker, lease_ttl_ms)
  redis.call('PEXPIRE', leases_key(worker), lease_ttl_ms)
  redis.call('PEXPIRE', voices_key(worker), lease_ttl_ms)
  redis.call('PEXPIRE', background_key(worker), lease_ttl_ms)
end

local function beat()
  local epoch, record, record_ttl_ms, lease_ttl_ms = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
  local retired_since, model, checkpoint = ARGV[7], ARGV[8], ARGV[9]
  if current_epoch(id) > epoch then return false end
  if checkpoint ~= '' then
    local theirs = redis.call('GET', root .. 'checkpoint:' .. model)
    if theirs and theirs ~= checkpoint then return 'checkpoint' end
    redis.call('SET', root .. 'checkpoint:' .. model, checkpoint, 'PX', record_ttl_ms)
  end
  local lost = tonumber(redis.call('ZSCORE', root .. 'workers', id) or 0) <= now_ms
  if lost then touch('') end
  if lost or redis.call('GET', record_key(id)) ~= record then touch(id) end
  redis.call('HSET', root .. 'epochs', id, epoch)
  redis.call('ZADD', root .. 'workers', now_ms + record_ttl_ms, id)
  redis.call('SET', record_key(id), record, 'PX', record_ttl_ms)
  local unknown = {}
  for i = 10, #ARGV, 3 do
    local lease, adapter, how = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local yields, again = how:sub(1, 10) == 'background', how:sub(-1) == '!'
    if redis.call('ZSCORE', leases_key(id), lease) then
      redis.call('ZADD', leases_key(id), now_ms + lease_ttl_ms, lease)
    elseif lost or again then
      hold(id, lease, adapter, yields, lease_ttl_ms)
    else
      -- A lease released a moment ago must not come back because this list is a moment old.
      unknown[#unknown + 1] = lease
    end
  end
  prune(id)
  keep(id, lease_ttl_ms)
  local retired = redis.call('ZRANGEBYSCORE', root .. 'retired', '(' .. retired_since, '+inf', 'WITHSCORES')
  local until_ms = drains_until(id)
  return { retired, unknown, until_ms and math.max(0, until_ms - now_ms) or false }
end

local function leave()
  if current_epoch(id) ~= tonumber(ARGV[3]) then return 0 end
  forget(id)
  return 1
end

-- Drop what is least demanded. `versions` follows `demand`.
local function tidy(demand, versions)
  redis.call('ZREMRANGEBYRANK', demand, 0, -demand_kept - 1)
  redis.call('ZREMRANGEBYSCORE', demand, '-inf', 0.01)
  for _, adapter in ipairs(redis.call('HKEYS', versions)) do
    if not redis.call('ZSCORE', demand, adapter) then redis.call('HDEL', versions, adapter) end
  end
end

local function want(model, adapter, version_json)
  local demand, versions = root .. 'demand:' .. model, root .. 'versions:' .. model
  local faded = root .. 'faded:' .. model
  local elapsed_ms = now_ms - tonumber(redis.call('GET', faded) or 0)
  if elapsed_ms >= demand_fades_every_ms then
    local weight = string.format('%.9f', 0.5 ^ (elapsed_ms / demand_half_life_ms))
    redis.call('ZUNIONSTORE', demand, 1, demand, 'WEIGHTS', weight)
    redis.call('SET', faded, whole(now_ms))
    tidy(demand, versions)
  end
  redis.call('ZINCRBY', demand, 1, adapter)
  redis.call('HSETNX', versions, adapter, version_json)
  if redis.call('ZCARD', demand) > demand_most then tidy(demand, versions) end
  for _, key in ipairs({ demand, versions, faded }) do redis.call('PEXPIRE', key, day_ms) end
end

local function most_demanded()
  local demand, versions, found = root .. 'demand:' .. id, root .. 'versions:' .. id, {}
  for _, adapter in ipairs(redis.call('ZREVRANGE', demand, 0, demand_kept - 1)) do
    local voice, version_json = adapter:match('^(.*)@'), redis.call('HGET', versions, adapter)
    if version_json and not redis.call('ZSCORE', root .. 'retired', voice) then found[#found + 1] = version_json end
  end
  return found
end

local function claim()
  local epoch, lease, adapter, lease_ttl_ms = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
  local yields, bound, version_json = ARGV[7] == 'background', tonumber(ARGV[8]), ARGV[9]
  local record = redis.call('GET', record_key(id))
  if not record then return { 'gone', 0 } end
  local worker = cjson.decode(record)
  if worker.epoch ~= epoch then return { 'epoch', 0 } end
  if worker.state ~= 'active' or drains_until(id) then return { 'inactive', 0 } end
  prune(id)
  local interactive, background, holder = held(id)
  local sessions, slots = interactive.sessions, #interactive.adapters
  local has_slot = holder[adapter] == 'interactive'
  if yields then
    sessions, slots = sessions + background.sessions, slots + #background.adapters
    has_slot = holder[adapter] ~= nil
  end
  if redis.call('ZSCORE', leases_key(id), lease) then return { 'claimed', sessions } end  -- repeated
  if sessions >= worker.capacity then return { 'full', sessions } end
  if bound and sessions >= bound then return { 'over', sessions } end
  if adapter ~= '' and not has_slot and slots >= worker.max_voices then return { 'adapters', sessions } end
  hold(id, lease, adapter, yields, lease_ttl_ms)
  keep(id, lease_ttl_ms)
  if adapter ~= '' and not yields then want(worker.model.name, adapter, version_json) end
  return { 'claimed', sessions + 1 }
end

local function drain()
  local record = redis.call('GET', record_key(id))
  if not record then return false end
  local worker, until_ms = cjson.decode(record), drains_until(id)
  if ARGV[4] ~= '' and worker.epoch ~= tonumber(ARGV[4]) then return false end
  if not until_ms then
    if worker.state == 'draining' then return { worker.epoch, false, 1 } end
    until_ms = now_ms + tonumber(ARGV[3])
    redis.call('HSET', root .. 'drains', id, whole(until_ms))
    redis.call('PEXPIRE', root .. 'drains', day_ms)
    touch(id)
  end
  return { worker.epoch, math.max(0, until_ms - now_ms), worker.state == 'draining' and 1 or 0 }
end

local function release()
  local lease = ARGV[3]
  redis.call('HDEL', voices_key(id), lease)
  redis.call('SREM', background_key(id), lease)
  local held_here = redis.call('ZREM', leases_key(id), lease)
  if held_here == 1 then touch(id) end
  return held_here
end

-- Of the order of what has changed, not of the fleet: front doors refresh twice a second.
local function snapshot()
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', root .. 'workers', '-inf', now_ms)) do
    strike_off(worker)
  end
  local rows = {}
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', root .. 'changes', '(' .. id, '+inf')) do
    local record = worker ~= '' and redis.call('GET', record_key(worker))
    if record then
      local interactive, background = held(worker)
      rows[#rows + 1] = {
        worker, record, interactive.sessions, interactive.adapters, background.sessions, background.adapters,
        redis.call('HEXISTS', root .. 'drains', worker),
      }
    end
  end
  local same = tonumber(redis.call('ZSCORE', root .. 'changes', '') or 0) <= tonumber(id) and tonumber(id) > 0
  local ids = not same and cjson.encode(redis.call('ZRANGE', root .. 'workers', 0, -1))
  return { latest_change(), ids, cjson.encode(rows) }
end

local function retire()
  local key = root .. 'retired'
  local latest = redis.call('ZREVRANGE', key, 0, 0, 'WITHSCORES')[2]
  -- A worker fetches what is later than the latest it knows: two at one moment, or a clock set back, must not hide one.
  local retired_ms = math.max(now_ms, tonumber(latest or 0) + 1)
  redis.call('ZADD', key, retired_ms, id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms - day_ms)
  redis.call('PEXPIRE', key, day_ms)
  return 1
end

local operations = {
  join = join, beat = beat, leave = leave, claim = claim, release = release, drain = drain, snapshot = snapshot,
  retire = retire, most_demanded = most_demanded,
}
return operations[operation]()
