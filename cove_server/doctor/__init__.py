"""`cove doctor`: looks at this host as the suite would use it."""
