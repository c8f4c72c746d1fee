"""`cove admin check`: where registry and disk disagree, and what mends it."""
