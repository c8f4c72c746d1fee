"""The one process of a node that forks and reaps sandboxes: `python -m agent.launcher`."""
