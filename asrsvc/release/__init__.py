"""The model version: from a download to rollback."""
