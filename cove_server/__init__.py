"""The sub-commands of `cove` that run the suite itself."""
