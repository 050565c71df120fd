"""How a run is held together: checkpoints, identity, observers."""
