from .pieces import errors_folder
from .reading import block_errors, recent_error, summarise_errors
from .update import ErrorsUpdate, update_errors

__all__ = ["ErrorsUpdate", "block_errors", "errors_folder", "recent_error", "summarise_errors", "update_errors"]
