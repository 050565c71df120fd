"""One operation a folder: its definition beside its fused forms, behind one function."""
