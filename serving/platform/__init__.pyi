from .routes import platform_routes

__all__ = ["platform_routes"]
