"""Datasets: where pixels come from, the decoded cache, the order in which training sees them."""
