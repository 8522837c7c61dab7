"""From drift reports to training runs: the policy, what it decides from, and the journal of what it decided.

Here: pure decisions, their inputs, how often what failed is tried again, and replaying a policy over the past.
Not here: who reads Dagster's runs and asks for new ones (`defs.sensors`), and who is told (`alerts`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
