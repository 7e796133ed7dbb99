"""Metrics: quantities estimated from features of real, held-out and generated images.

Each metric is one file: pure functions in float64, and a `FeatureMetric` that calls them. To add one,
write such a file and name its class in a config of `configs/evaluation`.
"""
