"""A training run as one HTML page: what became of its pair and why, its scores, its pictures and its search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlplatform.html_pages import html_page, html_table, image, paragraph, section
from mlplatform.promotion.gate_plot import plot_gate

if TYPE_CHECKING:
    from mlplatform.candidates import Candidate
    from mlplatform.promotion.decision import Decision
    from mlplatform.promotion.promoter import Promotion

# Pictures with a place of their own; the others follow by name.
_FORECAST, _SCORES = "forecast", "scores"


def run_page(candidate: Candidate, promotion: Promotion, pictures: Mapping[str, bytes]) -> str:
    """Return the page of the run that trained a candidate.

    Parameters:
        promotion: what the promoter did with the pair of this candidate.
        pictures: the PNGs of the training by name.
    """
    config, report = candidate.config, candidate.report
    pair, decision = promotion.candidate, promotion.decision
    fitted = (
        f"{config.model.family}, split {config.split.version_id}, MLflow run {candidate.run_id}, pair {pair.pair_id}, "
        f"{report.fit_seconds:.0f} s of fitting."
    )
    gate = [html_table(gate_rows(decision))]
    if decision.figures:
        gate.append(html_table([decision.figures]))
    if promotion.report.errors:
        gate.append(image(plot_gate(promotion.report), "candidate against champion"))
    others = sorted(pictures.keys() - {_FORECAST, _SCORES})
    return html_page(
        f"{config.name} version {pair.version}",
        [
            paragraph(f"{'Promoted' if promotion.promoted else 'Not promoted'}: {promotion.reason}", strong=True),
            *(paragraph(f"Warning: {warning}") for warning in decision.warnings),
            paragraph(fitted),
            *(section(title, image(pictures[title], title)) for title in (_FORECAST, _SCORES) if title in pictures),
            section("beside the baselines", *(paragraph(line) for line in report.beside_baselines(config.metric))),
            section("gate", *gate),
            *(section(title, image(pictures[title], title)) for title in others),
            section("hyperparameters", html_table([{"name": name, "value": v} for name, v in report.params.items()])),
            section("trials", html_table(report.trials)),
        ],
    )


def gate_rows(decision: Decision) -> list[dict[str, Any]]:
    """Return what a gate compared, a row per contender, baseline and bar."""
    rows: list[dict[str, Any]] = []
    for role, contender in (("candidate", decision.candidate), ("champion", decision.champion)):
        if contender is not None:
            rows.append(
                {
                    "contender": f"version {contender.version} ({role})",
                    "score": contender.score,
                    "trained on rows up to": contender.data_until,
                    "obstacle": contender.obstacle,
                }
            )
    rows += [{"contender": f"baseline {name}", "score": score} for name, score in decision.baselines.items()]
    if decision.needed is not None:
        rows.append({"contender": "needed to beat the champion", "score": decision.needed})
    return rows
