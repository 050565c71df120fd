"""Pure functions of tensors: no state, no randomness, no communication."""
