"""What a promotion decision leaves in the MLflow run of the pair it is about."""

from __future__ import annotations

import json
from dataclasses import asdict

from mlplatform.promotion.decision import Decision


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
