"""Datasets: where pictures come from, the cache of decoded ones, the order of training."""
