"""Parts of networks as torch modules. Importing them imports torch: do so inside functions."""
