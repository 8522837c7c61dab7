from .materialize import materialize_online, materialized_entities
from .push import push_rows
from .read import Entities, check_columns, check_entity_types, read_rows, read_windows
from .removal import remove_online

__all__ = [
    "Entities",
    "check_columns",
    "check_entity_types",
    "materialize_online",
    "materialized_entities",
    "push_rows",
    "read_rows",
    "read_windows",
    "remove_online",
]
