"""Windows per second and memory of batches for training, beside pytorch-forecasting's data loader.

Each side runs in a process of its own; its memory is the growth of the peak after imports and reading the file.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from itertools import islice

import numpy as np

from mlplatform.datamodule import WindowSamples

LOOKBACK, HORIZON, BATCH = 168, 24, 64
OUR_EPOCHS, PEER_BATCHES = 5, 20
AIM = 50.0


def main() -> None:
    """Report both."""
    from figures import report

    context = multiprocessing.get_context("spawn")
    found = []
    for side in ("ours", "peer"):
        with context.Pool(1) as pool:
            found.append(pool.apply(_measure, (side,)))
    (speed, memory), (peer_speed, peer_memory) = found
    case, peer = (
        f"ETTh1, lookback {LOOKBACK}, horizon {HORIZON}, batch {BATCH}",
        "pytorch-forecasting TimeSeriesDataSet",
    )
    report("windows", f"{case}: batches for training", speed, "windows/s", peer=peer, peer_value=peer_speed,
           aim=f">= {AIM:.0f} times the peer", met=speed >= AIM * peer_speed)  # fmt: skip
    report("windows", f"{case}: growth of peak memory", memory, "MB", peer=peer, peer_value=peer_memory)


def _measure(side: str) -> tuple[float, float]:
    """Return windows per second and megabytes."""
    import torch

    from modelling_core.etth1_data import parts
    from modelling_core.size import peak_gb

    torch.set_num_threads(1)
    samples = parts(LOOKBACK, HORIZON, targets=("OT",))["train"]
    run = {"ours": _ours, "peer": _peer}[side](samples)
    before = peak_gb()
    speed = run()
    return speed, (peak_gb() - before) * 1024


def _ours(samples: WindowSamples) -> Callable[[], float]:
    import torch

    from mlplatform.models.networks import WindowTensors

    def run() -> float:
        tensors = WindowTensors(samples, with_calendar=True)
        began, count = time.perf_counter(), 0
        for _ in range(OUR_EPOCHS):
            for _batch, outputs in tensors.batches(torch.randperm(len(samples)), BATCH):
                count += len(outputs)
        return count / (time.perf_counter() - began)

    return run


def _peer(samples: WindowSamples) -> Callable[[], float]:
    import pandas as pd
    from pytorch_forecasting import TimeSeriesDataSet  # type: ignore[import-untyped]

    from modelling_core.etth1_data import BORDERS

    def run() -> float:
        rows = samples.values[slice(*BORDERS["train"])]
        table = pd.DataFrame(rows, columns=list(samples.channels)).assign(step=np.arange(len(rows)), series="one")
        data = TimeSeriesDataSet(table, time_idx="step", target="OT", group_ids=["series"],
                                 max_encoder_length=LOOKBACK, max_prediction_length=HORIZON,
                                 time_varying_unknown_reals=list(samples.channels))  # fmt: skip
        loader = data.to_dataloader(train=True, batch_size=BATCH, num_workers=0)
        began, count = time.perf_counter(), 0
        for _inputs, outputs in islice(loader, PEER_BATCHES):
            count += len(outputs[0])
        return count / (time.perf_counter() - began)

    return run


if __name__ == "__main__":
    main()
