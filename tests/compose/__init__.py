"""The suite in containers, for real: `make test-compose`."""
