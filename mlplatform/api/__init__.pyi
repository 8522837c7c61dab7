from .comparison import Comparison, compare
from .deletion import DeletionPlan, delete, plan_deletion
from .doctor import Finding, diagnose
from .export import answer_rows, export_pair
from .forecasting import Forecast, forecast
from .lifecycle import Change, History, history, promote, rollback
from .overview import ExperimentStatus, Status, status
from .proposal import Proposal, propose
from .servers import ServerStatus
from .training import TrainingResult, dagster_command, dagster_environment, train

__all__ = [
    "Change",
    "Comparison",
    "DeletionPlan",
    "ExperimentStatus",
    "Finding",
    "Forecast",
    "History",
    "Proposal",
    "ServerStatus",
    "Status",
    "TrainingResult",
    "answer_rows",
    "compare",
    "dagster_command",
    "dagster_environment",
    "delete",
    "diagnose",
    "export_pair",
    "forecast",
    "history",
    "plan_deletion",
    "promote",
    "propose",
    "rollback",
    "status",
    "train",
]
