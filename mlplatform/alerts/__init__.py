"""Telling people: what happened, once, through the channels that the configuration names.

Here: what an alert says, the outbox that keeps it until it is delivered, and the channels (Apprise).
Not here: who finds out that something happened; that is the business of the sensors, assets and servers that call this.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
