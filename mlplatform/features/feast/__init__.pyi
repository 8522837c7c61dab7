from .definitions import build_definitions, features_view_name, push_source_name, windows_view_name
from .leases import Fence, Lease, lapsed
from .online_servers import OnlineServer, online_server
from .registry import registry_errors, registry_lock
from .repository import Registered, apply_dataset, keep_registry, open_store, registered
from .values import StoredArrays, array_values, key_values, scalar_values, stack_scalars

__all__ = [
    "Fence",
    "Lease",
    "OnlineServer",
    "Registered",
    "StoredArrays",
    "apply_dataset",
    "array_values",
    "build_definitions",
    "features_view_name",
    "keep_registry",
    "key_values",
    "lapsed",
    "online_server",
    "open_store",
    "push_source_name",
    "registered",
    "registry_errors",
    "registry_lock",
    "scalar_values",
    "stack_scalars",
    "windows_view_name",
]
