"""A stored state unpacked into a folder of its own, where it works as the installation it was.

Paths of the installation stand in MLflow's database and in Feast's registry, and are replaced by the new ones. They
also stand in the file `MLmodel` of every registered model, which is covered by the pair's digests and stays as it was;
nothing reads them there.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.feast_import import import_feast
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings
from mlplatform_tests.compatibility.make_state import environ, versions

BEFORE_ROOMS = Path(__file__).with_name("state_before_rooms.tar.xz")


@dataclass(frozen=True)
class StoredState:
    """An unpacked state.

    Attributes:
        root: the folder with everything.
        made_by: versions of Python and libraries, and the kind of processor, that it was made with.
    """

    root: Path
    made_by: dict[str, str]

    @classmethod
    def unpack(cls, archive: Path, root: Path) -> StoredState:
        """Unpack an archive into an empty folder and replace the paths in it."""
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
        made_by = json.loads((root / "made_by.json").read_text())
        made_in = made_by.pop("root")
        replace_in_database(root / "home" / "mlflow" / "mlflow.db", made_in, str(root))
        replace_in_registry(root / "home" / "feast" / "registry.db", made_in, str(root))
        return cls(root, made_by)

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables of the installation."""
        return {
            **environ(self.root),
            # Spelled out, because MLflow keeps the server it was last pointed at in the environment of the process.
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.root / 'home' / 'mlflow' / 'mlflow.db'}",
        }

    @property
    def settings(self) -> Settings:
        """The installation's settings."""
        return Settings.from_env(self.environ)

    @property
    def pairs(self) -> PairStore:
        """The model registry."""
        return PairStore(self.settings)

    @property
    def note(self) -> str:
        """What to think of first when bits differ: with what the state was made, and what is otherwise here."""
        here = versions()
        differing = [f"{name} {then}, here {here[name]}" for name, then in self.made_by.items() if here[name] != then]
        made_with = ", ".join(f"{name} {then}" for name, then in self.made_by.items())
        return f"the state was made with {made_with}; otherwise here: {'; '.join(differing) or 'nothing'}"

    @property
    def expected(self) -> Path:
        """The folder with what was read from the state when it was made."""
        return self.root / "expected"


def replace_in_database(path: Path, old: str, new: str) -> None:
    """Replace a text in all columns of a SQLite database."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                connection.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?1, ?2) '  # noqa: S608  (names from SQLite)
                    f'WHERE typeof("{column}") = \'text\' AND instr("{column}", ?1)',
                    (old, new),
                )


def replace_in_registry(path: Path, old: str, new: str) -> None:
    """Replace a text in all fields of Feast's registry file."""
    import_feast()
    from feast.protos.feast.core.Registry_pb2 import Registry

    registry = Registry.FromString(path.read_bytes())
    _replace_in_message(registry, old, new)
    path.write_bytes(registry.SerializeToString())


def _replace_in_message(message: Any, old: str, new: str) -> None:
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, value.replace(old, new))
        elif field.type == field.TYPE_MESSAGE and not field.message_type.GetOptions().map_entry:
            for item in value if field.is_repeated else (value,):
                _replace_in_message(item, old, new)
