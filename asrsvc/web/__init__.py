"""HTTP: routes, answers, errors."""
