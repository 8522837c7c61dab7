from .attempts import Attempts
from .facts import Inputs, ReportFacts, RunFacts, RunState, named
from .journal import Journal, Recorded, read_decisions
from .policy import RetrainDecision, decide_retrain
from .replay import replay_policy

__all__ = [
    "Attempts",
    "Inputs",
    "Journal",
    "Recorded",
    "ReportFacts",
    "RetrainDecision",
    "RunFacts",
    "RunState",
    "decide_retrain",
    "named",
    "read_decisions",
    "replay_policy",
]
