"""`/openapi.json`: the API described, from the constants and types that the endpoints themselves use."""
