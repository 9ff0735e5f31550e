"""amscale: grids of training runs over model size and data size, and what they imply."""

__version__ = "0.1.0"
