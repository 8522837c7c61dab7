from .routers import PROTOCOL_TAGS, protocol_requests, protocol_routers

__all__ = ["PROTOCOL_TAGS", "protocol_requests", "protocol_routers"]
