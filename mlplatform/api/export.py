"""A registered pair as a folder that answers without the registry, with a small program to ask it."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.config import ConfigError, load_experiment
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

MODEL, RUNNER, CARD = "model", "predict.py", "pair.json"
PROGRAM = '''"""Ask the pair in this folder: python predict.py rows.csv [answers.csv]

The rows are raw: entity_id and event_timestamp for forecasts, and the columns that pair.json lists. Needs the Python
package mlplatform (base dependencies) and nothing else: no registry, no feature store, no network.
"""

import sys
from pathlib import Path

from mlplatform.api import answer_rows

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__)
try:
    table = answer_rows(Path(__file__).parent, sys.argv[1])
except (OSError, ValueError, RuntimeError) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
table.to_csv(sys.argv[2] if len(sys.argv) == 3 else sys.stdout, index=False)
'''


def export_pair(
    experiment: str, folder: str | Path, *, version: int | str = "production", settings: Settings | None = None
) -> Path:
    """Copy a pair, verified, into a new folder with a program that answers rows of a CSV file.

    Raises:
        ConfigError: if the experiment is unknown, or something is in the folder already.
        PairNotFoundError, PairIntegrityError: if there is no such pair, or it is not what was registered.
    """
    from mlplatform.registry.pairs import PairStore

    settings = settings or Settings.from_env()
    target = Path(folder).expanduser().resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not an empty folder; name one that is, or that is not there yet")
    config = load_experiment(experiment, settings=settings)
    store = PairStore.of_existing(settings)
    pair = store.resolve(config.registered_name, version)
    with store.copy(pair, "forecaster") as stored:
        shutil.copytree(stored, target / MODEL)
    contract = pair.contract
    card = {
        "experiment": experiment,
        "version": pair.version,
        "pair_id": pair.pair_id,
        "task": contract.task,
        "columns": list(contract.columns),
        "known_ahead": list(contract.known),
        "targets": list(contract.targets),
        "input_rows": contract.input_rows if contract.task == "forecast" else None,
        "horizon": contract.horizon if contract.task == "forecast" else None,
        "mlplatform": installed("mlplatform"),
    }
    (target / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
    (target / RUNNER).write_text(PROGRAM, encoding="utf-8")
    return target


def answer_rows(folder: str | Path, rows: str | Path) -> pd.DataFrame:
    """Return the answers of an exported pair to the rows of a CSV file, as the registered forecaster gives them.

    Raises:
        PairIntegrityError: if a file of the pair was changed since.
        ValueError: if a column is missing, or no series can be answered.
    """
    import pandas as pd

    from mlplatform.calendars import UTC, zone_of
    from mlplatform.config import ENTITY, TIMESTAMP
    from mlplatform.data import parse_local_times
    from mlplatform.registry import Forecaster, answer_batch, checked_folder

    stored = {path.name: str(path) for path in Path(folder, MODEL).iterdir()}
    forecaster = Forecaster.load(*(checked_folder(stored, role) for role in ("preprocessor", "model")))
    types = forecaster.preprocessor.columns
    as_text = [ENTITY, *(name for name, kind in types.items() if kind == "category")]
    table = pd.read_csv(rows, dtype=dict.fromkeys(as_text, "object"))
    if ENTITY in table and table[ENTITY].astype(str).str.fullmatch("0|-?[1-9][0-9]{0,17}").all():
        table[ENTITY] = table[ENTITY].astype("int64")
    if TIMESTAMP in table:
        contract = forecaster.contract
        zone = contract.calendar.zone if contract.task == "forecast" else zone_of(UTC)
        times = parse_local_times(table[TIMESTAMP], table.get(ENTITY), zone).times
        table[TIMESTAMP] = pd.to_datetime(times, utc=True)
    return answer_batch(forecaster, table)
