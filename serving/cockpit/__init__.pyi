from .routes import ASSETS, Cockpit, add_cockpit

__all__ = ["ASSETS", "Cockpit", "add_cockpit"]
