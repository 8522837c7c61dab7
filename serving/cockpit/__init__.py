"""The server's own page: what it serves, and a forecast of an entity of your choice beside its recent past.

Here: the page with its script and style, and the routes that it asks beyond those that every client has.
Not here: predictions (`api`), the pages of the API's documentation (`pages`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
