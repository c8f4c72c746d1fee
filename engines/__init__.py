"""What drivers share about an engine that environments stand on. Knows no service's API."""
