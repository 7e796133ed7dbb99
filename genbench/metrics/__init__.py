"""What a metric is here: quantities estimated from features of real, held-out and generated images.

One metric, one file: a pure function in float64, and a class that gathers what it is fed. To add a
metric, write such a file and name its class in a config of `configs/evaluation`.
"""
