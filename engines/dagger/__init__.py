"""Environments on a Dagger engine: one process a node, beside provider and executor.

Only `python -m engines.dagger` imports the SDK, and only when it is asked for an environment.
"""
