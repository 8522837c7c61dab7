"""A prediction server runs where only the base dependencies are installed: no Dagster, Optuna, DVC, Kafka or Ray."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from mlplatform_tests.serving.conftest import TOKEN, Platform
from mlplatform_tests.serving.servers import in_process

# The packages of the extras `training`, `sources`, `redis`, `ray` and `signing`, by the names they are imported by.
# matplotlib and tqdm are missing, because MLflow and Feast bring them.
EXTRAS = (
    "dagster",
    "dagster_mlflow",
    "dvc",
    "optuna",
    "confluent_kafka",
    "psycopg",
    "pymysql",
    "redis",
    "ray",
    "model_signing",
    "sigstore",
)

BLOCK = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


@pytest.mark.integration
def test_a_server_answers_without_the_packages_of_the_extras(platform: Platform, tmp_path: Path) -> None:
    # Python runs a module of this name when it starts, before anything else.
    (tmp_path / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environ = {**platform.environ, "PYTHONPATH": path}
    with (
        in_process("serving.local", environ, tmp_path / "log", "--experiment", "tiny_forecast") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        rows = client.post("/predict", json={"rows": platform.rows()})
        stored = client.post("/predict/feast/batch", json={"entities": [1, 2]})
        headers = {"authorization": f"Bearer {TOKEN}"}
        # What is stored already, so that other tests find it as it was.
        pushed = client.post("/features/push", json={"rows": platform.rows(3)}, headers=headers)
    assert rows.status_code == 200, rows.text
    assert stored.status_code == 200, stored.text
    assert len(stored.json()["forecasts"]) == 2
    assert pushed.status_code == 200, pushed.text
    assert (pushed.json()["stored"], pushed.json()["entities"]) == (3, 0)
