"""Shared by `apply`, `check` and `revert`. `knobs` has the table of settings."""
