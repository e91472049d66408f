"""AMST suite: experiments on imbalanced multimodal learning, from raw media to paper tables."""

__version__ = "0.1.0"
