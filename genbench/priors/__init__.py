"""Priors: what latents are drawn from when a trained model is scored. Nothing here is part of its training."""
