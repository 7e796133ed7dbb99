"""How a model is trained; PyTorch Lightning is imported only here."""
