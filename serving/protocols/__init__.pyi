from .forms import described_body
from .routers import PROTOCOL_TAGS, protocol_requests, protocol_routers

__all__ = ["PROTOCOL_TAGS", "described_body", "protocol_requests", "protocol_routers"]
