"""The processes: master, workers, how they start and end."""
