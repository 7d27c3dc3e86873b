"""The request: bytes in, words out."""
