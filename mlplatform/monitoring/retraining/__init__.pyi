from .attempts import Attempts
from .facts import Inputs, ReportFacts, RunFacts, RunState, named
from .hold import BrokenDataError, hold_of, training_hold_of
from .journal import Journal, Recorded, read_decisions
from .policy import RetrainDecision, decide_retrain
from .replay import replay_policy

__all__ = [
    "Attempts",
    "BrokenDataError",
    "Inputs",
    "Journal",
    "Recorded",
    "ReportFacts",
    "RetrainDecision",
    "RunFacts",
    "RunState",
    "decide_retrain",
    "hold_of",
    "named",
    "read_decisions",
    "replay_policy",
    "training_hold_of",
]
