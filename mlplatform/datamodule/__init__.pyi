from .base import DataModule
from .factory import create_data_module
from .folds import Fold, GroupParams, SampleIndex, Splitter, SplitterParams, StoredFold
from .history import last_observed, may_end
from .identity import deal
from .padding import padded, padded_for
from .panel import Float32, Int64, Panel, column_array, entity_array, to_utc_ns
from .samples import Samples, TabularSamples, WindowSamples, last_origins
from .spec import ModelSpec
from .splits import (
    REFERENCE,
    TRAIN,
    SplitError,
    SplitIntegrityError,
    SplitManifest,
    SplitOverlapError,
    check_disjoint,
    own_rows,
    read_manifest,
    read_part,
    sha256_of,
    split_dir,
    write_split,
)
from .tabular import tabular_samples
from .timeseries import invert_targets, window_samples
from .training_rows import TrainingRows
from .versioning import VersioningError, content, push, track

__all__ = [
    "REFERENCE",
    "TRAIN",
    "DataModule",
    "Float32",
    "Fold",
    "GroupParams",
    "Int64",
    "ModelSpec",
    "Panel",
    "SampleIndex",
    "Samples",
    "SplitError",
    "SplitIntegrityError",
    "SplitManifest",
    "SplitOverlapError",
    "Splitter",
    "SplitterParams",
    "StoredFold",
    "TabularSamples",
    "TrainingRows",
    "VersioningError",
    "WindowSamples",
    "check_disjoint",
    "column_array",
    "content",
    "create_data_module",
    "deal",
    "entity_array",
    "invert_targets",
    "last_observed",
    "last_origins",
    "may_end",
    "own_rows",
    "padded",
    "padded_for",
    "push",
    "read_manifest",
    "read_part",
    "sha256_of",
    "split_dir",
    "tabular_samples",
    "to_utc_ns",
    "track",
    "window_samples",
    "write_split",
]
