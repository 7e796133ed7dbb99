"""One formula, once, cited."""
