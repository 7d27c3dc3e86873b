"""Other machines that a request names: what may be asked of them, and asking it within limits."""
