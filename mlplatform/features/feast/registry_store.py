"""Feast's file registry, written atomically.

Feast truncates the registry file and writes it anew, so a process that reads at that moment sees an empty registry.
Chosen in `feature_store.yaml` by class path (`registry.registry_store_type`); importing this module imports Feast.
"""

from __future__ import annotations

import uuid

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.utils import _utc_now

from mlplatform.storage import atomic_file


class AtomicFileRegistryStore(FileRegistryStore):
    """A registry file that readers find either as it was or as it is now."""

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(_utc_now())
        with atomic_file(self._filepath) as temporary:
            temporary.write_bytes(registry_proto.SerializeToString())
