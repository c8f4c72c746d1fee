"""Pid 1 of a sandbox. Loads only what starts in milliseconds; see `main`."""
