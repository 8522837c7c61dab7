"""One training step of the Temporal Fusion Transformer, beside pytorch-forecasting's of the same sizes.

Seven measured columns and four of the calendar, one target, three quantiles; forward, loss, backward and optimiser on a
batch that is ready. The two take turns, on one thread each.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from mlplatform.datamodule import WindowSamples

LOOKBACK, HORIZON, BATCH, HIDDEN, HEADS, DROPOUT = 168, 24, 64, 16, 4, 0.1
QUANTILES = (0.1, 0.5, 0.9)
ROUNDS, AIM = 10, 0.7


def main() -> None:
    """Report the median milliseconds."""
    import torch
    from figures import report

    from modelling_core.etth1_data import parts

    torch.set_num_threads(1)
    samples = parts(LOOKBACK, HORIZON, targets=("OT",))["train"]
    taken: tuple[list[float], list[float]] = ([], [])
    steps = (_ours(samples), _peer(samples))
    for _ in range(ROUNDS + 2):
        for kept, step in zip(taken, steps, strict=True):
            began = time.perf_counter()
            step()
            kept.append((time.perf_counter() - began) * 1e3)
    # The first two of each warm up.
    value, peer = (statistics.median(kept[2:]) for kept in taken)
    case = f"TFT, hidden {HIDDEN}, {HEADS} heads, lookback {LOOKBACK}, horizon {HORIZON}, batch {BATCH}: training step"
    report("tft_step", case, value, "ms", peer="pytorch-forecasting", peer_value=peer, aim=f"<= {AIM} of the peer",
           met=value <= AIM * peer)  # fmt: skip


def _ours(samples: WindowSamples) -> Callable[[], None]:
    import torch

    from mlplatform.models import create_model
    from mlplatform.models.networks import TorchModel
    from modelling_core.etth1_data import spec_of

    params = {"hidden": HIDDEN, "heads": HEADS, "dropout": DROPOUT}
    model = create_model("tft", params, spec_of(samples, QUANTILES))
    assert isinstance(model, TorchModel)
    network, chosen = model.build(), torch.arange(BATCH)
    tensors = model.tensors(samples)
    batch, outputs = tensors.batch(chosen), tensors.outputs(chosen)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    levels = torch.tensor(QUANTILES)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        error = outputs[..., None] - network(batch)
        torch.maximum(levels * error, (levels - 1) * error).mean().backward()
        optimiser.step()

    return step


def _peer(samples: WindowSamples) -> Callable[[], None]:
    import pandas as pd
    import torch
    from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet  # type: ignore[import-untyped]
    from pytorch_forecasting.metrics import QuantileLoss  # type: ignore[import-untyped]

    rows = LOOKBACK + HORIZON + BATCH
    steps = np.arange(rows)
    waves = {
        f"{name}_{period}": wave(2 * np.pi * steps / period)
        for period in (24, 168)
        for name, wave in (("sine", np.sin), ("cosine", np.cos))
    }
    table = pd.DataFrame(samples.values[:rows], columns=list(samples.channels)).assign(
        step=steps, series="one", **waves
    )
    data = TimeSeriesDataSet(table, time_idx="step", target="OT", group_ids=["series"],
                             max_encoder_length=LOOKBACK, max_prediction_length=HORIZON,
                             time_varying_unknown_reals=list(samples.channels),
                             time_varying_known_reals=list(waves))  # fmt: skip
    network = TemporalFusionTransformer.from_dataset(
        data, hidden_size=HIDDEN, hidden_continuous_size=HIDDEN, attention_head_size=HEADS, dropout=DROPOUT,
        lstm_layers=1, output_size=len(QUANTILES), loss=QuantileLoss(list(QUANTILES)))  # fmt: skip
    inputs, (outputs, _) = next(iter(data.to_dataloader(train=True, batch_size=BATCH, num_workers=0)))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        network.loss.loss(network(inputs)["prediction"], outputs).mean().backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
