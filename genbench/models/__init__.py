"""One algorithm = one file, its training step written out."""
