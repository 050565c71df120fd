"""What a frozen encoder is worth: features, probes, metrics with intervals."""
