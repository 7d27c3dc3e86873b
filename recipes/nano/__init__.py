"""How the embedded model sensevoice-nano was trained: a recipe to run, not a part of the service."""
