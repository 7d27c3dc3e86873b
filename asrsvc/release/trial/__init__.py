"""Trying a version: in processes of its own, on real recordings, beside the version that serves.

What is imported here needs the standard library alone; the children bring the rest.
"""

from asrsvc.release.quality import quality, quality_table
from asrsvc.release.trial.run import run_trial
from asrsvc.release.trial.types import Trial, TrialOptions

__all__ = ["Trial", "TrialOptions", "quality", "quality_table", "run_trial"]
