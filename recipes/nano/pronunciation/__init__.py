"""What a synthesiser is given where its own reading of a text would be wrong or missing."""
