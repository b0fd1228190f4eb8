"""Recordings of event cameras: from any format's raw file to frames on the training device."""

from .files import read, write
from .recording import Events

__all__ = ["Events", "read", "write"]
