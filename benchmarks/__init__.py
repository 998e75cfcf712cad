"""Ratios against peers, measured in one run. Each module is a command: `python -m benchmarks.unet_step --help`."""
