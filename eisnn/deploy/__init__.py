"""Trained networks on other arithmetic than they were trained in."""

from eisnn.deploy.int8 import quantize

__all__ = ["quantize"]
