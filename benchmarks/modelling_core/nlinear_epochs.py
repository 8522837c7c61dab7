"""Epochs per second of NLinear, beside neuralforecast's NLinear on the same windows, batches, steps and thread.

The clock of the peer runs over its training loop, ours over the whole fit.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import Any

from mlplatform.datamodule import WindowSamples
from mlplatform.models import FitOptions, create_model
from mlplatform.training import trainer_for

LOOKBACK, HORIZON = 336, 96
CASES = ((7, 32), (7, 256), (1, 32), (1, 256))
ROUNDS, AIM = 3, 3.0
# Enough for a steady pace; an epoch of the peer is this many steps, scaled.
PEER_STEPS = 40


def main() -> None:
    """Report epochs per second for all columns and for the oil temperature, at two batch sizes."""
    import torch
    from figures import report

    from modelling_core.etth1_data import parts, spec_of

    torch.set_num_threads(1)
    for columns, batch in CASES:
        samples = parts(LOOKBACK, HORIZON, None if columns == 7 else ["OT"])["train"]
        steps = math.ceil(len(samples) / batch)
        ours, theirs = [], []
        for seed in range(ROUNDS):
            model = create_model("nlinear", {"batch_size": batch}, spec_of(samples))
            began = time.perf_counter()
            trainer_for(model).fit(model, samples, None, FitOptions(iterations=(1,), seed=seed))
            ours.append(1 / (time.perf_counter() - began))
            theirs.append(PEER_STEPS / steps / _peer_seconds(samples, batch * columns, PEER_STEPS))
        value, peer = statistics.median(ours), statistics.median(theirs)
        case = f"NLinear, ETTh1, lookback {LOOKBACK}, horizon {HORIZON}, {columns} columns, batch {batch}"
        report("nlinear_epochs", case, value, "epochs/s", peer="neuralforecast NLinear", peer_value=peer,
               aim=f">= {AIM} times the peer", met=value >= AIM * peer)  # fmt: skip


def _peer_seconds(samples: WindowSamples, windows_per_step: int, steps: int) -> float:
    """Return the seconds of the peer's training loop over `steps` steps; every column is a series of its own."""
    import pandas as pd
    from neuralforecast import NeuralForecast  # type: ignore[import-untyped]
    from neuralforecast.models import NLinear  # type: ignore[import-untyped]
    from pytorch_lightning import Callback  # type: ignore[import-untyped]

    from modelling_core.etth1_data import BORDERS

    # Outside the callback, which the peer copies together with its model.
    marks: list[float] = []

    class _Clock(Callback):  # type: ignore[misc]
        def on_train_start(self, *_: Any) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *_: Any) -> None:
            marks.append(time.perf_counter())

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    rows = slice(*BORDERS["train"])
    frame = pd.DataFrame(samples.values[rows], index=samples.timestamps[rows], columns=list(samples.channels))
    long = frame.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    model = NLinear(h=HORIZON, input_size=LOOKBACK, max_steps=steps, learning_rate=0.005, scaler_type="identity",
                    batch_size=len(frame.columns), windows_batch_size=windows_per_step, accelerator="cpu",
                    logger=False, enable_checkpointing=False, enable_progress_bar=False,
                    enable_model_summary=False, callbacks=[_Clock()])  # fmt: skip
    NeuralForecast([model], freq="h").fit(long)
    began, ended = marks
    return ended - began


if __name__ == "__main__":
    main()
