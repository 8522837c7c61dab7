"""Feast objects of every dataset that has features, for the `feast` command line.

The objects come from the dataset files of the platform's configuration; a dataset appears here once its feature table
has been written, and does not hinder the others before that.
"""

from __future__ import annotations

from mlplatform.config import load_dataset, options
from mlplatform.features.feast import build_definitions
from mlplatform.features.tables import features_path
from mlplatform.settings import Settings

_settings = Settings.from_env()
for _name in options("dataset", _settings):
    _dataset = load_dataset(_name, _settings)
    if features_path(_dataset, _settings).exists():
        # Feast finds objects as attributes of this module.
        globals().update({_item.name: _item for _item in build_definitions(_dataset, _settings)})
