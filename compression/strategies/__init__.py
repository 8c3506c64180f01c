"""Ways of making a piece of context shorter, a module each; `types` says what they have in common."""
