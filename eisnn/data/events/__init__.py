"""Recordings of event cameras: from any format's raw file to frames on the training device."""

from .augment import EventAugmentation
from .files import read, write
from .recording import Events

__all__ = ["EventAugmentation", "Events", "read", "write"]
