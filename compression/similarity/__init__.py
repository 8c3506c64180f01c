"""How much of the meaning of a content is left in what survived of it."""
