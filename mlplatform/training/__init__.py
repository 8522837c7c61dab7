"""Training: data modules' samples in, fitted and scored models out."""
