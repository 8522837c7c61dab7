"""MLServer and BentoML beside our server, each with XGBoost's model of `diabetes_xgboost` as it is.

They are installed into environments of their own below the folder that `PEERS_DIR` names, because what they need and
what the platform needs exclude each other. They are given rows as the model reads them and only have to ask it; our
server checks and transforms raw rows besides, and logs what it answers.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path

import numpy as np
from figures import report

from mlplatform.child_processes import free_port
from mlplatform.datamodule import Float32
from mlplatform.models.families.xgboost_tabular import XGBoostTabular
from mlplatform.registry import Forecaster, input_panel
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings
from prediction_server.load import Load, load
from prediction_server.servers import ROUNDS, SECONDS, TABLE, Server, bodies, ours, serving

CLIENTS = (1, 16, 64)
PACKAGES = {"MLServer": ("mlserver", "mlserver-xgboost"), "BentoML": ("bentoml",)}
_BENTO = '''"""XGBoost's model behind BentoML."""

import os

import bentoml
import numpy as np
import xgboost


@bentoml.service(workers=1)
class Plain:
    def __init__(self) -> None:
        self.booster = xgboost.Booster(model_file=os.environ["MODEL"])

    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[float]:
        return self.booster.inplace_predict(np.asarray(rows, np.float32)).tolist()
'''


def run() -> None:
    """Measure all servers in turn, round after round."""
    place = os.environ.get("PEERS_DIR")
    if not place:
        skipped = "name a folder for the peers' environments in PEERS_DIR"
        print(json.dumps({"benchmark": "serving", "case": "MLServer, BentoML", "skipped": skipped}))
        return
    installed = {
        name: _installed(Path(place).resolve() / name.lower(), packages) for name, packages in PACKAGES.items()
    }
    store = PairStore(Settings.from_env())
    pair = store.resolve(TABLE)
    forecaster = store.load(pair)
    samples = forecaster.preprocess(input_panel(pair.contract, store.example(pair)[0].head(1)))
    row = np.asarray(samples.values[:1], np.float32)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        asked = {
            "ours": (stack.enter_context(serving(ours(TABLE), "/health/ready")), "/predict", bodies()[TABLE]),
            "MLServer": (
                stack.enter_context(_mlserver(installed["MLServer"], folder / "mlserver", forecaster)),
                "/v2/models/plain/infer",
                _tensor(row),
            ),
            "BentoML": (
                stack.enter_context(_bentoml(installed["BentoML"], folder / "bentoml", forecaster)),
                "/predict",
                json.dumps({"rows": row.tolist()}).encode(),
            ),
        }
        for clients in CLIENTS:
            seen: dict[str, list[Load]] = {each: [] for each in asked}
            for _ in range(ROUNDS):
                for each, (server, path, body) in asked.items():
                    seen[each].append(load(server.url, path, body, clients, SECONDS, folder))
            _report(clients, seen)


def _report(clients: int, seen: Mapping[str, list[Load]]) -> None:
    rates = {name: statistics.median(each.rate for each in loads) for name, loads in seen.items()}
    latencies = {name: statistics.median(each.p50_ms for each in loads) for name, loads in seen.items()}
    for name in PACKAGES:
        case = f"{TABLE}, {clients} clients, ours"
        report("serving", case, rates["ours"], "1/s", peer=name, peer_value=rates[name])
        report("serving", f"{case}, p50", latencies["ours"], "ms", peer=name, peer_value=latencies[name])


def _installed(place: Path, packages: tuple[str, ...]) -> Path:
    """Return the folder of the commands of an environment that has the packages, made if there is none."""
    commands = place / "bin"
    if not (place / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        wanted = [*packages, f"xgboost=={version('xgboost')}"]
        subprocess.run([str(commands / "python"), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (place / "complete").touch()
    return commands


"""
"""


def _mlserver(commands: Path, folder: Path, forecaster: Forecaster) -> AbstractContextManager[Server]:
    """Serve the model from one process, as ours is."""
    model = {
        "name": "plain",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": str(_model_into(folder, forecaster))},
    }
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps({"parallel_workers": 0, "debug": False}))
    command = ["env", "MLSERVER_HTTP_PORT={port}", str(commands / "mlserver"), "start", str(folder)]
    own = {"MLSERVER_GRPC_PORT": str(free_port()), "MLSERVER_METRICS_PORT": str(free_port())}
    return serving(command, "/v2/health/ready", {**own, "PYTHONPATH": ""})


def _bentoml(commands: Path, folder: Path, forecaster: Forecaster) -> AbstractContextManager[Server]:
    own = {"BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    model = str(_model_into(folder, forecaster))
    (folder / "plain.py").write_text(_BENTO)
    command = [str(commands / "bentoml"), "serve", "plain:Plain", "--working-dir", str(folder), "--port", "{port}"]
    return serving(command, "/readyz", {**own, "MODEL": model, "PYTHONPATH": ""})


def _model_into(folder: Path, forecaster: Forecaster) -> Path:
    """Write the booster of a forecaster into a new folder and return its file."""
    model, file = forecaster.model, folder / "model.ubj"
    assert isinstance(model, XGBoostTabular)
    folder.mkdir()
    model.booster_.save_model(file)
    return file


def _tensor(row: Float32) -> bytes:
    """Return a request of the Open Inference Protocol."""
    tensor = {"name": "rows", "shape": list(row.shape), "datatype": "FP32", "data": row.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()
