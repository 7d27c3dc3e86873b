"""asrsvc: a speech recognition service for SenseVoice that never has to stop."""

__version__ = "0.1.0"
