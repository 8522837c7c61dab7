"""Trials in the calling process, one after another; each may use all cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlplatform.plugins import EXECUTORS

if TYPE_CHECKING:
    import optuna

    from mlplatform.tuning.search import Search


@EXECUTORS.register("inline")
class Inline:
    """Runs trials in this process. The same seed gives the same study, also when it was interrupted."""

    def run(self, study: optuna.Study, search: Search) -> None:
        """Run trials until a limit of the search is reached."""
        from mlplatform.tuning.search import describe, run_trials
        from mlplatform.tuning.trials import finished

        run_trials(
            study,
            search,
            on_finished=lambda trial: search.log.info(describe(search.config, trial, len(finished(study)))),
        )
