"""What neural networks share: the model around a module, batches of windows, outputs as quantiles.

Here: everything between samples and a torch module; importing it does not import torch.
Not here: the training loop (`training`), and parts of networks (`models.networks.modules`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
