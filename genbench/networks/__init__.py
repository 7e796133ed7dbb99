"""Network architectures, without losses: all models use the same ones."""
