"""One objective a file; `base` is the only abstract one."""
