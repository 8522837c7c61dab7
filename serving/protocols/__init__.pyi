<<<<<<< HEAD
from .forms import described_body
from .routers import protocol_requests, protocol_routers

__all__ = ["described_body", "protocol_requests", "protocol_routers"]
=======
from .routers import PROTOCOL_TAGS, protocol_requests, protocol_routers

__all__ = ["PROTOCOL_TAGS", "protocol_requests", "protocol_routers"]
>>>>>>> holds
