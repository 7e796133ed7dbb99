"""Priors: what latents are drawn from when a trained model is scored; training knows nothing of them."""
