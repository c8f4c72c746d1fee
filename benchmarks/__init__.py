"""What Cove costs, as ratios to references measured in the same run.

Machines are shared and noisy: only the ratios mean anything, and only within one run.
"""
