"""What a promotion decision leaves in the MLflow run of the pair it is about."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlplatform.promotion.decision import Decision
from mlplatform.promotion.page import run_page
from mlplatform.registry.runs import read_plots

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlplatform.candidates import Candidate
    from mlplatform.promotion.promoter import Promotion

# The page of a training run, among its artifacts.
RUN_PAGE = "report.html"


def record_decision(decision: Decision, version: int) -> None:
    """Record a promotion decision and its reason in the active MLflow run."""
    import mlflow

    mlflow.set_tags(
        {
            "pair_version": str(version),
            "promotion.promote": str(decision.promote).lower(),
            "promotion.outcome": decision.outcome,
            "promotion.reason": decision.reason,
            **{f"promotion.{name}": f"{value:.6g}" for name, value in decision.figures.items()},
        }
    )
    mlflow.log_text(json.dumps(asdict(decision), indent=1, default=str), "promotion.json")


def record_page(client: MlflowClient, candidate: Candidate, promotion: Promotion) -> None:
    """Record, in the run that trained a candidate, the page that shows the run and what became of its pair."""
    page = run_page(candidate, promotion, read_plots(client, candidate.run_id))
    client.log_text(candidate.run_id, page, RUN_PAGE)
