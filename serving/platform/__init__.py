"""Steering the platform over HTTP: train, promote, roll back, and see where experiments stand. For administrators.

Here: the routes, who asked for what (`audit`), and how runs are launched (`dagster`, over GraphQL).
Not here: training and promoting themselves, which runs of Dagster do; a server holds nothing that fits or decides.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
