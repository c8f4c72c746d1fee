"""What each sub-command takes, and what its help says. What it does is loaded when it runs."""
