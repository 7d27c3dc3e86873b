"""THE OPERATOR'S TOOL: bin/swap-model. Puts the store and the running service together."""
