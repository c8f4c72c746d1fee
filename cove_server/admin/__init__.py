"""`cove admin`: back up a state directory, restore it, and look whether its parts agree."""
