"""Feast's Redis online store, which keeps the newer row of an entity, and refuses writers whose lock has passed on.

Feast's own store either replaces newer rows by older ones (`skip_dedup: true`), or reads all event times first and
drops corrected rows of the same time; between its read and its write others may write. Here the server compares and
writes in one step per entity. What is stored is Feast's own format, so its type `redis` reads and writes the same rows.
Chosen in `feature_store.yaml` by class path (`online_store.type`); importing this module imports Feast and redis-py.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from feast import FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3 as field_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig
from feast.utils import make_tzaware
from google.protobuf.timestamp_pb2 import Timestamp

from mlplatform.features.feast import Fence, lapsed
from mlplatform.features.online.removal import without_removed

ClassPath = Literal["mlplatform.features.online.redis_store.WindowRedisOnlineStore"]
OnlineRow = tuple[EntityKey, dict[str, Value], dt.datetime, dt.datetime | None]

# Answers of the script; a positive one is the place of the fence that refused.
WRITTEN, KEPT = 0, -1
# Keys: the entity's hash, then the counters of the fences. Arguments: field and content of the event time, whether to
# keep newer rows, seconds to live (0: for ever), the fences' numbers, then field and content of every feature.
WRITE = """
-- Seconds and nanoseconds of a serialised google.protobuf.Timestamp. Its numbers are in groups of seven bits, the
-- lowest first; negative ones take ten groups, whose complement is summed up: a double is exact up to 2^53 only.
local function moment(message)
    local parts, at = {0, 0}, 1
    while at <= #message do
        local field = math.floor(string.byte(message, at) / 8)
        local sum, complement, unit, groups, byte = 0, 0, 1, 0, 0
        repeat
            at, groups = at + 1, groups + 1
            byte = string.byte(message, at)
            if groups < 10 then
                sum = sum + byte % 128 * unit
                complement = complement + (127 - byte % 128) * unit
                unit = unit * 128
            end
        until byte < 128
        parts[field] = groups < 10 and sum or -1 - complement
        at = at + 1
    end
    return parts[1], parts[2]
end

local fences = #KEYS - 1
for fence = 1, fences do
    if redis.call('GET', KEYS[1 + fence]) ~= ARGV[4 + fence] then
        return fence
    end
end
if ARGV[3] == '1' then
    local stored = redis.call('HGET', KEYS[1], ARGV[1])
    -- The time 0 without content is that of an entity that was taken out.
    if stored and stored ~= '' then
        local stored_s, stored_ns = moment(stored)
        local new_s, new_ns = moment(ARGV[2])
        if new_s < stored_s or new_s == stored_s and new_ns < stored_ns then
            return -1
        end
    end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
for first = 5 + fences, #ARGV, 1000 do
    redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
if ARGV[4] ~= '0' then
    redis.call('EXPIRE', KEYS[1], ARGV[4])
end
return 0
"""


class WindowRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The `online_store` section of `feature_store.yaml`; as for type `redis`, but `skip_dedup` has no effect."""

    type: ClassPath = "mlplatform.features.online.redis_store.WindowRedisOnlineStore"  # type: ignore[assignment]


class WindowRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis online store with writes that the server decides about."""

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows; one that is older than what is stored of its entity is left out.

        Rows that were pushed are newer than those that Feast materialises from the table afterwards. Entities that
        their source has removed since are left out, too.
        """
        self._write(config, _calls(config, table, without_removed(table, data), keep_newer=True))
        if progress is not None:
            progress(len(data))

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows as `online_write_batch` does."""
        client = await self._get_client_async(config.online_store)
        async with client.pipeline(transaction=False) as pipe:
            for call in _calls(config, table, without_removed(table, data), keep_newer=True):
                pipe.eval(WRITE, *call)
            await pipe.execute()
        if progress is not None:
            progress(len(data))

    def overwrite(
        self, config: RepoConfig, table: FeatureView, data: list[OnlineRow], fences: Sequence[Fence] = ()
    ) -> None:
        """Write rows whatever is stored: for callers that have compared them, or want them back.

        Raises:
            FeatureStoreError: if another one has held a lock since the caller took it; the server has written no row
                since.
        """
        answers = self._write(config, _calls(config, table, data, keep_newer=False, fences=fences))
        refused = max(answers, default=WRITTEN)
        if refused > WRITTEN:
            raise lapsed(fences[refused - 1].lock)

    def _write(self, config: RepoConfig, calls: Iterator[list[Any]]) -> list[int]:
        # With the text of the script in every call it works on clusters too, which take no digests in pipelines, and on
        # servers that restart. Beside a window the text is short.
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.eval(WRITE, *call)
            answers: list[int] = pipe.execute()
        return answers


def _calls(
    config: RepoConfig, table: FeatureView, data: list[OnlineRow], *, keep_newer: bool, fences: Sequence[Fence] = ()
) -> Iterator[list[Any]]:
    """Yield number of keys, keys and arguments of the script for every row."""
    view = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    project = config.project.encode()
    names = {name for _, values, _, _ in data for name in values}
    fields = {name: field_key(f"{view}:{name}") for name in names}
    counters = [fence.key for fence in fences]
    settings = [int(keep_newer), config.online_store.key_ttl_seconds or 0, *(fence.number for fence in fences)]
    for key, values, event_time, _ in data:
        entity = serialize_entity_key(key, entity_key_serialization_version=config.entity_key_serialization_version)
        moment = Timestamp()
        moment.FromDatetime(make_tzaware(event_time))
        call = [1 + len(counters), entity + project, *counters, f"_ts:{view}", moment.SerializeToString(), *settings]
        for name, value in values.items():
            call += [fields[name], value.SerializeToString()]
        yield call
