"""Raw data: sources read, rows validated, bad ones quarantined, and the stored raw table.

Here: everything between a source and the raw table's files, and the simulator behind the demo.
Not here: features made of the rows (`features`), and how they are split for modelling (`datamodule`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
