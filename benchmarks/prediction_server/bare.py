"""The limit: a FastAPI handler that does nothing but read JSON, predict with the same model and write JSON.

It checks nothing, imputes nothing, logs nothing and counts nothing. Run as `python bare.py <experiment> <port>`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from mlplatform.config import TIMESTAMP
from mlplatform.datamodule import Panel
from mlplatform.registry.pairs import PairStore
from mlplatform.settings import Settings


def main(experiment: str, port: int) -> None:
    """Serve the production pair of an experiment."""
    store = PairStore(Settings.from_env())
    forecaster = store.load(store.resolve(experiment))
    contract, types = forecaster.contract, forecaster.preprocessor.columns
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        rows: list[dict[str, Any]] = orjson.loads(await request.body())["rows"]
        columns = {
            name: np.array([row[name] for row in rows], dtype=object if types[name] == "category" else np.float32)
            for name in contract.columns
        }
        is_forecast = contract.task == "forecast"
        times = [row[TIMESTAMP][:19] for row in rows] if is_forecast else ["NaT"] * len(rows)
        offsets = [0, len(rows)] if is_forecast else range(len(rows) + 1)
        ids = np.arange(len(offsets) - 1)
        panel = Panel(columns, np.array(times, dtype="datetime64[ns]"), ids, np.array(offsets, dtype=np.int64))
        answer = orjson.dumps({"values": forecaster.predict(panel)}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    uvicorn.run(app, port=port, access_log=False, log_level="error")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
