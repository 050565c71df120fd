"""The benchmark for one NVIDIA card, in sections that fail and end alone; see `gpu.sh`."""
