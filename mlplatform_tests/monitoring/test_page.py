"""The page of a report: whole without anything from elsewhere, harmless whatever things are called, and true."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlplatform.monitoring.drift import Course, feature_courses
from mlplatform.monitoring.page import report_page
from mlplatform.monitoring.quality import QualityBreak
from mlplatform.monitoring.report import FeatureDrift
from mlplatform_tests.monitoring.test_drift import RECENT_STEPS, TRAIN_STEPS, config, history, report, settings, shifted

__all__ = ["config", "settings"]
BY_DAY = pd.DataFrame(
    {
        "day": pd.date_range("2024-02-01", periods=3).date,
        "error": [1.0, 2.0, 1.5],
        "naive_error": [2.0, np.nan, 2.5],
        "covered": [0.8, 0.5, np.nan],
        "coverage": [0.8, 0.8, np.nan],
    }
)


def course(name: str = "load_pu") -> Course:
    times = pd.date_range("2024-01-01", periods=20).to_numpy("datetime64[ns]")
    trained = np.arange(20) < 14
    return Course(name, times, np.zeros(20), trained, np.arange(20) >= 15, -0.5, 0.5)


def test_a_page_needs_nothing_from_elsewhere_and_says_what_was_found() -> None:
    named = report(quality=(QualityBreak("stuck", "ambient_c", "one value for 30 steps"),))
    page = report_page(named, [course()], BY_DAY, BY_DAY)
    assert "Broken: stuck:ambient_c" in page
    assert page.count("<img") == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "default-src 'none'" in page
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "<td>load_pu</td>" in page


def test_names_are_words_and_no_markup() -> None:
    evil = '<script>alert("$x^{")</script>'
    named = report(features=(FeatureDrift(evil, 2.0, 1.0, status="drift", kinds=("level",)),))
    page = report_page(replace(named, experiment=evil), [course(evil)], BY_DAY, BY_DAY)
    assert "<script" not in page


def test_a_page_without_features_or_errors_is_a_page() -> None:
    page = report_page(report(features=()), [], BY_DAY.iloc[:0], BY_DAY.iloc[:0])
    assert "<img" not in page
    assert report_page(report(), [], BY_DAY, BY_DAY.iloc[:0]).count("<img") == 1


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_band_holds_what_has_not_changed_and_not_what_has(config: object, shift: float) -> None:
    rows = shifted(history(0), shift)
    newest = rows["event_timestamp"].max() - RECENT_STEPS * pd.Timedelta(hours=1)
    (found,) = feature_courses(config, rows[rows["event_timestamp"] <= newest], rows)  # type: ignore[arg-type]
    assert found.times is not None
    assert found.times[-1] == rows["event_timestamp"].max().tz_localize(None)
    assert found.is_training.sum() == TRAIN_STEPS // 24
    now = float(np.nanmean(found.levels[found.is_recent]))
    assert (found.low <= now <= found.high) is (shift == 0.0)


def test_where_the_history_is_too_short_there_is_no_band(config: object) -> None:
    rows = history(0, steps=RECENT_STEPS + 100)
    (found,) = feature_courses(config, rows.head(100), rows)  # type: ignore[arg-type]
    assert np.isnan(found.low)
    assert report_page(report(), [found], BY_DAY, BY_DAY).count("<img") == 2
