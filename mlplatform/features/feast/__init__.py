"""Our side of the Feast repository: its configuration, its registry, a dataset's objects, and Feast's values.

Here: what tells Feast about the installation, and what turns arrays into its values.
Not here: reading and writing the online store (`features.online`) or the tables behind it (`features.tables`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
