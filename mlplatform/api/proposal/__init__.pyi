from .looking import Column, Look, look_at
from .proposal import Proposal, propose

__all__ = ["Column", "Look", "Proposal", "look_at", "propose"]
