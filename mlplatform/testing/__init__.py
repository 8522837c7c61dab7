"""What tests and benchmarks share, and what a team with plug-ins of its own needs to test them.

Here: small installations, experiments, tables and pairs, the audit of the rows that a training reads, and processes
to end at a chosen moment.
Not here: tests of this project (`mlplatform_tests`). Nothing of the platform imports it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
