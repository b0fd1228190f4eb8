"""Cognitive tasks: trials as sequences. `neurogym` has the tasks, and says how to add one."""

from .trials import Trials, TrialSettings

__all__ = ["TrialSettings", "Trials"]
