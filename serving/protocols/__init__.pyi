from .routers import protocol_requests, protocol_routers

__all__ = ["protocol_requests", "protocol_routers"]
