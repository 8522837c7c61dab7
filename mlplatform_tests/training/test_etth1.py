"""The published figure: NLinear on ETTh1, 96 steps ahead, all channels, on the 12/4/4-month borders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mlplatform.config import load_experiment
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.splits import read_part, write_split
from mlplatform.models.base import FitOptions, create_model
from mlplatform.settings import Settings
from mlplatform.training.cross_validation import fit_preprocessor
from mlplatform.training.evaluation import score_part
from mlplatform.training.trainers import trainer_for

PUBLISHED, TOLERANCE = 0.374, 0.006
FOLDER = os.environ.get("MLPLATFORM_DATA_DIR", "")

pytestmark = pytest.mark.skipif(
    not FOLDER or not (Path(FOLDER) / "ETTh1.csv").is_file(), reason="MLPLATFORM_DATA_DIR has no ETTh1.csv"
)


def test_nlinear_reproduces_the_paper_and_ridge_is_no_worse(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path), "MLPLATFORM_DATA_DIR": FOLDER})
    config = load_experiment("etth1_nlinear_h96_m", settings=settings)
    ingest(config.dataset, settings)
    manifest = write_split(config.dataset, config.split, read_raw(config.dataset, settings), settings)
    assert {name: part.rows for name, part in manifest.parts.items()} == {
        "train": 8640,
        "reference": 2880,
        "test_standard": 2880,
    }
    train, test = (
        create_data_module(config, read_part(settings, "etth1", "etth1_v1", part))
        for part in ("train", "test_standard")
    )
    manager = fit_preprocessor(train, np.arange(train.panel.rows))
    samples = train.samples(manager, manager.transform(train.panel), train.rows)
    scores = {}
    for family, iterations in (("nlinear", (8,)), ("ridge", ())):
        model = create_model(family, {}, train.spec(manager))
        trainer_for(model).fit(model, samples, None, FitOptions(iterations=iterations, seed=config.seed))
        scores[family] = score_part(test, manager, model).metrics["mse_scaled"]
    assert scores["nlinear"] == pytest.approx(PUBLISHED, abs=TOLERANCE)
    assert scores["ridge"] <= scores["nlinear"]
