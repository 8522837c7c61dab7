"""Modules of large networks: they import torch at the top, so families import them only when they build one."""
