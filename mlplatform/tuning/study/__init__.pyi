from .journal import KernelLock, only_search, part_of_search
from .outcome import drop_arrays, from_json, load_arrays, save_arrays, to_json
from .pruner import MedianAtStep, Thresholds
from .resume import adopt_study
from .study import interrupt, load_study, open_study

__all__ = [
    "KernelLock",
    "MedianAtStep",
    "Thresholds",
    "adopt_study",
    "drop_arrays",
    "from_json",
    "interrupt",
    "load_arrays",
    "load_study",
    "only_search",
    "open_study",
    "part_of_search",
    "save_arrays",
    "to_json",
]
