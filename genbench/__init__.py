"""Train generative image models side by side and compare them under one protocol."""

__version__ = "0.1.0"
