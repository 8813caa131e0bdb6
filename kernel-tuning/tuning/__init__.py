"""What `apply`, `check` and `revert` share. The table of knobs is in `knobs`."""
